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
    if _takes(x_QI, *weight_EIO.shape[1:]):
        product = _opaque_product if torch.compiler.is_compiling() else _product
        y_QO = product(x_QI, weight_EIO, ends_E)
    else:
        starts = [0, *ends_E.tolist()]
        y_QO = torch.cat([x_QI[starts[e] : starts[e + 1]] @ w for e, w in enumerate(weight_EIO.unbind())])
    if bias_EO is None:
        return y_QO
    biased_QO: Tensor = _AddBias.apply(y_QO, bias_EO.to(dtype), ends_E)  # type: ignore[no-untyped-call]
    return biased_QO


def _product(x_QI: Tensor, weight_EIO: Tensor, ends_E: Tensor) -> Tensor:
    return F.grouped_mm(x_QI, weight_EIO, offs=ends_E)


@torch.library.custom_op("moe_study::grouped_product", mutates_args=())
def _opaque_product(x_QI: Tensor, weight_EIO: Tensor, ends_E: Tensor) -> Tensor:
    """The grouped product as torch.compile sees it: one operator, whose operands keep their layout.

    Left to itself the compiler lays out the rows of a weight's gradient as it likes, and the product over groups of
    rows wants columns side by side; and it believes that grouped products take bfloat16 alone.
    """
    return _product(x_QI, weight_EIO, ends_E)


@_opaque_product.register_fake
def _(x_QI: Tensor, weight_EIO: Tensor, ends_E: Tensor) -> Tensor:
    return x_QI.new_empty(x_QI.shape[0], weight_EIO.shape[2])


@torch.library.custom_op("moe_study::grouped_weight_gradient", mutates_args=())
def _opaque_weight_gradient(x_QI: Tensor, grad_QO: Tensor, ends_E: Tensor) -> Tensor:
    return F.grouped_mm(x_QI.mT, grad_QO, offs=ends_E)


@_opaque_weight_gradient.register_fake
def _(x_QI: Tensor, grad_QO: Tensor, ends_E: Tensor) -> Tensor:
    return x_QI.new_empty(ends_E.shape[0], x_QI.shape[1], grad_QO.shape[1])


def _keep(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, grad_QO: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
    x_QI, weight_EIO, ends_E = ctx.saved_tensors
    wants_x, wants_weight, _ = ctx.needs_input_grad
    grad_QO = grad_QO.contiguous()
    return (
        _opaque_product(grad_QO, weight_EIO.mT, ends_E) if wants_x else None,
        _opaque_weight_gradient(x_QI, grad_QO, ends_E) if wants_weight else None,
        None,
    )


_opaque_product.register_autograd(_backward, setup_context=_keep)


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
        if not (grad_QO.is_cuda and _takes(grad_QO, grad_QO.shape[1])):
            return grad_QO, column_sums_by_bag(grad_QO, ends_E), None
        return grad_QO, (_opaque_column_sums if torch.compiler.is_compiling() else column_sums)(grad_QO, ends_E), None


def column_sums(y_QO: Tensor, ends_E: Tensor) -> Tensor:
    """Sums (E, O) over each expert's rows, as a product with ones: a GPU sums with its matrix units."""
    ones_QS = y_QO.new_ones(y_QO.shape[0], 16 // y_QO.element_size())
    return F.grouped_mm(ones_QS.mT, y_QO, offs=ends_E)[:, 0]


@torch.library.custom_op("moe_study::column_sums", mutates_args=())
def _opaque_column_sums(y_QO: Tensor, ends_E: Tensor) -> Tensor:
    """`column_sums` as torch.compile sees it; see `_opaque_product`."""
    return column_sums(y_QO.contiguous(), ends_E).contiguous()


@_opaque_column_sums.register_fake
def _(y_QO: Tensor, ends_E: Tensor) -> Tensor:
    return y_QO.new_empty(ends_E.shape[0], y_QO.shape[1])


def column_sums_by_bag(y_QO: Tensor, ends_E: Tensor) -> Tensor:
    """The same for every size and precision."""
    rows_Q = torch.arange(y_QO.shape[0], device=y_QO.device)
    return sum_rows(y_QO, rows_Q, F.pad(ends_E.long(), (1, 0)))


def _takes(x_QI: Tensor, *sizes: int) -> bool:
    """torch's grouped product wants no float64, rows of a multiple of 16 bytes, and at least one row."""
    # How many rows a threshold keeps is not known while a graph is compiled; it cannot depend on there being any.
    return aligned(x_QI.dtype, *sizes) and (torch.compiler.is_compiling() or x_QI.shape[0] > 0)


def aligned(dtype: torch.dtype, *sizes: int) -> bool:
    """Whether torch's grouped product takes rows of these lengths."""
    return dtype is not torch.float64 and all(size % (16 // dtype.itemsize) == 0 for size in sizes)
