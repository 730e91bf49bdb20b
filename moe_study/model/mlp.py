"""The feed-forward part of a block: the dense MLP, and the seam where a mixture of experts takes its place.

Shape suffixes: B sequences, T positions, D model width, F hidden units.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from moe_study.design.config import ModelConfig
from moe_study.design.routing import Routing, Selection, expert_hidden, mixture_layers
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


def build_ffn(model: ModelConfig, routing: Routing, layer: int, vocab_size: int) -> nn.Module:
    """Feed-forward module of block `layer` (from 0), called as ffn(x_BTD, forward_pass) -> y_BTD."""
    if layer in mixture_layers(routing, model.layers):
        # Imported here, because their shared experts build on MLP.
        from moe_study.model.moe.layer import MixtureLayer
        from moe_study.model.moe.merge import MergeLayer
        from moe_study.model.moe.soft import SoftLayer

        by_selection = {Selection.SOFT: SoftLayer, Selection.MERGE: MergeLayer}
        return by_selection.get(routing.selection, MixtureLayer)(model, routing, layer, vocab_size)
    dense_twin = routing.selection is Selection.DENSE
    hidden = expert_hidden(routing, model.hidden) if dense_twin else model.hidden
    return MLP(model.width, hidden, model.bias, model.dropout)
