"""Moving rows: each pair's tokens gathered, and the experts' outputs summed back, with gradients by formula.

The sum over a block's pairs goes by the plan's inverse (torch's embedding bag), which costs a fifth of weighting
all rows and adding them one by one and, on a GPU, adds in the same order each time.

Shape suffixes: D width, R blocks, P pairs, Q = P * block rows of expert input, N = R * block tokens, M = block * D
numbers of one block.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from moe_study.model.moe.experts.dispatch_plan import DispatchPlan


def gather(x_ND: Tensor, plan: DispatchPlan) -> Tensor:
    """Expert inputs (Q, D): the tokens of each pair's block, in the plan's order."""
    y_PM = _Gather.apply(by_block(x_ND, plan), plan.block_P, plan.pair_P, plan.starts_R1)
    return y_PM.view(-1, x_ND.shape[1])  # type: ignore[no-any-return, no-untyped-call]


def combine(y_QD: Tensor, plan: DispatchPlan) -> Tensor:
    """Weighted sum of the experts' outputs back onto the tokens: (N, D). A token without pairs gets 0."""
    weight_P = plan.weight_P.to(y_QD.dtype)
    out_RM = _Combine.apply(by_block(y_QD, plan), weight_P, plan.block_P, plan.pair_P, plan.starts_R1)
    return out_RM.view(-1, y_QD.shape[1])  # type: ignore[no-any-return, no-untyped-call]


def by_block(x_ND: Tensor, plan: DispatchPlan) -> Tensor:
    """The same numbers with a row for each block (or pair)."""
    return x_ND.reshape(-1, plan.block * x_ND.shape[1])


def sum_rows(y_PM: Tensor, row_P: Tensor, starts_R1: Tensor, weight_P: Tensor | None = None) -> Tensor:
    """Row r: the (weighted) sum of the rows of y that entries starts[r] to starts[r + 1] of `row_P` name; (R, M)."""
    return F.embedding_bag(
        row_P, y_PM, starts_R1, mode="sum", per_sample_weights=weight_P, include_last_offset=True
    )


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_RM: Tensor, block_P: Tensor, pair_P: Tensor, starts_R1: Tensor) -> Tensor:
        ctx.save_for_backward(pair_P, starts_R1)
        return x_RM.index_select(0, block_P)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_PM: Tensor) -> tuple[Tensor | None, ...]:
        return sum_rows(grad_PM, *ctx.saved_tensors), None, None, None


class _Combine(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, y_PM: Tensor, weight_P: Tensor, block_P: Tensor, pair_P: Tensor, starts_R1: Tensor
    ) -> Tensor:
        ctx.save_for_backward(y_PM, weight_P, block_P)
        return sum_rows(y_PM, pair_P, starts_R1, weight_P.index_select(0, pair_P))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_RM: Tensor) -> tuple[Tensor | None, ...]:
        y_PM, weight_P, block_P = ctx.saved_tensors
        grad_PM = grad_RM.index_select(0, block_P)
        grad_weight_P = torch.linalg.vecdot(y_PM, grad_PM) if ctx.needs_input_grad[1] else None
        return grad_PM.mul_(weight_P.unsqueeze(1)), grad_weight_P, None, None, None
