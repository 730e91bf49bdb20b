"""E feed-forward networks as stacked weights, run on rows that are sorted by expert.

Shape suffixes: E experts, D width, F hidden units of an expert, Q rows sorted by expert.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from moe_study.model.initialisation import Initialiser
from moe_study.model.moe.experts.grouped_linear import grouped_linear


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
