"""The mixture layer against loops over tokens and experts, and against the dense network it generalises."""

import dataclasses
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from moe_study.design.config import ModelConfig
from moe_study.design.routing import Context, Gate, RouterKind, RouterState, Routing, Scope, Selection, Unit
from moe_study.model.forward_pass import ForwardPass
from moe_study.model.gpt import GPT
from moe_study.model.initialisation import Initialiser
from moe_study.model.mlp import MLP
from moe_study.model.moe.experts import dispatch
from moe_study.model.moe.experts.grouped import grouped_ffn
from moe_study.model.moe.layer import MixtureLayer
from tests.design.points import MIXTRAL, TOP_K, VOCABULARY
from tests.model.moe import oracle
from tests.model.moe.doubles import a_pass, layers_of, router_weight, states
from tests.part import every

GATES = {
    f"{gate}, K={k}{', renormalised' if renormalise else ''}": Routing(
        gate=gate, k=k, renormalise=renormalise, num_experts=5, router_state=RouterState.FROZEN
    )
    for gate, k, renormalise in product(Gate, (1, 3), (False, True))
}
THRESHOLDS = {
    f"threshold {t}, {gate}{', renormalised' if renormalise else ''}": Routing(
        selection=Selection.THRESHOLD, threshold=t, gate=gate, renormalise=renormalise, num_experts=6
    )
    for t, gate, renormalise in product((0.3, 0.8), Gate, (False, True))
} | {
    "threshold 0": Routing(selection=Selection.THRESHOLD, threshold=0.0),
    "threshold 1": Routing(selection=Selection.THRESHOLD, threshold=1.0),
    "threshold global": Routing(selection=Selection.THRESHOLD, threshold=0.6, scope=Scope.GLOBAL),
    "threshold by segment": dataclasses.replace(TOP_K["segment mean"], selection=Selection.THRESHOLD, threshold=0.6),
}
POINTS = {k: v for k, v in TOP_K.items() if not v.shuffle} | GATES | THRESHOLDS


def run(layers: list[MixtureLayer], inputs: list[Tensor], forward_pass: ForwardPass) -> list[Tensor]:
    return [layer(x_BTD, forward_pass) for layer, x_BTD in zip(layers, inputs, strict=True)]


def run_oracle(
    layers: list[MixtureLayer], routing: Routing, inputs: list[Tensor], forward_pass: ForwardPass
) -> tuple[list[Tensor], list[oracle.Decisions]]:
    outputs: list[Tensor] = []
    decided: list[oracle.Decisions] = []
    for layer, x_BTD in zip(layers, inputs, strict=True):
        if routing.scope is Scope.GLOBAL and decided:
            decided.append(decided[0])
        else:
            decided.append(oracle.decisions(layer, routing, x_BTD, forward_pass.tokens_BT, forward_pass.label_B))
        outputs.append(oracle.outputs(layer, x_BTD, decided[-1]))
    return outputs, decided


def gradients(outputs: list[Tensor], layers: list[MixtureLayer], inputs: list[Tensor]) -> dict[str, Tensor]:
    """Of a random projection of all outputs; zero where something is not used."""
    generator = torch.Generator().manual_seed(7)
    total = sum((y * torch.randn(y.shape, generator=generator, dtype=torch.float64)).sum() for y in outputs)
    leaves = {f"input {i}": x for i, x in enumerate(inputs)} | {
        f"{i}.{name}": p for i, layer in enumerate(layers) for name, p in layer.named_parameters() if p.requires_grad
    }
    assert isinstance(total, Tensor)
    found = torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
    return {
        name: torch.zeros_like(leaf) if gradient is None else gradient
        for (name, leaf), gradient in zip(leaves.items(), found, strict=True)
    }


SOME = list(POINTS)[::6]  # of every kind of selection and gate


@pytest.mark.parametrize(
    ("point", "bias"),
    [(point, True) for point in POINTS]
    + [pytest.param(point, False, marks=() if point in SOME else pytest.mark.long) for point in POINTS],
)
def test_outputs_and_gradients_equal_loops_over_tokens_and_experts(point: str, bias: bool) -> None:
    routing = POINTS[point]
    layers = layers_of(routing, bias=bias)
    inputs = [states(2, 9, 8, seed=i) for i in range(len(layers))]
    expected, _ = run_oracle(layers, routing, inputs, a_pass(2, 9))
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


@pytest.mark.parametrize("point", POINTS)
def test_statistics_count_what_the_loops_count(point: str) -> None:
    routing = POINTS[point]
    layers = layers_of(routing)
    inputs = [states(3, 10, 8, seed=i) for i in range(len(layers))]
    forward_pass = a_pass(detail=True)
    run(layers, inputs, forward_pass)
    _, decided = run_oracle(layers, routing, inputs, a_pass())
    assert [stats.layer for stats in forward_pass.stats] == [layer.layer for layer in layers]
    for layer, stats, sequences in zip(layers, forward_pass.stats, decided, strict=True):
        kept = torch.zeros(3, layer.num_experts, dtype=torch.int64)
        weight = torch.zeros(3, layer.num_experts, dtype=torch.float64)
        for b, sequence in enumerate(sequences):
            for picked in sequence:
                for expert, gate_weight in picked:
                    kept[b, expert] += 1
                    weight[b, expert] += gate_weight.item()
        assert stats.kept_BE is not None and stats.weight_BE is not None
        assert torch.equal(stats.kept_BE, kept)
        assert torch.equal(stats.kept_E, kept.sum(0))
        torch.testing.assert_close(stats.weight_BE, weight)
        assert stats.wanted == stats.executed == kept.sum()  # nothing is dropped, and nothing run in vain
        assert stats.tokens == 30


@pytest.mark.parametrize("point", ["top1", "segment mean", "sequence prefix", "previous segment, prior", "all experts"])
def test_entropy_is_the_mean_over_tokens_of_their_decision_s(point: str) -> None:
    routing = POINTS[point]
    layer, x_BTD, forward_pass = layers_of(routing)[0], states(3, 10, 8), a_pass(detail=True)
    layer(x_BTD, forward_pass)
    entropies = []
    for x_TD in x_BTD:
        for t in range(10):
            p = oracle.probabilities(oracle.logits(layer, routing, x_TD, t).tolist())
            entropies.append(-sum(q * torch.tensor(q).log().item() for q in p))
    assert forward_pass.stats[0].entropy.item() == pytest.approx(sum(entropies) / 30, rel=1e-6)


def test_there_is_no_entropy_without_scores_and_no_detail_unless_asked_for() -> None:
    forward_pass = a_pass(detail=True)
    layers_of(TOP_K["hash"])[0](states(3, 10, 8), forward_pass)
    assert forward_pass.stats[0].entropy.isnan()
    forward_pass = a_pass()
    layers_of(TOP_K["top1"])[0](states(3, 10, 8), forward_pass)
    stats = forward_pass.stats[0]
    assert stats.kept_BE is None and stats.weight_BE is None and stats.entropy.isnan()


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


@pytest.mark.parametrize("point", ["sigmoid, K=3", "threshold 0.3, sigmoid", "segment mean"])
def test_positive_hidden_units_are_counted_over_every_pair_of_token_and_expert(point: str) -> None:
    routing = POINTS[point]
    layer, forward_pass = layers_of(routing)[0], a_pass(detail=True)
    x_BTD = states(3, 10, layer.experts.up_EDF.shape[1]).detach()
    layer(x_BTD, forward_pass)
    decided = oracle.decisions(layer, routing, x_BTD, forward_pass.tokens_BT, forward_pass.label_B)
    up_EDF, bias_EF = layer.experts.up_EDF, layer.experts.up_bias_EF
    assert bias_EF is not None
    expected = 0.0
    for b, t in product(range(3), range(10)):
        for expert, _ in decided[b][t]:
            h_F = x_BTD[b, t] @ up_EDF[expert] + bias_EF[expert]
            expected += float((h_F > 0).double().mean())
    assert forward_pass.stats[0].positive is not None
    assert float(forward_pass.stats[0].positive) == pytest.approx(expected)
