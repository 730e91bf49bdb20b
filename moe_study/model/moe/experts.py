"""E feed-forward networks as stacked weights, run on rows that are sorted by expert.

Shape suffixes: E experts, D width, F hidden units of an expert, Q rows sorted by expert.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from moe_study.model.initialisation import Initialiser


class Experts(nn.Module):
    """Copies of GPT-2's feed-forward network: up, GELU, down, each with its biases."""

    def __init__(self, experts: int, width: int, hidden: int, bias: bool) -> None:
        super().__init__()
        self.up_EDF = nn.Parameter(torch.empty(experts, width, hidden))
        self.down_EFD = nn.Parameter(torch.empty(experts, hidden, width))
        self.up_bias_EF = nn.Parameter(torch.empty(experts, hidden)) if bias else None
        self.down_bias_ED = nn.Parameter(torch.empty(experts, width)) if bias else None

    def initialise(self, init: Initialiser, prefix: str) -> None:
        """Every expert from its own stream, expert 0 from that of the dense network in its place."""
        ffn = prefix.rpartition(".")[0]
        init.experts_(self.up_EDF, f"{ffn}.up.weight", transpose=True)
        init.experts_(self.down_EFD, f"{ffn}.down.weight", residual=True, transpose=True)
        for bias in (self.up_bias_EF, self.down_bias_ED):
            if bias is not None:
                nn.init.zeros_(bias)

    def forward(self, x_QD: Tensor, ends_E: Tensor) -> Tensor:
        """Outputs (Q, D) of rows that are sorted by expert; expert e has the rows up to ends_E[e]."""
        h_QF = F.gelu(grouped_linear(x_QD, self.up_EDF, self.up_bias_EF, ends_E))
        return grouped_linear(h_QF, self.down_EFD, self.down_bias_ED, ends_E)


    @torch.no_grad()
    def positive_rows(self, x_QD: Tensor, ends_E: Tensor) -> Tensor:
        """Share of a row's hidden units above zero before the activation (XMoE's measure), summed over rows."""
        h_QF = grouped_linear(x_QD, self.up_EDF, self.up_bias_EF, ends_E)
        return (h_QF > 0).double().mean(1).sum()


def grouped_linear(x_QI: Tensor, weight_EIO: Tensor, bias_EO: Tensor | None, ends_E: Tensor) -> Tensor:
    """Row q times its expert's weight, plus its bias: (Q, O)."""
    dtype = torch.get_autocast_dtype(x_QI.device.type) if torch.is_autocast_enabled(x_QI.device.type) else x_QI.dtype
    x_QI, weight_EIO = x_QI.to(dtype), weight_EIO.to(dtype)
    if _grouped_mm_takes(x_QI, weight_EIO):
        product = F.grouped_mm if dtype is torch.bfloat16 else _grouped_mm_uncompiled
        y_QO = product(x_QI, weight_EIO, offs=ends_E)
    else:
        starts = [0, *ends_E.tolist()]
        y_QO = torch.cat([x_QI[starts[e] : starts[e + 1]] @ w for e, w in enumerate(weight_EIO.unbind())])
    if bias_EO is None:
        return y_QO
    rows_E = torch.diff(ends_E, prepend=ends_E.new_zeros(1)).long()
    return y_QO + bias_EO.to(dtype).repeat_interleave(rows_E, 0, output_size=x_QI.shape[0])


@torch.compiler.disable
def _grouped_mm_uncompiled(x_QI: Tensor, weight_EIO: Tensor, *, offs: Tensor) -> Tensor:
    """torch.compile believes that the grouped product takes bfloat16 only, and breaks; so it is kept out."""
    return F.grouped_mm(x_QI, weight_EIO, offs=offs)


def _grouped_mm_takes(x_QI: Tensor, weight_EIO: Tensor) -> bool:
    """torch's grouped product wants no float64, rows of a multiple of 16 bytes, and at least one row."""
    step = 16 // x_QI.element_size()
    aligned = weight_EIO.shape[1] % step == 0 and weight_EIO.shape[2] % step == 0
    return x_QI.dtype is not torch.float64 and aligned and x_QI.shape[0] > 0
