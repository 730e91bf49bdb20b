"""The seam of all discrete routings: tokens and a plan in, the experts' weighted sum out.

Each implementation is one function of the same arguments and results, tested against loops over tokens and
experts in float64:

- chunked (CPU, float32 and float64): expert after expert, in pieces that stay in the cache.
- grouped (every device and precision, torch.compile): torch's grouped product.
- triton (GPU, if chosen): the gather fused into the products.

Shape suffixes: N tokens, D width.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from moe_study.model.moe.chunked import chunked_ffn
from moe_study.model.moe.experts import Experts
from moe_study.model.moe.grouped import grouped_ffn
from moe_study.model.moe.plan import Plan

Implementation = Callable[[Tensor, Plan, Experts], Tensor]


def expert_ffn(x_ND: Tensor, plan: Plan, experts: Experts) -> Tensor:
    """Sum over each token's pairs of weight * expert(token): (N, D). A token without pairs gets 0."""
    return implementation(x_ND)(x_ND, plan, experts)


def implementation(x_ND: Tensor) -> Implementation:
    """What is fastest for this device and precision, as far as it was measured."""
    device = x_ND.device.type
    if device == "cpu" and x_ND.dtype in (torch.float32, torch.float64) and not torch.is_autocast_enabled(device):
        return chunked_ffn
    return grouped_ffn
