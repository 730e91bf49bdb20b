"""One decision for all layers (scope=global): it is shared, and its router learns from every layer."""

import pytest
import torch

from moe_study.design.config import ModelConfig
from moe_study.design.routing import Routing, Scope
from moe_study.model.gpt import GPT
from tests.design.points import MIXTRAL, VOCABULARY
from tests.model.moe.doubles import a_pass, layers_of, router_weight, states
from tests.model.moe.layer_cases import POINTS, run


@pytest.mark.parametrize("point", ["sequence global", "token global", "label global", "threshold global"])
def test_a_global_scope_shares_one_decision(point: str) -> None:
    routing = POINTS[point]
    layers = layers_of(routing)
    assert [layer.decider is None for layer in layers] == [False, True, True]
    forward_pass = a_pass(detail=True)
    run(layers, [states(3, 10, 8, seed=i) for i in range(3)], forward_pass)
    first, *others = forward_pass.stats
    for stats in others:
        assert first.kept_BE is not None and stats.kept_BE is not None
        assert torch.equal(stats.kept_BE, first.kept_BE) and torch.equal(stats.kept_E, first.kept_E)


@pytest.mark.parametrize("last", [0, 1, 2])
def test_a_global_router_learns_from_every_layer(last: int) -> None:
    layers = layers_of(Routing(**MIXTRAL, scope=Scope.GLOBAL))
    outputs = run(layers, [states(3, 10, 8, seed=i) for i in range(3)], a_pass())
    outputs[last].square().sum().backward()
    gradient = router_weight(layers[0]).grad
    assert gradient is not None and gradient.abs().max() > 1e-3


def test_a_global_router_gets_a_gradient_from_the_language_model_loss() -> None:
    model = ModelConfig(layers=3, heads=2, width=8, context=10)
    gpt = GPT(model, Routing(**MIXTRAL, scope=Scope.GLOBAL), VOCABULARY)
    tokens_BT = a_pass().tokens_BT
    gpt(tokens_BT, tokens_BT).loss.backward()
    routers = {name: p for name, p in gpt.named_parameters() if "router" in name}
    assert [name.split(".")[1] for name in routers] == ["0"]
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in routers.values())
