"""At which sizes bench/gpu.py measures, and through which implementation of the experts."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from unittest import mock

import torch

from bench.sides import Setting as LayerSetting
from bench.step import Setting as StepSetting
from moe_study.model.moe.experts import dispatch
from moe_study.model.moe.experts.dispatch import Implementation

IMPLEMENTATIONS = ("fused", "grouped", "triton")


@contextlib.contextmanager
def implementation_of(name: str) -> Iterator[Implementation]:
    """Within this context mixtures run their experts through `name`, whatever the device and precision."""
    if name == "grouped":
        from moe_study.model.moe.experts.grouped import grouped_ffn as function
    elif name == "fused":
        from moe_study.model.moe.experts.fused import fused_ffn as function
    else:
        from moe_study.model.moe.experts.triton_experts import triton_ffn as function
    with mock.patch.object(dispatch, "implementation", lambda x_ND, experts, choice: function):
        yield function


@contextlib.contextmanager
def float32_products(precision: str) -> Iterator[None]:
    """Within this context products of float32 values round their inputs if `precision` is tf32."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@dataclass(frozen=True)
class Sizes:
    """All that differs between a GPU and a trial of the commands on a CPU."""

    device: str = "cuda"
    backend: str = "inductor"  # of torch.compile
    check_tokens: int = 1024
    check_length: int = 64
    command_steps: int = 80
    width: int = 768
    dense_hidden: int = 3072
    sequences: int = 64
    length: int = 1024  # 65,536 tokens
    model: str = "gpt2_small"
    batch: int = 64
    dense_batch: int = 32  # nanoGPT keeps all logits, in float32
    memory_batch: int = 32
    rounds: int = 15
    step_rounds: int = 7

    def layer(self) -> LayerSetting:
        """For a layer."""
        return LayerSetting(
            self.width, self.dense_hidden, self.sequences, self.length, device=self.device, precision="bf16"
        )

    def small_layer(self) -> LayerSetting:
        """For a layer that only has to be right."""
        return LayerSetting(64, 64, 4, self.check_length, device=self.device, precision="bf16")

    def step(self, *, compiled: bool = False, batch: int | None = None) -> StepSetting:
        """For a training step."""
        batch = batch or self.batch
        return StepSetting(self.model, batch, device=self.device, precision="bf16", compile=compiled)

    def small_step(self) -> StepSetting:
        """For steps that only have to be right."""
        return StepSetting("nano", 2, device=self.device, precision="bf16")


TRIAL = Sizes(
    device="cpu",
    backend="aot_eager",
    check_tokens=32,
    check_length=8,
    command_steps=10,
    width=32,
    dense_hidden=64,
    sequences=1,
    length=32,
    model="nano",
    batch=1,
    dense_batch=1,
    memory_batch=1,
    rounds=1,
    step_rounds=1,
)


def sizes() -> Sizes:
    """Those of a trial in its process, else a GPU's."""
    return TRIAL if os.environ.get("MOE_STUDY_GPU_TRIAL") == "1" else Sizes()
