"""The one representation behind every discrete routing: (block, expert, weight) pairs sorted by expert.

A plan is made once for each decision and may serve several layers (scope=global). It moves blocks of tokens,
so that a decision for a segment or a sequence costs nothing per token. The way back, from blocks to the pairs
that they are in, is part of it: sums over a block's pairs then need no atomic additions and come out the same
each time.

Shape suffixes: R decisions (blocks), E experts, K picks, P pairs.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from moe_study.model.moe.routing.gate import RoutingDecision


@dataclass
class DispatchPlan:
    """Which block goes to which expert, with which weight; all on the device, nothing waits for it."""

    block_P: Tensor  # index of each pair's block, int64; pairs are sorted by expert, then by block
    weight_P: Tensor  # gate weight; carries the router's gradient
    expert_P: Tensor  # ascending
    counts_E: Tensor  # pairs of each expert
    ends_E: Tensor  # end of each expert's rows (pairs * tokens a block), int32 as the grouped product wants it
    pair_P: Tensor  # the inverse: the pairs of block 0, of block 1, ..., int64
    starts_R1: Tensor  # where in pair_P each block's pairs start, and the end
    block: int  # tokens a block
    blocks: int  # R

    @property
    def tokens(self) -> int:
        return self.blocks * self.block


def make_dispatch_plan(decision: RoutingDecision, experts: int, block: int) -> DispatchPlan:
    """Sort the kept pairs by expert; within an expert they stay in the order of blocks."""
    decisions, k = decision.expert_RK.shape
    expert_P, weight_P = decision.expert_RK.flatten(), decision.weight_RK.flatten()
    if decision.keep_RK is None:
        expert_P, order_P = _sorted(expert_P, experts)
        block_P, weight_P = order_P // k, weight_P.gather(0, order_P)
        starts_R1 = torch.arange(0, decisions * k + 1, k, device=expert_P.device)
    else:
        kept_P = decision.keep_RK.flatten().nonzero().squeeze(1)  # the one place that waits: how many pairs are there?
        expert_P, order_P = _sorted(expert_P[kept_P], experts)
        kept_P = kept_P[order_P]
        block_P, weight_P = kept_P // k, weight_P.gather(0, kept_P)
        starts_R1 = torch.zeros(decisions + 1, dtype=torch.long, device=expert_P.device)
        starts_R1[1:] = decision.keep_RK.sum(1).cumsum(0)
    end_E = torch.searchsorted(expert_P, torch.arange(experts, device=expert_P.device), right=True)
    counts_E = end_E.diff(prepend=end_E.new_zeros(1))
    pair_P = torch.empty_like(order_P).scatter_(0, order_P, torch.arange(order_P.shape[0], device=order_P.device))
    ends_E = (end_E * block).to(torch.int32)
    return DispatchPlan(block_P, weight_P, expert_P, counts_E, ends_E, pair_P, starts_R1, block, decisions)


def _sorted(expert_P: Tensor, experts: int) -> tuple[Tensor, Tensor]:
    """Experts in ascending order, equal ones as they came, and where each was."""
    if expert_P.is_cuda and experts <= torch.iinfo(torch.int16).max:  # sorting by digits, of which this has a quarter
        narrow_P, order_P = expert_P.to(torch.int16).sort(stable=True)
        return narrow_P.long(), order_P
    return expert_P.sort(stable=True)
