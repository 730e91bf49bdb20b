"""Which module takes the place of a block's feed-forward network: the dense MLP, or one of the mixtures."""

from torch import nn

from moe_study.design.config import ModelConfig
from moe_study.design.routing import Routing, Selection, expert_hidden, mixture_layers
from moe_study.model.mlp import MLP
from moe_study.model.moe.layer import MixtureLayer
from moe_study.model.moe.merge import MergeLayer
from moe_study.model.moe.soft import SoftLayer

LAYERS: dict[Selection, type[SoftLayer] | type[MergeLayer]] = {  # of rules that do not run experts on tokens
    Selection.SOFT: SoftLayer,
    Selection.MERGE: MergeLayer,
}


def build_ffn(model: ModelConfig, routing: Routing, layer: int, vocab_size: int) -> nn.Module:
    """Feed-forward module of block `layer` (from 0), called as ffn(x_BTD, forward_pass) -> y_BTD."""
    if layer in mixture_layers(routing, model.layers):
        return LAYERS.get(routing.selection, MixtureLayer)(model, routing, layer, vocab_size)
    dense_twin = routing.selection is Selection.DENSE
    hidden = expert_hidden(routing, model.hidden) if dense_twin else model.hidden
    return MLP(model.width, hidden, model.bias, model.dropout)
