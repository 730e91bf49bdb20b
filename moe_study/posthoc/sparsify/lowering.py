"""Fewer experts at test time: the gate weights of "every expert", of which a threshold keeps some.

Shape suffixes: B sequences, J blocks of a sequence, E experts, K candidates by rank, R = B * J decisions.
"""

from dataclasses import replace

import torch
from torch import Tensor

from moe_study.design.routing import Routing
from moe_study.model.gpt import GPT
from moe_study.model.moe.layer import MixtureLayer
from moe_study.model.moe.routing.gate import RoutingDecision
from moe_study.model.moe.routing.selection import All, Rule, Threshold


class Lowered(Rule):
    """Weights as with every expert on, neither renormalised nor changed otherwise; experts up to a threshold.

    Which experts count is decided as in XMoE (2403.18926, eq. 4-5): in descending order of the softmax of the
    scores until its sum reaches t. At t = 1 every expert does, those of vanishing probability too.
    """

    def __init__(self, routing: Routing, experts: int, threshold: float, full: Rule | None = None) -> None:
        super().__init__(routing, experts)
        self.everything = threshold >= 1
        self.full = All(routing, experts) if full is None else full
        self.ranking = Threshold(replace(routing, threshold=threshold, threshold_budget=None), experts)

    def forward(self, logits_BJE: Tensor, bias_E: Tensor | None) -> RoutingDecision:
        full = self.full(logits_BJE, bias_E)
        if self.everything:
            return full
        kept = self.ranking(logits_BJE, bias_E)
        assert kept.keep_RK is not None
        return replace(kept, weight_RK=full.weight_RK.gather(1, kept.expert_RK) * kept.keep_RK)


class Whole(Rule):
    """Every expert with weight 1: the sum of the parts of a split network."""

    def forward(self, logits_BJE: Tensor, bias_E: Tensor | None) -> RoutingDecision:
        logits_RE = logits_BJE.flatten(0, 1)
        expert_RK = torch.arange(logits_RE.shape[1], device=logits_RE.device).expand_as(logits_RE)
        return RoutingDecision(expert_RK, torch.ones_like(logits_RE))


def mixtures(model: GPT) -> list[MixtureLayer]:
    """The mixture layers of a model, in order."""
    return [block.ffn for block in model.blocks if isinstance(block.ffn, MixtureLayer)]


def lower(model: GPT, routing: Routing, threshold: float) -> None:
    """Let every decision of `model` (trained with selection=all, or split) keep experts up to `threshold`."""
    for layer in mixtures(model):
        if (decider := layer.decider) is not None:
            rule = decider.select
            full = rule.full if isinstance(rule, Lowered) else rule
            decider.select = Lowered(routing, layer.num_experts, threshold, full)
            decider.select.eval()
