"""The one representation behind every discrete routing: (block, expert, weight) pairs sorted by expert.

A plan is made once for each decision and may serve several layers (scope=global). It moves blocks of tokens,
so that a decision for a segment or a sequence costs nothing per token.

Shape suffixes: R decisions (blocks), E experts, K picks, P pairs, Q = P * block rows of expert input,
N = R * block tokens, D width, F hidden units of an expert.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from moe_study.model.moe.picks import Picks


@dataclass
class Plan:
    """Which block goes to which expert, with which weight; pairs are sorted by expert."""

    block_P: Tensor  # index of each pair's block, int64
    weight_P: Tensor  # gate weight; carries the router's gradient
    expert_P: Tensor  # ascending
    counts_E: Tensor  # pairs of each expert
    block: int  # tokens a block
    blocks: int  # R

    @property
    def tokens(self) -> int:
        return self.blocks * self.block

    @property
    def ends_E(self) -> Tensor:
        """End of each expert's rows among all Q rows, int32 as the grouped product wants it."""
        return (self.counts_E.cumsum(0) * self.block).to(torch.int32)


def plan_pairs(picks: Picks, experts: int, block: int) -> Plan:
    """Sort the kept pairs by expert; within an expert they stay in the order of blocks."""
    decisions, k = picks.expert_RK.shape
    expert_P = picks.expert_RK.flatten()
    weight_P = picks.weight_RK.flatten()
    if picks.keep_RK is None:
        expert_P, order_P = expert_P.sort(stable=True)
    else:
        kept_P = picks.keep_RK.flatten().nonzero().squeeze(1)
        expert_P, order_P = expert_P[kept_P].sort(stable=True)
        order_P = kept_P[order_P]
    counts_E = torch.zeros(experts, dtype=torch.long, device=expert_P.device)
    counts_E = counts_E.scatter_add(0, expert_P, torch.ones_like(expert_P))
    return Plan(order_P // k, weight_P[order_P], expert_P, counts_E, block, decisions)


def gather(x_ND: Tensor, plan: Plan) -> Tensor:
    """Expert inputs (Q, D): the tokens of each pair's block, in the plan's order."""
    width = x_ND.shape[1]
    return x_ND.view(plan.blocks, plan.block * width).index_select(0, plan.block_P).view(-1, width)


def scatter(y_QD: Tensor, plan: Plan) -> Tensor:
    """Weighted sum of the experts' outputs back onto the tokens: (N, D). A token without pairs gets 0."""
    width = y_QD.shape[1]
    weighted_PM = y_QD.view(-1, plan.block * width) * plan.weight_P.to(y_QD.dtype).unsqueeze(1)
    out_RM = torch.zeros(plan.blocks, plan.block * width, dtype=y_QD.dtype, device=y_QD.device)
    return out_RM.index_add(0, plan.block_P, weighted_PM).view(-1, width)
