"""The dense feed-forward part of a block (model/moe/build.py says where a mixture takes its place).

Shape suffixes: B sequences, T positions, D model width, F hidden units.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from moe_study.model.forward_pass import ForwardPass
from moe_study.model.initialisation import Linear


class MLP(nn.Module):
    """GPT-2's feed-forward network: up, GELU, down."""

    def __init__(self, width: int, hidden: int, bias: bool, dropout: float) -> None:
        super().__init__()
        self.up = Linear(width, hidden, bias=bias)
        self.down = Linear(hidden, width, bias=bias, residual=True)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BTD: Tensor, forward_pass: ForwardPass | None = None) -> Tensor:
        h_BTF = F.gelu(self.up(x_BTD))
        return self.dropout(self.down(h_BTF))


