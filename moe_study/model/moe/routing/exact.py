"""Linear maps that stay in full float32 where TF32 is on for everything else.

TF32 is a switch of the whole process, and torch.compile decides by it when it compiles. So the product is an
operator of its own, opaque to the compiler, which turns the switch off around one matrix product. Its gradients are
such products, too. On a CPU there is no such switch, and it is torch's own linear map.

Shape suffixes: I inputs, O outputs.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def exact_linear(x_I: Tensor, weight_OI: Tensor) -> Tensor:
    """x @ weight.T over the last axis of x, in the precision of x and not less."""
    if x_I.device.type != "cuda":
        return F.linear(x_I, weight_OI)
    return exact_product(x_I.flatten(0, -2), weight_OI.T).view(*x_I.shape[:-1], -1)


@torch.library.custom_op("moe_study::exact_product", mutates_args=())
def exact_product(a: Tensor, b: Tensor) -> Tensor:
    """a @ b of two matrices, TF32 off whatever the process has chosen."""
    chosen = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        return torch.mm(a, b)
    finally:
        torch.set_float32_matmul_precision(chosen)


@exact_product.register_fake
def _(a: Tensor, b: Tensor) -> Tensor:
    return a.new_empty(a.shape[0], b.shape[1])


def _keep(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
    a, b = ctx.saved_tensors
    wants_a, wants_b = ctx.needs_input_grad
    return exact_product(grad, b.T) if wants_a else None, exact_product(a.T, grad) if wants_b else None


exact_product.register_autograd(_backward, setup_context=_keep)
