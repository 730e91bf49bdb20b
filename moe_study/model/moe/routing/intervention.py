"""The seam for causal tests of a trained model: what a layer decided is shown to a caller, who gives it back changed.

An intervention is called after the selection and before any shuffle and capacity; where every token has a weight on
every expert (soft, merge), before these weights are used. posthoc/knockout/ holds those that there are.

Shape suffixes: R decisions, K candidates, E experts.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from moe_study.model.moe.routing.gate import RoutingDecision


@dataclass(frozen=True)
class Decided:
    """One layer's decisions of one forward pass, and what it takes to decide otherwise.

    Soft mixtures have a candidate for each slot, so that an expert may be there several times; the tokens that have no
    slots yet (form=chunk_lagged) are shown by themselves.
    """

    decision: RoutingDecision
    experts: int
    scores_RE: Tensor | None = None  # what the rule ranks experts by, detached; None: nothing is left out by a score
    # Candidates (R, K) and which of them count, None: all -> the decision for them, with gate weights of these scores.
    decide: Callable[[Tensor, Tensor | None], RoutingDecision] | None = None


Intervention = Callable[[Decided], RoutingDecision]


def dense_weights(decision: RoutingDecision, experts: int) -> Tensor:
    """Weight of every expert, (R, E), 0 for what does not count."""
    weight_RK = decision.weight_RK if decision.keep_RK is None else decision.weight_RK * decision.keep_RK
    empty_RE = torch.zeros(len(weight_RK), experts, dtype=weight_RK.dtype, device=weight_RK.device)
    return empty_RE.scatter_add(1, decision.expert_RK, weight_RK)
