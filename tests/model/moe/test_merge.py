"""Merged experts: against plain loops, causality of the published and the strict forms, counts."""

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from moe_study.design.accounting import flops_per_token, num_params
from moe_study.design.causality import verdict
from moe_study.design.config import DataConfig, ModelConfig, RunConfig, RunSettings, TokenizerConfig
from moe_study.design.routing import (
    Balance,
    Context,
    Gate,
    RouterKind,
    RouterState,
    Routing,
    Scope,
    Selection,
    Unit,
    has_prior,
)
from moe_study.design.validation import validate
from moe_study.model.forward_pass import ForwardPass
from moe_study.model.gpt import GPT
from moe_study.model.moe.build import build_ffn
from moe_study.model.moe.merge import MergeLayer
from moe_study.model.moe.routing.balance import switch_loss

WIDTH, LENGTH, EXPERTS = 6, 12, 3
MODEL = ModelConfig(layers=1, heads=2, width=WIDTH, ffn_size=10, context=LENGTH)

Array = NDArray[np.float64]


def routing_of(unit: Unit, context: Context, **changes: Any) -> Routing:
    return Routing(selection=Selection.MERGE, num_experts=EXPERTS, unit=unit, context=context, **changes)


SMEAR = routing_of(Unit.SEQUENCE, Context.UNIT_MEAN)
LORY = routing_of(Unit.SEGMENT, Context.PREVIOUS_SEGMENT, segment_length=5, first_segment="own_mean")
STRICT_LORY = dataclasses.replace(LORY, first_segment="prior")
STRICT_SMEAR = routing_of(Unit.TOKEN, Context.RUNNING_MEAN)
POINTS = {
    "smear": SMEAR,
    "lory": LORY,
    "strict lory": STRICT_LORY,
    "strict smear": STRICT_SMEAR,
    "token": routing_of(Unit.TOKEN, Context.OWN),
    "segment mean": routing_of(Unit.SEGMENT, Context.UNIT_MEAN, segment_length=5),
    "segment first": routing_of(Unit.SEGMENT, Context.FIRST_TOKEN, segment_length=5),
    "prefix": routing_of(Unit.SEQUENCE, Context.PREFIX, prefix_length=5),
    "sequence first": routing_of(Unit.SEQUENCE, Context.FIRST_TOKEN),
    "sigmoid": dataclasses.replace(LORY, gate=Gate.SIGMOID),
    "renormalised": dataclasses.replace(LORY, gate=Gate.SIGMOID, renormalise=True),
    "shared": dataclasses.replace(LORY, shared_experts=1),
    "mlp": dataclasses.replace(STRICT_LORY, router=RouterKind.MLP, router_depth=2),
}
every_point = pytest.mark.parametrize("routing", POINTS.values(), ids=POINTS.keys())


def build(routing: Routing, seed: int = 0, model: ModelConfig = MODEL) -> MergeLayer:
    """A layer in float64 with random weights far from their initial values."""
    layer = build_ffn(model, routing, 0, vocab_size=11)
    assert isinstance(layer, MergeLayer)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        layer.double()
        for parameter in layer.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return layer.eval()


def tokens(length: int = LENGTH, seed: int = 1) -> Tensor:
    return torch.randn(4, length, WIDTH, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def run(layer: MergeLayer, x_BTD: Tensor, detail: bool = False) -> tuple[Tensor, ForwardPass]:
    forward_pass = ForwardPass(torch.zeros(x_BTD.shape[:2], dtype=torch.long), detail=detail)
    return layer(x_BTD, forward_pass), forward_pass


def config_of(routing: Routing, model: ModelConfig = MODEL) -> RunConfig:
    data = DataConfig(tokenizer=TokenizerConfig(kind="bytes"))
    return RunConfig(model=model, routing=routing, data=data, run=RunSettings(steps=1))


# ---- the equations, token by token


def read_positions(routing: Routing, t: int, length: int) -> range:
    """Positions whose mean decides for token t; none where the prior does."""
    if routing.unit is Unit.TOKEN:
        return range(t, t + 1) if routing.context is Context.OWN else range(t + 1)
    if routing.context is Context.PREFIX:
        assert routing.prefix_length is not None
        return range(routing.prefix_length if t >= routing.prefix_length else 0)
    size = routing.segment_length or length
    start = t // size * size
    if routing.context is Context.FIRST_TOKEN:
        return range(start, start + 1)
    if routing.context is Context.UNIT_MEAN:
        return range(start, min(start + size, length))
    if start == 0:
        return range(min(size, length)) if routing.first_segment == "own_mean" else range(0)
    return range(start - size, start)


def reference(layer: MergeLayer, routing: Routing, x_BTD: Array) -> tuple[Array, Array]:
    """Outputs (B, T, D) and gate weights (B, T, E)."""
    w = {key: value.detach().numpy() for key, value in layer.named_parameters()}
    y_BTD, gates_BTE = np.zeros_like(x_BTD), np.zeros((*x_BTD.shape[:2], EXPERTS))
    for b, t in np.ndindex(x_BTD.shape[:2]):
        positions = read_positions(routing, t, x_BTD.shape[1])
        if len(positions):
            logits = scores(w, sum(x_BTD[b, i] for i in positions) / len(positions))
        else:
            logits = w["gates.router.prior_E"]
        gates_BTE[b, t] = gate(routing, logits)
        merged = {
            key: sum(g * theta for g, theta in zip(gates_BTE[b, t], w[f"experts.{key}"], strict=True))
            for key in ("up_EDF", "up_bias_EF", "down_EFD", "down_bias_ED")
        }
        active = gelu(x_BTD[b, t] @ merged["up_EDF"] + merged["up_bias_EF"])
        y_BTD[b, t] = active @ merged["down_EFD"] + merged["down_bias_ED"]
        if routing.shared_experts:
            active = gelu(w["shared.up.weight"] @ x_BTD[b, t] + w["shared.up.bias"])
            y_BTD[b, t] += w["shared.down.weight"] @ active + w["shared.down.bias"]
    return y_BTD, gates_BTE


def scores(w: dict[str, Array], state: Array) -> Array:
    layers = sum(key.startswith("gates.router.weights") for key in w)
    for i in range(layers):
        state = w[f"gates.router.weights.{i}"] @ (gelu(state) if i else state)
    return state


def gate(routing: Routing, logits: Array) -> Array:
    if routing.gate is Gate.SOFTMAX_THEN_PICK:
        return np.exp(logits) / np.exp(logits).sum()
    values = 1 / (1 + np.exp(-logits))
    return values / values.sum() if routing.renormalise else values


def gelu(x: Array) -> Array:
    return np.array([0.5 * h * (1 + math.erf(h / math.sqrt(2))) for h in x])


@pytest.mark.parametrize("length", [1, 4, 5, 6, 11, 12])
@every_point
def test_every_point_equals_the_equations_at_every_length(routing: Routing, length: int) -> None:
    layer, x_BTD = build(routing), tokens(length)
    y_BTD, forward_pass = run(layer, x_BTD, detail=True)
    expected_BTD, gates_BTE = reference(layer, routing, x_BTD.numpy())
    torch.testing.assert_close(y_BTD, torch.from_numpy(expected_BTD), rtol=1e-12, atol=1e-12)
    stats = forward_pass.stats[0]
    torch.testing.assert_close(stats.weight_BE, torch.from_numpy(gates_BTE.sum(1)))
    largest_BE = np.stack([np.bincount(row.argmax(1), minlength=EXPERTS) for row in gates_BTE])
    assert stats.kept_BE is not None and stats.kept_BE.tolist() == largest_BE.tolist()
    assert stats.kept_E.tolist() == largest_BE.sum(0).tolist()
    assert stats.executed == stats.wanted == stats.tokens == 4 * length


def test_equal_experts_are_the_dense_network_whatever_the_gates() -> None:
    layer, x_BTD = build(LORY), tokens()
    with torch.no_grad():
        for parameter in layer.experts.parameters():
            parameter.copy_(parameter[:1].expand_as(parameter))
    mlp = build_ffn(MODEL, Routing(selection=Selection.DENSE), 0, 11).double()
    experts = layer.experts
    assert experts.up_bias_EF is not None and experts.down_bias_ED is not None
    with torch.no_grad():
        for target, source in (
            ("up.weight", experts.up_EDF[0].T),
            ("up.bias", experts.up_bias_EF[0]),
            ("down.weight", experts.down_EFD[0].T),
            ("down.bias", experts.down_bias_ED[0]),
        ):
            mlp.get_parameter(target).copy_(source)
    torch.testing.assert_close(run(layer, x_BTD)[0], mlp(x_BTD))


def test_with_scope_global_all_layers_follow_the_first_one_s_weights() -> None:
    routing = dataclasses.replace(STRICT_LORY, scope=Scope.GLOBAL)
    model = dataclasses.replace(MODEL, layers=2)
    first, second = (build_ffn(model, routing, layer, 11).double() for layer in range(2))
    assert isinstance(first, MergeLayer) and isinstance(second, MergeLayer)
    assert second.gates is None
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in (*first.parameters(), *second.parameters()):
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    forward_pass = ForwardPass(torch.zeros(4, LENGTH, dtype=torch.long), detail=True)
    first(tokens(), forward_pass)
    second(5 * tokens(seed=2), forward_pass).square().sum().backward()
    one, other = forward_pass.stats
    assert one.weight_BE is not None and other.weight_BE is not None
    assert torch.equal(one.weight_BE, other.weight_BE) and one.layer == 0 and other.layer == 1
    assert first.gates is not None
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in first.gates.parameters())


# ---- what reaches what


def leaks(routing: Routing, kept: int) -> bool:
    """Whether, in some trial, changed tokens from position `kept` on move an output before it."""
    for seed in range(4):
        layer, x_BTD = build(routing, seed), tokens(seed=seed + 10)
        changed_BTD = torch.cat((x_BTD[:, :kept], 3 * tokens(seed=seed + 20)[:, kept:]), 1)
        moved_BTD = (run(layer, changed_BTD)[0] - run(layer, x_BTD)[0])[:, :kept]
        if moved_BTD.abs().max() > 1e-9:
            return True
    return False


@every_point
def test_the_declared_verdict_is_the_measured_one(routing: Routing) -> None:
    assert any(leaks(routing, kept) for kept in (1, 3, 5, 7, 10, 11)) == verdict(routing, 12).own_future


def test_lory_as_published_leaks_in_its_first_segment_only_and_with_no_gradient() -> None:
    assert [leaks(LORY, kept) for kept in (3, 5, 7, 10)] == [True, False, False, False]
    layer, x_BTD = build(LORY), tokens()
    x_BTD.requires_grad_()
    run(layer, x_BTD)[0][:, :3].sum().backward()
    assert x_BTD.grad is not None and x_BTD.grad[:, 3:].abs().max() == 0


@pytest.mark.parametrize("name", ["strict lory", "strict smear", "prefix", "sequence first", "segment first"])
@pytest.mark.parametrize("length", [1, 4, 5, 6, 9])
def test_causal_points_do_not_know_the_length(name: str, length: int) -> None:
    layer, x_BTD = build(POINTS[name]), tokens()
    whole_BTD = run(layer, x_BTD)[0]
    torch.testing.assert_close(run(layer, x_BTD[:, :length])[0], whole_BTD[:, :length], rtol=0, atol=1e-11)


@every_point
def test_no_sequence_sees_another(routing: Routing) -> None:
    layer, x_BTD = build(routing), tokens()
    alone_BTD = torch.cat([run(layer, x_BTD[b : b + 1])[0] for b in range(4)])
    torch.testing.assert_close(run(layer, x_BTD)[0], alone_BTD, rtol=0, atol=1e-11)


# ---- training


@every_point
def test_every_trained_parameter_gets_a_finite_gradient(routing: Routing) -> None:
    layer = build(routing)
    run(layer, tokens())[0].square().sum().backward()
    for key, parameter in layer.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), key
        assert parameter.grad.abs().max() > 0, key


@pytest.mark.parametrize("name", ["lory", "strict smear", "prefix"])
@pytest.mark.long
def test_a_compiled_layer_gives_the_same(name: str) -> None:
    layer, x_BTD = build(POINTS[name]).float(), tokens().float()
    expected_BTD, _ = run(layer, x_BTD)
    torch.compiler.reset()
    layer.compile(backend="eager")
    torch.testing.assert_close(run(layer, x_BTD)[0], expected_BTD, rtol=1e-4, atol=1e-3)


def test_balancing_terms_count_the_strongest_expert_of_each_unit() -> None:
    layer, x_BTD = build(dataclasses.replace(SMEAR, balance=Balance(switch=0.5, z=0.1))), tokens()
    _, forward_pass = run(layer, x_BTD)
    assert layer.gates is not None
    logits_BE = x_BTD.mean(1) @ layer.gates.router.weights[0].T
    counts_E = torch.bincount(logits_BE.argmax(1), minlength=EXPERTS).double()
    torch.testing.assert_close(forward_pass.aux["switch"][0], switch_loss(logits_BE, counts_E))
    torch.testing.assert_close(forward_pass.aux["z"][0], logits_BE.logsumexp(1).square().mean())


def test_frozen_and_redrawn_routers_hold_for_gates() -> None:
    model = dataclasses.replace(MODEL, layers=1)
    for state in (RouterState.FROZEN, RouterState.REDRAWN):
        gpt = GPT(model, dataclasses.replace(SMEAR, router_state=state), vocab_size=11)
        ffn = gpt.blocks[0].ffn
        assert isinstance(ffn, MergeLayer) and ffn.gates is not None
        before = ffn.gates.router.weights[0].clone()
        gpt.begin_step(3)
        assert torch.equal(before, ffn.gates.router.weights[0]) == (state is RouterState.FROZEN)
        assert not any(p.requires_grad for p in ffn.gates.router.parameters())


# ---- accounting


def product_flops(module: torch.nn.Module, x_BTD: Tensor) -> float:
    """A token's products."""
    with FlopCounterMode(display=False) as counter:
        module(x_BTD, ForwardPass(torch.zeros(x_BTD.shape[:2], dtype=torch.long)))
    return counter.get_total_flops() / x_BTD.shape[:2].numel()


@every_point
def test_parameters_and_flops_are_those_of_the_built_module(routing: Routing) -> None:
    config = config_of(routing)
    validate(config)
    assert GPT(config.model, routing, config.vocab_size).num_parameters() == num_params(config)
    dense = dataclasses.replace(config, routing=Routing(selection=Selection.DENSE))
    mlp = build_ffn(config.model, dense.routing, 0, config.vocab_size).double()
    counted = product_flops(build(routing), tokens()) - product_flops(mlp, tokens())
    assert counted == pytest.approx(flops_per_token(config) - flops_per_token(dense), rel=1e-12)


def test_a_prior_counts_as_parameters() -> None:
    assert has_prior(STRICT_LORY) and not has_prior(LORY)
    assert num_params(config_of(STRICT_LORY)) == num_params(config_of(LORY)) + EXPERTS
