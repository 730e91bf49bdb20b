"""What implementations made of two custom operators do around them: operands in, gradients out.

Shape suffixes: D width, F hidden units, E experts.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from moe_study.model.moe.experts.experts import Experts

Weights = tuple[Tensor, Tensor | None, Tensor, Tensor | None]  # up, its biases, down, its biases


def weights_of(experts: Experts) -> Weights:
    """(E, D, F), (E, F), (E, F, D) and (E, D); None for biases that there are not."""
    return experts.up_EDF, experts.up_bias_EF, experts.down_EFD, experts.down_bias_ED


def compact(weights: Weights, dtype: torch.dtype) -> Weights:
    """As kernels read them: matrices in `dtype`, biases as they are, all contiguous."""
    up_EDF, up_bias_EF, down_EFD, down_bias_ED = weights
    return (
        up_EDF.to(dtype).contiguous(),
        None if up_bias_EF is None else up_bias_EF.contiguous(),
        down_EFD.to(dtype).contiguous(),
        None if down_bias_ED is None else down_bias_ED.contiguous(),
    )


def room_for_gradients(weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Of a weight and its bias, the latter without elements where there is none: operators return no None."""
    return torch.empty_like(weight, dtype=dtype), weight.new_empty(0 if bias is None else bias.shape, dtype=dtype)


def present(grads: Sequence[Tensor], weights: Sequence[Tensor | None]) -> list[Tensor | None]:
    """None again in the place of each gradient whose weight there is not."""
    return [None if weight is None else grad for grad, weight in zip(grads, weights, strict=True)]
