"""Matrix products with weights, in float32 on the CPU by the faster of the two libraries that torch carries.

Torch sends float32 products to MKL, which on AMD processors with AVX-512 keeps to half-width instructions:
110 GFLOP/s a core, where oneDNN, which is in the same torch and sees the processor as it is, reaches 250
(Zen 5, shapes of this project). So there, and only there, products go to oneDNN through the operator that
torch's own compiler calls; elsewhere, or with USE_ONEDNN set to False, everything is F.linear. Both are full
float32, and differ in rounding as any two libraries do.

Shape suffixes: R rows, I inputs, O outputs; a leading `...` is any number of axes.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Linear(nn.Linear):
    """nn.Linear left empty until `initialise`. `residual`: its output is added to the residual stream."""

    def __init__(self, inputs: int, outputs: int, bias: bool, residual: bool = False) -> None:
        super().__init__(inputs, outputs, bias=bias)
        self.residual = residual

    def reset_parameters(self) -> None:
        """Nothing: the default draws would cost time and move torch's global random state."""

    def forward(self, input: Tensor) -> Tensor:
        return linear(input, self.weight, self.bias)


def linear(x: Tensor, weight_OI: Tensor, bias_O: Tensor | None = None) -> Tensor:
    """F.linear(x, weight_OI, bias_O): x (..., I) to (..., O)."""
    if uses_onednn(x):
        return _OneDNNLinear.apply(x, weight_OI, bias_O)  # type: ignore[no-any-return]
    return F.linear(x, weight_OI, bias_O)


def product(a_RI: Tensor, b_OI: Tensor) -> Tensor:
    """a_RI @ b_OI.T, without autograd; any strides."""
    if not uses_onednn(a_RI):
        return a_RI @ b_OI.mT
    if a_RI.is_contiguous() or len(a_RI) <= len(b_OI):
        return _onednn(a_RI, b_OI, None)
    return _onednn(b_OI, a_RI, None).mT  # the left side is copied where it is not contiguous: the smaller one


def uses_onednn(x: Tensor) -> bool:
    """Whether products of `x` with float32 weights go to oneDNN."""
    suits = x.dtype is torch.float32 and x.device.type == "cpu" and not torch.is_autocast_enabled("cpu")
    return USE_ONEDNN and suits and x.numel() > 0  # oneDNN knows no empty products


def _onednn_is_faster() -> bool:
    """By kind of processor, not by a measurement: a resumed run must take the same path as before."""
    if torch.backends.cpu.get_cpu_capability() != "AVX512" or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return False
    try:
        return "AuthenticAMD" in Path("/proc/cpuinfo").read_text()
    except OSError:
        return False


USE_ONEDNN = _onednn_is_faster()


def _onednn(x: Tensor, weight_OI: Tensor, bias_O: Tensor | None) -> Tensor:
    if torch.compiler.is_compiling():
        return _opaque(x, weight_OI, bias_O)
    return torch.ops.mkldnn._linear_pointwise(x, weight_OI, bias_O, "none", [], "")  # type: ignore[no-any-return]


@torch.library.custom_op("moe_study::onednn_linear", mutates_args=())
def _opaque(x: Tensor, weight_OI: Tensor, bias_O: Tensor | None) -> Tensor:
    """The same, unseen by torch.compile: it would lower the operator for frozen weights only, and fail."""
    return torch.ops.mkldnn._linear_pointwise(x, weight_OI, bias_O, "none", [], "")  # type: ignore[no-any-return]


@_opaque.register_fake
def _(x: Tensor, weight_OI: Tensor, bias_O: Tensor | None) -> Tensor:
    return x.new_empty(*x.shape[:-1], weight_OI.shape[0])


class _OneDNNLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_OI: Tensor, bias_O: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight_OI)
        return _onednn(x, weight_OI, bias_O)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight_OI = ctx.saved_tensors
        wants_x, wants_weight, wants_bias = ctx.needs_input_grad
        grad_RO = grad.reshape(-1, grad.shape[-1])
        grad_x = product(grad_RO, weight_OI.mT).view_as(x) if wants_x else None
        grad_weight_OI = product(grad_RO.mT, x.reshape(-1, x.shape[-1]).mT) if wants_weight else None
        grad_bias_O = grad_RO.sum(0) if wants_bias else None
        return grad_x, grad_weight_OI, grad_bias_O
