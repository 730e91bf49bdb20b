"""What a selection rule gives back: candidate experts for every decision, and their gate weights.

Shape suffixes: R decisions (blocks of all sequences), E experts, K candidates by rank.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from moe_study.design.routing import Gate


@dataclass
class RoutingDecision:
    """Who goes where: K candidate experts for each of R units of tokens, best first."""

    expert_RK: Tensor  # int64
    weight_RK: Tensor  # what the expert's output is multiplied with; carries the router's gradient
    keep_RK: Tensor | None = None  # which candidates count; None: all
    probability_RK: Tensor | None = None  # softmax over all experts, for priorities under a capacity; detached

    def mask(self) -> Tensor:
        """`keep_RK`, made up where all candidates count."""
        return torch.ones_like(self.expert_RK, dtype=torch.bool) if self.keep_RK is None else self.keep_RK

    def each(self, change: Callable[[Tensor], Tensor]) -> "RoutingDecision":
        """The same of other decisions: `change` gets every tensor (R, K)."""
        values = ((name, getattr(self, name)) for name in ("expert_RK", "weight_RK", "keep_RK", "probability_RK"))
        return replace(self, **{name: change(value) for name, value in values if value is not None})


def gate_weights(
    gate: Gate, logits_RE: Tensor, expert_RK: Tensor, keep_RK: Tensor | None, renormalise: bool
) -> Tensor:
    """Weights (R, K) of the picked experts; those not kept get weight 0 and no share of a normalisation."""
    picked_RK = logits_RE.gather(1, expert_RK)
    if gate is Gate.SIGMOID:
        weight_RK = picked_RK.sigmoid()
    elif gate is Gate.RELU:
        weight_RK = picked_RK.relu()
    elif gate is Gate.PICK_THEN_SOFTMAX:
        weight_RK = _masked_softmax(picked_RK, keep_RK)
    else:
        # The softmax over all experts by its logsumexp: the (R, E) probabilities are needed at the picked experts only.
        weight_RK = (picked_RK - logits_RE.logsumexp(1, keepdim=True)).exp()
        if gate is Gate.DOUBLE_SOFTMAX:
            weight_RK = _masked_softmax(weight_RK, keep_RK)
    if keep_RK is not None:
        weight_RK = weight_RK * keep_RK
    if renormalise:
        weight_RK = weight_RK / weight_RK.sum(1, keepdim=True).clamp_min(torch.finfo(weight_RK.dtype).tiny)
    return weight_RK


def _masked_softmax(scores_RK: Tensor, keep_RK: Tensor | None) -> Tensor:
    return (scores_RK if keep_RK is None else scores_RK.masked_fill(~keep_RK, -math.inf)).softmax(1)


def fixed_decision(expert_RK: Tensor, dtype: torch.dtype) -> RoutingDecision:
    """Experts chosen without scores, each with weight 1/K."""
    weight_RK = torch.full(expert_RK.shape, 1 / expert_RK.shape[1], device=expert_RK.device, dtype=dtype)
    return RoutingDecision(expert_RK, weight_RK)


def shuffled(decision: RoutingDecision, training: bool) -> RoutingDecision:
    """Control: the same experts handed to other tokens, so that only the experts' usage is kept.

    Drawn from the global stream in training, and always the same permutation in evaluation.
    """
    rows, device = decision.expert_RK.shape[0], decision.expert_RK.device
    generator = None if training else torch.Generator().manual_seed(rows)
    order_R = torch.randperm(rows, generator=generator).to(device)
    return decision.each(lambda value_RK: value_RK[order_R])


def entropy(logits_RE: Tensor) -> Tensor:
    """Mean entropy of the softmax over experts, nats."""
    log_p_RE = F.log_softmax(logits_RE, 1)
    return -(log_p_RE.exp() * log_p_RE).sum(1).mean()
