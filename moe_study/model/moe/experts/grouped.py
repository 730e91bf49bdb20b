"""Dispatch by torch's grouped product: all rows gathered, two products over all experts, all rows summed back.

Runs on every device and under autocast, and is captured by torch.compile. Moving rows has gradients by formula:
the sum over a block's pairs goes by the plan's inverse (torch's embedding bag), which costs a fifth of weighting
all rows and adding them one by one and, on a GPU, adds in the same order each time.

Shape suffixes: E experts, D width, F hidden units of an expert, I inputs and O outputs of a linear map, R blocks,
P pairs, Q = P * block rows of expert input, N = R * block tokens, M = block * D numbers of one block.
"""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from moe_study.model.moe.experts.dispatch_plan import Plan
from moe_study.model.precision import product_dtype

if TYPE_CHECKING:
    from moe_study.model.moe.experts.experts import Experts


def grouped_ffn(x_ND: Tensor, plan: Plan, experts: "Experts") -> Tensor:
    """See `dispatch.expert_ffn`."""
    return combine(experts(gather(x_ND.to(product_dtype(x_ND)), plan), plan.ends_E), plan)  # narrow rows are moved


def gather(x_ND: Tensor, plan: Plan) -> Tensor:
    """Expert inputs (Q, D): the tokens of each pair's block, in the plan's order."""
    y_PM = _Gather.apply(by_block(x_ND, plan), plan.block_P, plan.pair_P, plan.starts_R1)
    return y_PM.view(-1, x_ND.shape[1])  # type: ignore[no-any-return, no-untyped-call]


def combine(y_QD: Tensor, plan: Plan) -> Tensor:
    """Weighted sum of the experts' outputs back onto the tokens: (N, D). A token without pairs gets 0."""
    weight_P = plan.weight_P.to(y_QD.dtype)
    out_RM = _Combine.apply(by_block(y_QD, plan), weight_P, plan.block_P, plan.pair_P, plan.starts_R1)
    return out_RM.view(-1, y_QD.shape[1])  # type: ignore[no-any-return, no-untyped-call]


def by_block(x_ND: Tensor, plan: Plan) -> Tensor:
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


def grouped_linear(x_QI: Tensor, weight_EIO: Tensor, bias_EO: Tensor | None, ends_E: Tensor) -> Tensor:
    """Row q times its expert's weight, plus its bias: (Q, O)."""
    dtype = product_dtype(x_QI)
    x_QI, weight_EIO = x_QI.to(dtype), weight_EIO.to(dtype)
    if _grouped_mm_takes(x_QI, *weight_EIO.shape[1:]):
        product = F.grouped_mm if dtype is torch.bfloat16 else _grouped_mm_uncompiled
        y_QO = product(x_QI, weight_EIO, offs=ends_E)
    else:
        starts = [0, *ends_E.tolist()]
        y_QO = torch.cat([x_QI[starts[e] : starts[e + 1]] @ w for e, w in enumerate(weight_EIO.unbind())])
    if bias_EO is None:
        return y_QO
    biased_QO: Tensor = _AddBias.apply(y_QO, bias_EO.to(dtype), ends_E)  # type: ignore[no-untyped-call]
    return biased_QO


class _AddBias(torch.autograd.Function):
    """A bias for each expert. The gradient of indexing would add all rows into few, one atomic addition at a time."""

    @staticmethod
    def forward(ctx: Any, y_QO: Tensor, bias_EO: Tensor, ends_E: Tensor) -> Tensor:
        ctx.save_for_backward(ends_E)
        row_Q = torch.arange(y_QO.shape[0], device=ends_E.device, dtype=ends_E.dtype)
        expert_Q = torch.searchsorted(ends_E, row_Q, right=True).clamp(max=len(bias_EO) - 1)
        return y_QO + bias_EO.index_select(0, expert_Q)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_QO: Tensor) -> tuple[Tensor | None, ...]:
        (ends_E,) = ctx.saved_tensors
        compiler_takes = grad_QO.dtype is torch.bfloat16 or not torch.compiler.is_compiling()
        product = grad_QO.is_cuda and compiler_takes and _grouped_mm_takes(grad_QO, grad_QO.shape[1])
        return grad_QO, (column_sums if product else column_sums_by_bag)(grad_QO, ends_E), None


def column_sums(y_QO: Tensor, ends_E: Tensor) -> Tensor:
    """Sums (E, O) over each expert's rows, as a product with ones: a GPU sums with its matrix units."""
    step = 16 // y_QO.element_size()
    ones_QS = y_QO.new_ones(y_QO.shape[0], step)
    return F.grouped_mm(ones_QS.T, y_QO, offs=ends_E)[:, 0]


def column_sums_by_bag(y_QO: Tensor, ends_E: Tensor) -> Tensor:
    """The same for every size and precision."""
    rows_Q = torch.arange(y_QO.shape[0], device=y_QO.device)
    return sum_rows(y_QO, rows_Q, F.pad(ends_E.long(), (1, 0)))


@torch.compiler.disable
def _grouped_mm_uncompiled(x_QI: Tensor, weight_EIO: Tensor, *, offs: Tensor) -> Tensor:
    """torch.compile believes that the grouped product takes bfloat16 only, and breaks; so it is kept out."""
    return F.grouped_mm(x_QI, weight_EIO, offs=offs)


def _grouped_mm_takes(x_QI: Tensor, *sizes: int) -> bool:
    """torch's grouped product wants no float64, rows of a multiple of 16 bytes, and at least one row."""
    step = 16 // x_QI.element_size()
    aligned = all(size % step == 0 for size in sizes)
    # How many rows a threshold keeps is not known while a graph is compiled; it cannot depend on there being any.
    return x_QI.dtype is not torch.float64 and aligned and (torch.compiler.is_compiling() or x_QI.shape[0] > 0)
