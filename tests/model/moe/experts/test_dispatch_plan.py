"""The dispatch plan, on decisions small enough to be sorted by hand."""

import itertools

import pytest
import torch
from torch import Tensor

from moe_study.model.moe.experts.dispatch_plan import DispatchPlan, make_dispatch_plan
from moe_study.model.moe.routing.gate import RoutingDecision

EXPERT_RK = torch.tensor([[2, 0], [1, 2], [2, 1], [0, 2]])
WEIGHT_RK = torch.arange(1, 9, dtype=torch.float64).view(4, 2)
KEEP_RK = torch.tensor([[True, False], [True, True], [False, False], [True, True]])


def pairs_by_block(plan: DispatchPlan) -> list[list[int]]:
    return [plan.pair_P[start:end].tolist() for start, end in itertools.pairwise(plan.starts_R1.tolist())]


@pytest.mark.parametrize("block", [1, 3])
def test_kept_pairs_are_sorted_by_expert_and_then_by_block(block: int) -> None:
    plan = make_dispatch_plan(RoutingDecision(EXPERT_RK, WEIGHT_RK, KEEP_RK), 4, block)
    assert plan.expert_P.tolist() == [0, 1, 2, 2, 2]
    assert plan.block_P.tolist() == [3, 1, 0, 1, 3]
    assert plan.weight_P.tolist() == [7, 3, 1, 4, 8]
    assert plan.counts_E.tolist() == [1, 1, 3, 0]
    assert plan.ends_E.tolist() == [block, 2 * block, 5 * block, 5 * block] and plan.ends_E.dtype == torch.int32
    assert plan.tokens == 4 * block


def test_every_block_finds_its_pairs_again() -> None:
    plan = make_dispatch_plan(RoutingDecision(EXPERT_RK, WEIGHT_RK, KEEP_RK), 4, 1)
    assert pairs_by_block(plan) == [[2], [1, 3], [], [0, 4]]


def test_keeping_all_candidates_is_the_same_as_having_no_mask() -> None:
    def parts(keep_RK: Tensor | None) -> list[list[float]]:
        plan = make_dispatch_plan(RoutingDecision(EXPERT_RK, WEIGHT_RK, keep_RK), 5, 2)
        fields = (plan.block_P, plan.weight_P, plan.expert_P, plan.counts_E, plan.ends_E, plan.pair_P, plan.starts_R1)
        return [field.tolist() for field in fields]

    assert parts(None) == parts(torch.ones_like(KEEP_RK))


def test_a_plan_without_pairs_is_a_plan() -> None:
    plan = make_dispatch_plan(RoutingDecision(EXPERT_RK, WEIGHT_RK, torch.zeros_like(KEEP_RK)), 3, 2)
    assert pairs_by_block(plan) == [[], [], [], []] and plan.ends_E.tolist() == [0, 0, 0]
