"""The seam of all discrete routings: tokens and a plan in, the experts' weighted sum out.

Each implementation is one function of the same arguments and results, tested against loops over tokens and
experts in float64:

- chunked (CPU, float32 and float64): expert after expert, in pieces that stay in the cache.
- fused (GPU, bfloat16): torch's grouped product, with kernels of our own between the products.
- triton (GPU, other precisions and sizes): kernels of our own, with the gather fused into the products.
- grouped (every device and precision): torch's grouped product between torch's other operators.

Shape suffixes: N tokens, D width.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from moe_study.errors import ConfigError
from moe_study.model.moe.experts.chunked import chunked_ffn
from moe_study.model.moe.experts.dispatch_plan import DispatchPlan
from moe_study.model.moe.experts.experts import Experts
from moe_study.model.moe.experts.grouped import grouped_ffn
from moe_study.model.moe.experts.grouped_linear import aligned
from moe_study.model.precision import HAS_TRITON, product_dtype

ON_GPUS = ("fused", "triton")  # written in Triton
Implementation = Callable[[Tensor, DispatchPlan, Experts], Tensor]


def expert_ffn(x_ND: Tensor, plan: DispatchPlan, experts: Experts, choice: str) -> Tensor:
    """Sum over each token's pairs of weight * expert(token): (N, D). A token without pairs gets 0.

    `choice` (run.dispatch) runs what it can, and `auto` the rest.
    """
    return implementation(x_ND, experts, choice)(x_ND, plan, experts)


def check_installed(choice: str) -> None:
    """ConfigError if the implementation that `choice` names is not to be had."""
    if choice in ON_GPUS and not HAS_TRITON:
        raise ConfigError(
            f"run.dispatch={choice} needs the package triton, which is not installed; use auto or grouped"
        )


def implementation(x_ND: Tensor, experts: Experts, choice: str) -> Implementation:
    """What runs for this device, precision and size: the choice, or what is fastest as far as it was measured."""
    device, dtype = x_ND.device.type, product_dtype(x_ND)
    if choice == "grouped":
        return grouped_ffn
    if device == "cuda" and HAS_TRITON and dtype is not torch.float64:
        # Of other precisions torch has no kernel that takes all groups at once: it waits, and loops over experts.
        at_once = dtype is torch.bfloat16 and aligned(dtype, *experts.up_EDF.shape[1:])
        if at_once and choice != "triton":
            from moe_study.model.moe.experts.fused import fused_ffn

            return fused_ffn
        from moe_study.model.moe.experts.triton_experts import triton_ffn

        return triton_ffn
    return chunked_ffn if device == "cpu" and dtype in (torch.float32, torch.float64) else grouped_ffn
