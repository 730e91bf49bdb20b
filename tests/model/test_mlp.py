"""The dense feed-forward network and the seam where it is chosen."""

import math

import pytest
import torch

from moe_study.design.config import ModelConfig
from moe_study.design.routing import Routing, Selection
from moe_study.model.mlp import MLP
from moe_study.model.moe.build import build_ffn


def dense(model: ModelConfig, routing: Routing, layer: int = 0) -> MLP:
    ffn = build_ffn(model, routing, layer, vocab_size=10)
    assert isinstance(ffn, MLP)
    return ffn


@pytest.mark.parametrize(
    ("routing", "hidden"),
    [
        (Routing(selection=Selection.DENSE), 40),
        (Routing(selection=Selection.DENSE, ffn_multiplier=1.5), 60),
        (Routing(selection=Selection.DENSE, expert_size=7), 7),
    ],
)
def test_a_dense_design_sets_the_hidden_size(routing: Routing, hidden: int) -> None:
    assert dense(ModelConfig(width=10), routing).up.weight.shape == (hidden, 10)


def test_layers_without_a_mixture_keep_the_model_s_own_size() -> None:
    routing = Routing(selection=Selection.TOP_K, layers=(1,), expert_size=7, ffn_multiplier=3.0)
    assert dense(ModelConfig(width=10, ffn_size=33), routing, layer=0).up.weight.shape == (33, 10)


@pytest.mark.parametrize("bias", [True, False])
def test_output_equals_a_loop_over_hidden_units(bias: bool) -> None:
    ffn = dense(ModelConfig(width=3, ffn_size=5, bias=bias), Routing(selection=Selection.DENSE)).double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in ffn.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    x_D = torch.randn(3, generator=generator, dtype=torch.float64)
    up, down = ffn.up.weight.tolist(), ffn.down.weight.tolist()
    up_bias = ffn.up.bias.tolist() if bias else [0.0] * 5
    expected = ffn.down.bias.tolist() if bias else [0.0] * 3
    for unit in range(5):
        h = sum(weight * x for weight, x in zip(up[unit], x_D.tolist(), strict=True)) + up_bias[unit]
        active = h * 0.5 * (1 + math.erf(h / math.sqrt(2)))
        expected = [total + row[unit] * active for total, row in zip(expected, down, strict=True)]
    torch.testing.assert_close(ffn(x_D.view(1, 1, 3)).flatten().tolist(), expected)
