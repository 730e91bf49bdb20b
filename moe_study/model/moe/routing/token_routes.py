"""What a decision means for each token, as a trace keeps it; made only where a forward pass asks for it.

Shape suffixes: N tokens (= B * T), R decisions (blocks of tokens), E experts, K candidates by rank.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from moe_study.model.forward_pass import TokenRoutes
from moe_study.model.moe.routing.gate import RoutingDecision


@torch.no_grad()
def routes_of_decision(
    scored: tuple[Tensor, RoutingDecision] | None,
    wanted: RoutingDecision,
    limited: RoutingDecision,
    block: int,
) -> TokenRoutes:
    """Routes of blocks of `block` tokens each.

    `scored`: logits (R, E) and what the rule chose by them, before any shuffle; None for a fixed router.
    `wanted` and `limited`: the decision before and after a capacity.
    """
    rows = wanted.expert_RK.shape[0]
    entropy_R = margin_R = torch.full((rows,), math.nan, device=wanted.expert_RK.device)
    if scored is not None:
        logits_RE, chosen = scored
        entropy_R, margin_R = entropies(logits_RE), margins(logits_RE.softmax(1), chosen)

    def by_token(value_R: Tensor) -> Tensor:
        return value_R.detach().repeat_interleave(block, 0)

    return TokenRoutes(
        expert_NK=by_token(wanted.expert_RK),
        weight_NK=by_token(wanted.weight_RK),
        picked_NK=None if wanted.keep_RK is None else by_token(wanted.keep_RK),
        kept_NK=None if limited is wanted else by_token(limited.mask()),
        entropy_N=by_token(entropy_R),
        margin_N=by_token(margin_R),
    )


@torch.no_grad()
def routes_of_weights(weight_NE: Tensor, entropy_N: Tensor) -> TokenRoutes:
    """Routes of tokens that have a weight on every expert: there is no expert left out, hence no margin."""
    every_NE = torch.arange(weight_NE.shape[1], device=weight_NE.device).expand_as(weight_NE)
    return TokenRoutes(every_NE, weight_NE.detach(), None, None, entropy_N, torch.full_like(entropy_N, math.nan))


def entropies(logits_RE: Tensor) -> Tensor:
    """Entropy of each decision's softmax over experts, nats (R,)."""
    log_p_RE = F.log_softmax(logits_RE, 1)
    return -(log_p_RE.exp() * log_p_RE).sum(1)


def margins(p_RE: Tensor, chosen: RoutingDecision) -> Tensor:
    """Smallest probability that was chosen, less the largest that was not (R,).

    Not a number where all or none were chosen. Negative where something else than the router's own order decided: a
    balancing bias, experts that choose their tokens.
    """
    picked_RE = torch.zeros_like(p_RE, dtype=torch.bool).scatter_(1, chosen.expert_RK, chosen.mask())
    lowest_R = p_RE.masked_fill(~picked_RE, math.inf).amin(1)
    highest_R = p_RE.masked_fill(picked_RE, -math.inf).amax(1)
    margin_R = lowest_R - highest_R
    return margin_R.masked_fill(margin_R.isinf(), math.nan)
