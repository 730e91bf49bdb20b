"""Changed routes against loops over tokens and experts in float64, and nulls against the load that they must have."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from moe_study.analysis.specialisation.knockout import Kind, RouteChange
from moe_study.design.routing import FIXED_ROUTERS, Routing, Scope, Selection
from moe_study.model.gpt import GPT
from moe_study.model.moe.layer import MixtureLayer
from moe_study.model.moe.routing.gate import RoutingDecision
from moe_study.model.moe.routing.intervention import Decided, Intervention, dense_weights
from moe_study.posthoc.knockout.interventions import intervention, null_of, picks_of, remove
from tests.design.points import TOP_K, toy
from tests.model.moe import oracle, soft_cases, test_merge
from tests.model.moe.doubles import a_pass, layers_of, router_weight, states
from tests.model.moe.layer_cases import GATES, THRESHOLDS
from tests.model.moe.soft_reference import soft_layer
from tests.part import every

Weighted = list[tuple[int, Tensor]]

BY_SCORE = GATES | {name: THRESHOLDS[name] for name in ("threshold 0", "threshold 1", "threshold global")}
BY_SCORE |= {name: value for name, value in THRESHOLDS.items() if name.startswith("threshold 0.8")}
BY_SCORE |= {name: TOP_K[name] for name in ("sequence double softmax", "previous segment, prior", "running mean")}
FIXED = {name: TOP_K[name] for name in ("label", "all experts")} | {"hash": TOP_K["hash"]}


# What is decided instead, for one token ---------------------------------------------------------------------------


def without(picked: Weighted, expert: int) -> Weighted:
    return [(e, weight) for e, weight in picked if e != expert]


def without_best(picked: Weighted) -> Weighted:
    best = max(picked, key=lambda pick: float(pick[1].detach()))[0]
    return without(picked, best)


def sent(picked: Weighted, to: Callable[[int], int]) -> Weighted:
    return [(to(e), weight) for e, weight in picked]


def next_best(picked: Weighted, expert: int, scores: Tensor, routing: Routing) -> Weighted:
    """By the definitions: the best expert that the token does not have, and the gate over those that it then has."""
    has = [e for e, _ in picked]
    if expert not in has:
        return picked
    ranking = oracle.ranking(scores.tolist())
    left = [e for e in ranking if e not in has][:1]
    now = [e for e in ranking if (e in has and e != expert) or e in left]
    return list(zip(now, oracle.gate(scores, now, routing), strict=True)) if now else []


def exchanged(first: int, second: int) -> Callable[[int], int]:
    return lambda e: {first: second, second: first}.get(e, e)


def outputs(layers: list[MixtureLayer], inputs: list[Tensor], change: RouteChange) -> list[Tensor]:
    forward_pass = a_pass()
    forward_pass.interventions = {layers[0].layer: intervention(change, layers[0].layer)}
    return [layer(x_BTD, forward_pass) for layer, x_BTD in zip(layers, inputs, strict=True)]


def naive(
    layers: list[MixtureLayer], routing: Routing, inputs: list[Tensor], by_token: Callable[[Weighted, Tensor], Weighted]
) -> list[Tensor]:
    """All layers as loops, the first one's decisions changed token by token; with scope=global the others follow."""
    forward_pass, first, found = a_pass(), None, []
    for layer, x_BTD in zip(layers, inputs, strict=True):
        if first is not None and routing.scope is Scope.GLOBAL:
            decided = first
        else:
            decided = oracle.decisions(layer, routing, x_BTD, forward_pass.tokens_BT, forward_pass.label_B)
        if first is None:
            decided = first = [
                [by_token(picked, scores_of(layer, routing, x_BTD[b], t)) for t, picked in enumerate(sequence)]
                for b, sequence in enumerate(decided)
            ]
        found.append(oracle.outputs(layer, x_BTD, decided))
    return found


def scores_of(layer: MixtureLayer, routing: Routing, x_TD: Tensor, t: int) -> Tensor:
    fixed = routing.router in FIXED_ROUTERS
    return torch.empty(0) if fixed else oracle.logits(layer, routing, x_TD, t)


def compare(routing: Routing, change: RouteChange, by_token: Callable[[Weighted, Tensor], Weighted]) -> None:
    layers = layers_of(routing)[:2]
    inputs = [states(3, 10, 8, seed=n).detach() for n in range(len(layers))]
    found = outputs(layers, inputs, change)
    for y_BTD, expected_BTD in zip(found, naive(layers, routing, inputs, by_token), strict=True):
        torch.testing.assert_close(y_BTD, expected_BTD, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", every(2, BY_SCORE | FIXED))
def test_changed_routes_are_those_of_loops_over_tokens(name: str) -> None:
    routing = (BY_SCORE | FIXED)[name]
    compare(routing, RouteChange(0, Kind.REMOVE, 1), lambda picked, _: without(picked, 1))
    compare(routing, RouteChange(0, Kind.SWAP, 0, 2), lambda picked, _: sent(picked, exchanged(0, 2)))
    compare(routing, RouteChange(0, Kind.ONE_EXPERT, 2), lambda picked, _: sent(picked, lambda e: 2))
    compare(routing, RouteChange(0, Kind.LOSE_BEST), lambda picked, _: without_best(picked))


@pytest.mark.parametrize("name", every(2, BY_SCORE))
def test_the_next_best_takes_the_place_with_its_own_gate_weight(name: str) -> None:
    routing = BY_SCORE[name]
    for expert in (0, 1):
        compare(
            routing,
            RouteChange(0, Kind.REROUTE, expert),
            lambda picked, scores, e=expert: next_best(picked, e, scores, routing),
        )


def test_experts_that_choose_their_tokens_lose_one_and_a_token_takes_its_next_best() -> None:
    routing = Routing(selection=Selection.EXPERT_CHOICE, k=2, num_experts=5)
    (layer, *_), x_BTD = layers_of(routing), states(3, 10, 8).detach()
    seen: list[Decided] = []

    def watch(decided: Decided) -> RoutingDecision:
        seen.append(decided)
        return decided.decision

    forward_pass = a_pass()
    forward_pass.interventions = {0: watch}
    layer(x_BTD, forward_pass)
    weight_RE = dense_weights(seen[0].decision, 5)
    chosen = [[(e, weight_RE[10 * b + t, e]) for e in range(5) if weight_RE[10 * b + t, e] > 0] for b, t in cells()]
    scores = [oracle.logits(layer, routing, x_BTD[b], t) for b, t in cells()]
    probability = torch.stack(scores).softmax(1)
    for kind, by_token in (
        (Kind.REMOVE, lambda picked, _: without(picked, 3)),
        (Kind.REROUTE, lambda picked, token: next_best(picked, 3, scores[token], routing)),
    ):
        changed = [by_token(picked, token) for token, picked in enumerate(chosen)]
        for token, picked in enumerate(changed):  # gates of experts that choose are plain probabilities
            assert all(torch.isclose(weight, probability[token, e]) for e, weight in picked)
        expected = oracle.outputs(layer, x_BTD, [changed[10 * b : 10 * b + 10] for b in range(3)])
        (found,) = outputs([layer], [x_BTD], RouteChange(0, kind, 3))
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def cells() -> list[tuple[int, int]]:
    return [(b, t) for b in range(3) for t in range(10)]


SOFT = {
    soft_cases.name(soft): soft
    for form in [
        *soft_cases.FORMS,
        *(dataclasses.replace(soft_cases.SEQUENCE, dispatch=d, combine=c) for d, c in soft_cases.ABLATIONS),
    ]
    for soft in (form, dataclasses.replace(form, slots_per_expert=3))
}


@pytest.mark.parametrize("name", every(2, SOFT))
@pytest.mark.parametrize("kind", [Kind.REMOVE, Kind.SWAP, Kind.ONE_EXPERT])
def test_combine_weights_of_soft_mixtures_are_changed(name: str, kind: Kind) -> None:
    layer = soft_cases.build(SOFT[name], experts=12 if "identity" in name else 4)
    x_BTD = soft_cases.tokens()
    to: dict[Kind, Callable[[int], int | None]] = {
        Kind.REMOVE: lambda e: None if e == 0 else e,
        Kind.SWAP: exchanged(0, 2),
        Kind.ONE_EXPERT: lambda e: 0,
    }
    forward_pass = a_pass()
    forward_pass.interventions = {0: intervention(RouteChange(0, kind, 0, 2), 0)}
    forward_pass.tokens_BT, forward_pass.routes = torch.zeros(x_BTD.shape[:2], dtype=torch.long), True
    found_BTD = layer(x_BTD, forward_pass)
    weights = {key.rpartition(".")[2]: value.detach().numpy() for key, value in layer.named_parameters()}
    expected = soft_layer(x_BTD.numpy(), weights, layer.soft, layer.num_experts, to[kind])
    np.testing.assert_allclose(found_BTD.detach().numpy(), expected, rtol=1e-9, atol=1e-9)
    routes = forward_pass.stats[0].routes
    assert routes is not None
    if kind is Kind.REMOVE:
        assert (routes.weight_NK[:, 0] == 0).all() and (routes.weight_NK[:, 1:] > 0).any()


@pytest.mark.parametrize("name", ["smear", "lory", "strict smear", "sigmoid", "prefix"])
def test_mixing_weights_of_merged_experts_are_changed(name: str) -> None:
    layer, x_BTD = test_merge.build(test_merge.POINTS[name]), test_merge.tokens()
    weight_BUE: list[Tensor] = []

    def doubled_first(decided: Decided) -> RoutingDecision:
        weight_BUE.append(decided.decision.weight_RK)
        return decided.decision

    mixed(layer, x_BTD, doubled_first)
    for kind, by_hand in (
        (Kind.REMOVE, torch.tensor([[1.0, 0, 0], [0, 0, 0], [0, 0, 1]])),
        (Kind.SWAP, torch.tensor([[1.0, 0, 0], [0, 0, 1], [0, 1, 0]])),
        (Kind.ONE_EXPERT, torch.tensor([[0, 1.0, 0], [0, 1, 0], [0, 1, 0]])),
    ):
        expected_RE = weight_BUE[0] @ by_hand.double()
        found = mixed(layer, x_BTD, intervention(RouteChange(0, kind, 1, 2), 0))
        given = mixed(layer, x_BTD, lambda decided, w=expected_RE: RoutingDecision(decided.decision.expert_RK, w))
        torch.testing.assert_close(found, given, rtol=1e-12, atol=1e-12)
        assert not torch.allclose(found, mixed(layer, x_BTD, lambda decided: decided.decision))
    best = mixed(layer, x_BTD, intervention(RouteChange(0, Kind.LOSE_BEST), 0))
    largest_RE = torch.nn.functional.one_hot(weight_BUE[0].argmax(1), 3).bool()
    without_RE = weight_BUE[0].masked_fill(largest_RE, 0)
    given = mixed(layer, x_BTD, lambda decided: RoutingDecision(decided.decision.expert_RK, without_RE))
    torch.testing.assert_close(best, given, rtol=1e-12, atol=1e-12)


def mixed(layer: Any, x_BTD: Tensor, change: Intervention) -> Tensor:
    forward_pass = a_pass()
    forward_pass.tokens_BT, forward_pass.interventions = torch.zeros(x_BTD.shape[:2], dtype=torch.long), {0: change}
    y_BTD: Tensor = layer(x_BTD, forward_pass)
    return y_BTD.detach()


def test_a_capacity_limits_what_comes_of_it() -> None:
    routing = TOP_K["top1"]
    limited = dataclasses.replace(routing, capacity=dataclasses.replace(routing.capacity, factor=1.0))
    (layer, *_), x_BTD = layers_of(limited), states(3, 10, 8).detach()
    outputs([layer], [x_BTD], RouteChange(0, Kind.ONE_EXPERT, 2))
    forward_pass = a_pass()
    forward_pass.interventions = {0: intervention(RouteChange(0, Kind.ONE_EXPERT, 2), 0)}
    layer(x_BTD, forward_pass)
    assert forward_pass.stats[0].kept_E.tolist() == [0, 0, 9, 0]  # ceil(10 / 4) of each of three sequences


# To the last bit --------------------------------------------------------------------------------------------------


def model_of(routing: Routing) -> tuple[GPT, Tensor]:
    config = toy(routing)
    model = GPT(config.model, routing, config.vocab_size, seed=0).eval()
    tokens_BT = torch.randint(config.vocab_size, (6, 10), generator=torch.Generator().manual_seed(2))
    return model, tokens_BT


@torch.no_grad()
def losses(model: GPT, tokens_BT: Tensor, layer: int, change: Intervention | None) -> Tensor:
    output = model(
        tokens_BT,
        tokens_BT.roll(-1, 1),
        label_B=torch.arange(6) % 2,
        per_token=True,
        interventions=None if change is None else {layer: change},
    )
    assert output.token_loss_BT is not None
    return output.token_loss_BT


@pytest.mark.parametrize("kind", [Kind.REMOVE, Kind.REROUTE, Kind.SWAP])
def test_an_expert_that_nothing_is_routed_to_changes_nothing_to_the_last_bit(kind: Kind) -> None:
    model, tokens_BT = model_of(Routing(num_experts=4))
    weight_ED = router_weight(model.blocks[1].ffn)  # type: ignore[arg-type]
    with torch.no_grad():  # one of the first two logits is positive, those of experts 2 and 3 are zero
        weight_ED[1] = -weight_ED[0]
        weight_ED[2:] = 0
    before = losses(model, tokens_BT, 1, None)
    assert torch.equal(losses(model, tokens_BT, 1, intervention(RouteChange(1, kind, 2, 3), 1)), before)
    assert not torch.equal(losses(model, tokens_BT, 1, intervention(RouteChange(1, kind, 0, 3), 1)), before)
    null = null_of(RouteChange(1, kind, 2, 3), 1, 0)
    assert torch.equal(losses(model, tokens_BT, 1, null), before)  # as many random picks: none


@pytest.mark.parametrize("k", [1, 2])
def test_removing_all_but_their_experts_changes_nothing_for_those_tokens(k: int) -> None:
    model, tokens_BT = model_of(Routing(num_experts=5, k=k))
    seen: list[RoutingDecision] = []

    def watch(decided: Decided) -> RoutingDecision:
        seen.append(decided.decision)
        return decided.decision

    before = losses(model, tokens_BT, 2, watch)
    expert_RK = seen[0].expert_RK
    own = expert_RK[0].tolist()
    others = [e for e in range(5) if e not in own]
    after = losses(model, tokens_BT, 2, lambda decided: remove(decided, picks_of(*others)(decided)))
    theirs_BT = torch.isin(expert_RK, torch.tensor(own)).all(1).view(6, 10)
    assert 0 < theirs_BT.sum() < 60
    assert torch.equal(after[theirs_BT], before[theirs_BT])
    assert not torch.equal(after[~theirs_BT], before[~theirs_BT])
