"""One linear map for each expert's rows: torch's grouped product, and biases whose gradients add without atomics.

Shape suffixes: E experts, I inputs and O outputs of a linear map, Q rows of expert input, S columns of ones.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from moe_study.model.moe.experts.rows import sum_rows
from moe_study.model.precision import product_dtype


def grouped_linear(x_QI: Tensor, weight_EIO: Tensor, bias_EO: Tensor | None, ends_E: Tensor) -> Tensor:
    """Row q times its expert's weight, plus its bias: (Q, O)."""
    dtype = product_dtype(x_QI)
    x_QI, weight_EIO = x_QI.to(dtype), weight_EIO.to(dtype)
    if _grouped_mm_takes(x_QI, *weight_EIO.shape[1:]):
        if dtype is not torch.bfloat16 and torch.compiler.is_compiling():
            # The compiler believes that the grouped product takes bfloat16 only, and breaks; so it is kept out.
            from moe_study.model.moe.experts.uncompiled import uncompiled

            y_QO = uncompiled(F.grouped_mm, x_QI, weight_EIO, offs=ends_E)
        else:
            y_QO = F.grouped_mm(x_QI, weight_EIO, offs=ends_E)
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


def _grouped_mm_takes(x_QI: Tensor, *sizes: int) -> bool:
    """torch's grouped product wants no float64, rows of a multiple of 16 bytes, and at least one row."""
    step = 16 // x_QI.element_size()
    aligned = all(size % step == 0 for size in sizes)
    # How many rows a threshold keeps is not known while a graph is compiled; it cannot depend on there being any.
    return x_QI.dtype is not torch.float64 and aligned and (torch.compiler.is_compiling() or x_QI.shape[0] > 0)
