"""The mixture layer against loops over tokens and experts, and against the dense network it generalises."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from moe_study.design.config import ModelConfig
from moe_study.design.routing import Context, RouterKind, Routing, Selection, Unit
from moe_study.model.forward_pass import ForwardPass
from moe_study.model.gpt import GPT
from moe_study.model.initialisation import Initialiser
from moe_study.model.mlp import MLP
from moe_study.model.moe.experts import dispatch
from moe_study.model.moe.experts.grouped import grouped_ffn
from moe_study.model.moe.layer import MixtureLayer
from tests.design.points import TOP_K, VOCABULARY
from tests.model.moe.doubles import a_pass, layers_of, router_weight, states
from tests.model.moe.layer_cases import POINTS, by_loops, gradients, run, run_oracle
from tests.part import every

SOME = list(POINTS)[::6]  # of every kind of selection and gate


@pytest.mark.parametrize(
    ("point", "bias"),
    [(point, True) for point in POINTS]
    + [pytest.param(point, False, marks=() if point in SOME else pytest.mark.long) for point in POINTS],
)
def test_outputs_and_gradients_equal_loops_over_tokens_and_experts(point: str, bias: bool) -> None:
    layers, inputs, expected, _ = by_loops(point, bias)
    outputs = run(layers, inputs, a_pass(2, 9))
    torch.testing.assert_close(outputs, expected, rtol=1e-11, atol=1e-12)
    wanted = gradients(expected, layers, inputs)
    torch.testing.assert_close(gradients(outputs, layers, inputs), wanted, rtol=1e-9, atol=1e-11)
    assert all(gradient.abs().sum() > 0 for name, gradient in wanted.items() if name.startswith("input"))


LENGTHS = [name for name, routing in POINTS.items() if routing.unit != Unit.TOKEN] + ["running mean"]
ALONE = [name for name, routing in POINTS.items() if (routing.unit, routing.context) == (Unit.TOKEN, Context.OWN)]


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 7, 8, 9])
@pytest.mark.parametrize("point", LENGTHS)
def test_windows_of_any_length_equal_the_loops(point: str, length: int) -> None:
    routing = POINTS[point]
    layers = layers_of(routing)[:1]
    inputs = [states(2, length, 8)]
    expected, _ = run_oracle(layers, routing, inputs, a_pass(2, length))
    torch.testing.assert_close(run(layers, inputs, a_pass(2, length)), expected, rtol=1e-11, atol=1e-12)


def watch_grouped_products(monkeypatch: pytest.MonkeyPatch) -> list[torch.Size]:
    """Dispatch by the grouped product from now on, and the shapes of the weights of each."""
    monkeypatch.setattr(dispatch, "chunked_ffn", grouped_ffn)
    shapes = []
    grouped_mm = F.grouped_mm

    def watched(x: Tensor, weight: Tensor, *, offs: Tensor) -> Tensor:
        shapes.append(weight.shape)
        return grouped_mm(x, weight, offs=offs)

    monkeypatch.setattr(F, "grouped_mm", watched)
    return shapes


@pytest.mark.parametrize("point", ["top1", "top2 mixtral", "threshold 0.8, sigmoid", "segment mean", "label", "hash"])
def test_float32_runs_as_one_grouped_product_and_equals_the_loops(point: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = watch_grouped_products(monkeypatch)
    routing = POINTS[point]
    layers = layers_of(routing, dtype=torch.float32)
    inputs = [states(3, 10, 8, seed=i, dtype=torch.float32) for i in range(len(layers))]
    outputs = run(layers, inputs, a_pass())
    assert len(shapes) == 2 * len(layers)
    expected, _ = run_oracle(layers, routing, inputs, a_pass())
    torch.testing.assert_close(outputs, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        gradients(outputs, layers, inputs), gradients(expected, layers, inputs), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("size", [{"width": 6}, {"ffn_size": 9}])
def test_rows_that_the_grouped_product_does_not_take_run_expert_by_expert(
    size: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes = watch_grouped_products(monkeypatch)
    routing = Routing(k=2)
    layers = layers_of(routing, dtype=torch.float32, **size)
    inputs = [states(3, 10, layers[0].experts.up_EDF.shape[1], dtype=torch.float32) for _ in layers]
    expected, _ = run_oracle(layers, routing, inputs, a_pass())
    torch.testing.assert_close(run(layers, inputs, a_pass()), expected, rtol=1e-4, atol=1e-5)
    assert shapes == []


@pytest.mark.parametrize("point", every(3, POINTS))
def test_bfloat16_autocast_changes_no_decision_and_little_of_the_output(point: str) -> None:
    layers = layers_of(POINTS[point], dtype=torch.float32)
    inputs = [states(3, 10, 8, seed=i, dtype=torch.float32) for i in range(len(layers))]
    plain_pass, mixed_pass = a_pass(), a_pass()
    plain = run(layers, inputs, plain_pass)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = run(layers, inputs, mixed_pass)
    for one, other in zip(plain_pass.stats, mixed_pass.stats, strict=True):
        assert torch.equal(one.kept_E, other.kept_E)
    for exact, rounded in zip(plain, mixed, strict=True):
        torch.testing.assert_close(rounded.float(), exact, rtol=0.05, atol=0.03 * exact.abs().max().item())
    gradients_by_name = gradients(mixed, layers, inputs)
    assert all(g.isfinite().all() and g.dtype == torch.float32 for g in gradients_by_name.values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_experts_without_tokens_get_zero_gradients_and_change_nothing(dtype: torch.dtype) -> None:
    layer = layers_of(Routing(num_experts=6), dtype=dtype)[0]
    with torch.no_grad():  # all tokens take expert 2: the others are first, in the middle and last without any
        router_weight(layer).zero_()[2, 0] = 100
    x_BTD = states(2, 5, 8, dtype=dtype)
    with torch.no_grad():
        x_BTD[..., 0] = 1
    forward_pass = a_pass(2, 5)
    layer(x_BTD, forward_pass).square().sum().backward()
    assert forward_pass.stats[0].kept_E.tolist() == [0, 0, 10, 0, 0, 0]
    for parameter in layer.experts.parameters():
        assert parameter.grad is not None
        used = parameter.grad.flatten(1).abs().sum(1) > 0
        assert used.tolist() == [False, False, True, False, False, False]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("selection", [Selection.TOP_K, Selection.ALL, Selection.THRESHOLD, Selection.EXPERT_CHOICE])
def test_one_expert_is_the_dense_network_from_the_first_weight_on(selection: Selection, dtype: torch.dtype) -> None:
    model = ModelConfig(layers=2, width=8, ffn_size=12, init_std=0.02)
    mixture = MixtureLayer(model, Routing(selection=selection, num_experts=1), 1, VOCABULARY)
    dense = MLP(8, 12, bias=True, dropout=0.0)
    for module in (mixture, dense):
        Initialiser(5, model).module(module, "blocks.1.ffn")
        module.to(dtype)
    assert torch.equal(mixture.experts.up_EDF[0], dense.up.weight.T)
    assert torch.equal(mixture.experts.down_EFD[0], dense.down.weight.T)
    x_BTD, other_BTD = states(2, 5, 8, dtype=dtype), states(2, 5, 8, dtype=dtype)
    outputs = mixture(x_BTD, a_pass(2, 5)), dense(other_BTD)
    exact: dict[str, Any] = {"rtol": 1e-5, "atol": 1e-8} if dtype == torch.float32 else {"rtol": 1e-12, "atol": 1e-14}
    torch.testing.assert_close(*outputs, **exact)
    for y_BTD in outputs:
        (y_BTD.square().sum() * 1e4).backward()
    torch.testing.assert_close(x_BTD.grad, other_BTD.grad, **exact)
    for stacked, plain in (
        (mixture.experts.up_EDF, dense.up.weight),
        (mixture.experts.down_EFD, dense.down.weight),
        (mixture.experts.up_bias_EF, dense.up.bias),
        (mixture.experts.down_bias_ED, dense.down.bias),
    ):
        assert stacked is not None and stacked.grad is not None and plain.grad is not None
        torch.testing.assert_close(stacked.grad[0], plain.grad.T if plain.ndim == 2 else plain.grad, **exact)


def test_a_model_of_single_experts_starts_as_the_dense_model() -> None:
    model = ModelConfig(layers=2, heads=2, width=8, context=10, init_std=0.02)
    dense = GPT(model, Routing(selection=Selection.DENSE), VOCABULARY, seed=3)
    mixture = GPT(model, Routing(num_experts=1), VOCABULARY, seed=3)
    tokens_BT = a_pass().tokens_BT
    torch.testing.assert_close(mixture(tokens_BT).logits_BTV, dense(tokens_BT).logits_BTV, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("point", ALONE)
def test_a_token_s_output_does_not_depend_on_the_tokens_beside_it(point: str) -> None:
    layer = layers_of(POINTS[point])[0]
    x_BTD, forward_pass = states(3, 10, 8), a_pass()
    together = layer(x_BTD, forward_pass)
    for b, t in ((0, 0), (1, 4), (2, 9)):
        alone = layer(x_BTD[b : b + 1, t : t + 1], ForwardPass(forward_pass.tokens_BT[b : b + 1, t : t + 1]))
        torch.testing.assert_close(alone[0, 0], together[b, t], rtol=1e-12, atol=1e-13)


def test_dropout_acts_on_the_layer_s_output_in_training_only() -> None:
    layer = layers_of(Routing(k=2, shared_experts=1), dropout=0.5)[0]
    x_BTD = states(3, 10, 8)
    whole = layer(x_BTD, a_pass())
    assert torch.equal(whole, layer(x_BTD, a_pass()))
    torch.manual_seed(0)
    dropped = layer.train()(x_BTD, a_pass())
    kept = dropped != 0
    assert 0.3 < kept.double().mean() < 0.7
    torch.testing.assert_close(dropped[kept], 2 * whole[kept])


def test_label_routing_without_labels_says_so() -> None:
    layer = layers_of(TOP_K["label"])[0]
    with pytest.raises(ValueError, match="needs label_B"):
        layer(states(2, 10, 8), ForwardPass(a_pass(2).tokens_BT))


@pytest.mark.parametrize("router", [RouterKind.LINEAR, RouterKind.HASH])
def test_shuffled_picks_keep_the_usage_and_change_the_owners(router: RouterKind) -> None:
    plain, mixed = Routing(k=2, router=router), Routing(k=2, router=router, shuffle=True)
    kept = []
    outputs = []
    for routing in (plain, mixed, mixed):
        forward_pass = a_pass(detail=True)
        outputs.append(layers_of(routing)[0](states(3, 10, 8), forward_pass))
        kept.append(forward_pass.stats[0])
    assert torch.equal(kept[0].kept_E, kept[1].kept_E)
    owners = [stats.kept_BE for stats in kept if stats.kept_BE is not None]
    weights = [stats.weight_BE.sum(0) for stats in kept if stats.weight_BE is not None]
    assert len(owners) == len(weights) == 3 and not torch.equal(owners[0], owners[1])
    torch.testing.assert_close(weights[0], weights[1])
    assert not torch.allclose(outputs[0], outputs[1])
    assert torch.equal(outputs[1], outputs[2])  # evaluation has no chance in it


