"""The Triton kernels without a GPU: their cases in Triton's interpreter, and every launch compiled for Hopper.

The interpreter has to be chosen before Triton is first imported, hence a process of its own. It runs what the
compiler refuses, and knows no limits of registers and memory, hence the compilation, which needs no GPU.
"""

import os
import subprocess
import sys
from typing import Any

import pytest
import torch

from moe_study.model.moe.experts.dispatch_plan import make_dispatch_plan
from moe_study.model.moe.experts.experts import Experts
from moe_study.model.moe.routing.gate import RoutingDecision
from tests.hopper import HOPPER_SHARED_MEMORY, INTERPRETER, ROOT, launched, run_in_interpreter

__all__ = ["launched"]


FORWARD = ["tile_map_kernel", "product_kernel", "product_kernel", "combine_kernel"]
BACKWARD = [
    "tile_map_kernel",
    "hidden_gradient_kernel",
    "weight_gradient_kernel",
    "weight_gradient_kernel",
    "product_kernel",
    "combine_kernel",
]


@pytest.mark.long
@pytest.mark.timeout(600)
@INTERPRETER
def test_the_cases_hold_in_the_interpreter() -> None:
    run_in_interpreter("tests/model/moe/experts/triton_cases.py")


@pytest.mark.long
def test_training_does_not_import_the_kernels_unasked() -> None:
    kernels = {f"moe_study.model.moe.experts.{name}_kernels" for name in ("fused", "triton")}
    code = f"import sys, moe_study.training.run, moe_study.model.moe.layer; assert not {kernels} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=True)


@pytest.mark.long
@pytest.mark.parametrize(
    ("dtype", "precision", "width", "hidden", "bias", "block"),
    [
        (torch.bfloat16, "highest", 768, 384, True, 1),
        (torch.bfloat16, "highest", 768, 384, False, 64),
        (torch.bfloat16, "highest", 33, 7, True, 1),
        (torch.float32, "highest", 768, 384, True, 1),
        (torch.float32, "high", 768, 384, True, 1),
    ],
)
def test_every_launch_compiles_for_hopper_within_its_shared_memory(
    launched: list[tuple[str, Any]],
    dtype: torch.dtype,
    precision: str,
    width: int,
    hidden: int,
    bias: bool,
    block: int,
) -> None:
    from moe_study.model.moe.experts.triton_experts import triton_ffn

    blocks, experts, k = 4, 16, 2
    expert_RK = torch.rand(blocks, experts).topk(k).indices
    plan = make_dispatch_plan(RoutingDecision(expert_RK, torch.rand(blocks, k, requires_grad=True)), experts, block)
    x_ND = torch.zeros(blocks * block, width, dtype=dtype, requires_grad=True)
    torch.set_float32_matmul_precision(precision)
    try:
        y_ND = triton_ffn(x_ND, plan, Experts(experts, width, hidden, bias).to(dtype))
        y_ND.backward(torch.zeros_like(y_ND))
    finally:
        torch.set_float32_matmul_precision("highest")
    assert [name for name, _ in launched] == FORWARD + BACKWARD
    for name, kernel in launched:
        assert kernel.metadata.shared <= HOPPER_SHARED_MEMORY, name
        is_product = name not in ("tile_map_kernel", "combine_kernel")
        if is_product and dtype is torch.bfloat16 and width % 16 == 0:
            assert "wgmma.mma_async" in kernel.asm["ptx"], name  # Hopper's own tensor instructions
            assert "cp.async.c" in kernel.asm["ptx"], name  # loads ahead of use, the gathered ones too


@pytest.mark.long
@pytest.mark.parametrize(("bias", "block"), [(True, 1), (False, 64)])
def test_every_kernel_between_grouped_products_compiles_for_hopper(
    launched: list[tuple[str, Any]], bias: bool, block: int
) -> None:
    from moe_study.model.moe.experts.fused import fused_ffn

    blocks, experts, k = 4, 16, 2
    expert_RK = torch.rand(blocks, experts).topk(k).indices
    plan = make_dispatch_plan(RoutingDecision(expert_RK, torch.rand(blocks, k, requires_grad=True)), experts, block)
    x_ND = torch.zeros(blocks * block, 768, dtype=torch.bfloat16, requires_grad=True)
    y_ND = fused_ffn(x_ND, plan, Experts(experts, 768, 384, bias).to(torch.bfloat16))
    y_ND.backward(torch.zeros_like(y_ND))
    assert [name for name, _ in launched] == [
        "spread_kernel",
        "bias_gelu_kernel",
        "combine_kernel",
        "spread_kernel",
        "hidden_gradient_kernel",
        "combine_kernel",
    ]
    assert all(kernel.metadata.shared <= HOPPER_SHARED_MEMORY for _, kernel in launched)
