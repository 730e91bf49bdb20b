"""Hugging Face transformers' mixture blocks, each with the dense network of its own kind.

Both of the package's ways to run experts are timed: eager (a loop over experts, the models' own code) and grouped_mm.
All experts are gated. Blocks with a shared expert take it as one of a token's K.
"""

import importlib
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import Tensor, nn

from bench.peer_layers import Peer, Shape, top_k
from bench.sides import Setting
from moe_study.design.routing import Gate, Routing


@dataclass(frozen=True)
class HuggingFace:
    """A model family of transformers: where its block is, and how its configuration calls things."""

    family: str  # of transformers.models
    name: str  # how its classes begin
    block: str  # how the mixture's class ends
    size: str
    experts: str
    dense: str = ""  # "family.Class" of its dense network, without biases; gpt-oss has none
    gate: Gate = Gate.SOFTMAX_THEN_PICK
    renormalise: bool = False
    shared: int = 0  # experts of a token's K that every token shares
    shared_size: str = ""  # what the shared expert's size is called, where it has one of its own
    extra: dict[str, Any] = field(default_factory=dict)

    def config(self, **options: Any) -> Any:
        return getattr(importlib.import_module("transformers"), f"{self.name}Config")(**options)

    def find(self, path: str) -> Any:
        """The class at "family.Class"."""
        family, name = path.split(".")
        return getattr(importlib.import_module(f"transformers.models.{family}.modeling_{family}"), name)

    def build(self, implementation: str, shape: Shape, setting: Setting) -> nn.Module:
        sizes = {self.size: shape.gated.size, self.experts: shape.experts, "num_experts_per_tok": shape.k - self.shared}
        shared = {self.shared_size: shape.gated.size} if self.shared_size else {}
        options = {"hidden_size": setting.width, "experts_implementation": implementation}
        config = self.config(**options, **sizes, **shared, **self.extra)
        assert config._experts_implementation == implementation
        return self.find(f"{self.family}.{self.name}{self.block}")(config)

    def build_dense(self, shape: Shape, setting: Setting) -> nn.Module:
        if not self.dense:
            return GptOssDense(self.config(hidden_size=setting.width, intermediate_size=shape.gated.active), self)
        return self.find(self.dense)(self.config(hidden_size=setting.width, intermediate_size=shape.gated.active))

    def ours(self, shape: Shape) -> Routing:
        return top_k(self.gate, shape, self.shared, self.renormalise)

    def peer(self, implementation: str) -> Peer:
        pairs = [(8, 1)] * (not self.shared) + [(8, 2), (64, 8)]
        # Eager indexing writes a zero of all experts' size for each expert's gradient: out of reach at 512.
        pairs += [(512, 8)] * (implementation != "eager")
        build = partial(self.build, implementation)
        block, bias = f"{self.family} {implementation}", not self.dense
        return Peer("transformers", block, build, self.build_dense, self.ours, tuple(pairs), bias)


class GptOssDense(nn.Module):
    """One expert of gpt-oss as a dense network: its biases and its own clamped gate, which the package lends."""

    def __init__(self, config: Any, family: HuggingFace) -> None:
        super().__init__()
        self.gate_up = nn.Linear(config.hidden_size, 2 * config.intermediate_size)
        self.down = nn.Linear(config.intermediate_size, config.hidden_size)
        self.alpha, self.limit = config.swiglu_alpha, config.swiglu_limit
        self.gate = family.find("gpt_oss.GptOssExperts")._apply_gate

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.down(self.gate(self, self.gate_up(x_BTD)))


FAMILIES = (
    HuggingFace(
        "mixtral", "Mixtral", "SparseMoeBlock", "intermediate_size", "num_local_experts",
        dense="mistral.MistralMLP", gate=Gate.PICK_THEN_SOFTMAX,
    ),
    HuggingFace("olmoe", "Olmoe", "SparseMoeBlock", "intermediate_size", "num_experts", dense="olmoe.OlmoeMLP"),
    HuggingFace(
        "qwen3_moe", "Qwen3Moe", "SparseMoeBlock", "moe_intermediate_size", "num_experts",
        dense="qwen3_moe.Qwen3MoeMLP",
    ),
    HuggingFace(
        "qwen2_moe", "Qwen2Moe", "SparseMoeBlock", "moe_intermediate_size", "num_experts",
        dense="qwen2_moe.Qwen2MoeMLP", shared=1, shared_size="shared_expert_intermediate_size",
    ),
    HuggingFace(
        "deepseek_v3", "DeepseekV3", "MoE", "moe_intermediate_size", "n_routed_experts",
        dense="deepseek_v3.DeepseekV3MLP", gate=Gate.SIGMOID, renormalise=True, shared=1,
        extra={"n_shared_experts": 1, "n_group": 1, "topk_group": 1},
    ),
    HuggingFace(
        "gpt_oss", "GptOss", "MLP", "intermediate_size", "num_local_experts", gate=Gate.PICK_THEN_SOFTMAX
    ),
)  # fmt: skip

IMPLEMENTATIONS = ("grouped_mm", "eager")
TRANSFORMERS = [family.peer(implementation) for implementation in IMPLEMENTATIONS for family in FAMILIES]
