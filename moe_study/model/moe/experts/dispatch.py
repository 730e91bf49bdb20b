"""The seam of all discrete routings: tokens and a plan in, the experts' weighted sum out.

Each implementation is one function of the same arguments and results, tested against loops over tokens and
experts in float64:

- chunked (CPU, float32 and float64): expert after expert, in pieces that stay in the cache.
- grouped (every device and precision, torch.compile): torch's grouped product.
- triton (GPU, if chosen; measured nowhere yet): kernels of our own, with the gather fused into the products.

Shape suffixes: N tokens, D width.
"""

import importlib.util
from collections.abc import Callable

import torch
from torch import Tensor

from moe_study.errors import ConfigError
from moe_study.model.moe.experts.chunked import chunked_ffn
from moe_study.model.moe.experts.dispatch_plan import DispatchPlan
from moe_study.model.moe.experts.experts import Experts
from moe_study.model.moe.experts.grouped import grouped_ffn

Implementation = Callable[[Tensor, DispatchPlan, Experts], Tensor]


def expert_ffn(x_ND: Tensor, plan: DispatchPlan, experts: Experts, choice: str) -> Tensor:
    """Sum over each token's pairs of weight * expert(token): (N, D). A token without pairs gets 0.

    `choice` (run.dispatch) runs what it can, and `auto` the rest.
    """
    return implementation(x_ND, choice)(x_ND, plan, experts)


def check_installed(choice: str) -> None:
    """ConfigError if the implementation that `choice` names is not to be had."""
    if choice == "triton" and importlib.util.find_spec("triton") is None:
        raise ConfigError("run.dispatch=triton needs the package triton, which is not installed; use auto or grouped")


def implementation(x_ND: Tensor, choice: str) -> Implementation:
    """What runs for this device and precision: the choice, or what is fastest as far as it was measured."""
    device, dtype = x_ND.device.type, x_ND.dtype
    if choice == "triton" and device == "cuda" and dtype is not torch.float64:
        from moe_study.model.moe.experts.triton_experts import triton_ffn

        return triton_ffn
    is_full = dtype in (torch.float32, torch.float64) and not torch.is_autocast_enabled(device)
    return chunked_ffn if choice != "grouped" and device == "cpu" and is_full else grouped_ffn
