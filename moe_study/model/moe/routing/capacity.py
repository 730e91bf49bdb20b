"""A limit on the tokens an expert takes, and who is kept when more want it.

A pair over the limit is dropped and not routed again; a token that loses all its pairs keeps its residual only.
Which priorities let later tokens push out earlier ones is declared in `moe_study.design.causality`.

Shape suffixes: R decisions (tokens of all sequences), K candidates by rank, P pairs that count.
"""

from dataclasses import replace

import torch
from torch import Tensor

from moe_study.design.routing import Group, Priority, Routing
from moe_study.design.selections import capacity_slots
from moe_study.model.moe.routing.gate import RoutingDecision


class CapacityLimit:
    """Keeps at most `slots` pairs for each expert and group."""

    def __init__(self, routing: Routing, experts: int, context: int) -> None:
        self.routing, self.experts, self.context = routing, experts, context

    def slots(self, tokens: int) -> int:
        """Pairs that one expert takes from a group of `tokens`."""
        return capacity_slots(self.routing, self.experts, tokens)

    def __call__(self, decision: RoutingDecision, sequences: int) -> RoutingDecision:
        """The same decision without the pairs over the limit.

        A sequence's limit follows from the model's context length, not from the tokens at hand, so that a
        shorter input is treated as the beginning of a longer one.
        """
        rows, k = decision.expert_RK.shape
        by_sequence = self.routing.capacity.group is Group.SEQUENCE
        slots = self.slots(self.context if by_sequence else rows)
        order_P = priority_order(decision, self.routing.capacity.priority)
        group_P = decision.expert_RK.flatten()[order_P]
        if by_sequence:
            group_P = group_P + order_P // k // (rows // sequences) * self.experts
        kept_P = rank_within(group_P) < slots
        keep_RK = torch.zeros(rows * k, dtype=torch.bool, device=order_P.device)
        keep_RK[order_P] = kept_P
        keep_RK = keep_RK.view(rows, k)
        return replace(decision, keep_RK=keep_RK, weight_RK=decision.weight_RK * keep_RK)


def priority_order(decision: RoutingDecision, priority: Priority) -> Tensor:
    """Indices r * K + k of the pairs that count, those to be kept first in front."""
    k = decision.expert_RK.shape[1]
    if decision.keep_RK is None:
        order_P = torch.arange(decision.expert_RK.numel(), device=decision.expert_RK.device)  # by position, then rank
    else:
        order_P = decision.keep_RK.flatten().nonzero().squeeze(1)
    if priority is Priority.TOKEN_MAJOR:
        return order_P
    # From the least to the most important key: every sort is stable and keeps the order of the ones before.
    if priority is not Priority.CHOICE_MAJOR:
        assert decision.probability_RK is not None  # validated
        probability_RK = decision.probability_RK
        if priority is Priority.BATCH_PRIORITY:  # a token is as important as its best pick (2106.05974, eq. 3)
            probability_RK = probability_RK.amax(1, keepdim=True).expand_as(decision.expert_RK)
        order_P = order_P[probability_RK.flatten()[order_P].sort(stable=True, descending=True).indices]
    return order_P[(order_P % k).sort(stable=True).indices]


def rank_within(group_P: Tensor) -> Tensor:
    """How many earlier entries of the same group there are, for each entry."""
    sorted_P, order_P = group_P.sort(stable=True)
    index_P = torch.arange(len(group_P), device=group_P.device)
    first_P = torch.searchsorted(sorted_P, sorted_P)  # where the entry's group begins
    return torch.empty_like(index_P).scatter_(0, order_P, index_P - first_P)
