"""Routers: learned, frozen, redrawn, hashed and given; what moves them, and in which precision they score."""

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from moe_study.design.config import ModelConfig
from moe_study.design.routing import Context, RouterKind, RouterState, Routing, Scope, Unit
from moe_study.model.gpt import GPT
from moe_study.model.initialisation import Initialiser
from moe_study.model.moe.routing.context import RouterInput
from moe_study.model.moe.routing.router import CosineRouter, HashRouter, LabelRouter, ScoringRouter, scoring_router
from tests.design.points import MIXTRAL, TOP_K, VOCABULARY
from tests.model.moe.doubles import a_pass, layers_of, router_weight, states

MODEL = ModelConfig(layers=2, heads=2, width=8, context=10)


def gpt_with(routing: Routing, seed: int = 0) -> GPT:
    return GPT(MODEL, routing, VOCABULARY, seed=seed)


def router_weights(gpt: GPT) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in gpt.named_parameters() if "router" in name}


def train_one_step(gpt: GPT, step: int = 0) -> None:
    decay, no_decay = gpt.decay_groups()
    groups = [{"params": decay, "weight_decay": 0.5}, {"params": no_decay, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=0.1)
    gpt.begin_step(step)
    tokens_BT = a_pass().tokens_BT
    output = gpt(tokens_BT, tokens_BT)
    (output.loss + output.aux_loss).backward()
    optimizer.step()
    gpt.end_step()


def test_a_learned_router_moves_and_a_frozen_one_never_does() -> None:
    for state in (RouterState.LEARNED, RouterState.FROZEN):
        gpt = gpt_with(Routing(**MIXTRAL, router_state=state))
        before, experts = router_weights(gpt), gpt.get_parameter("blocks.1.ffn.experts.up_EDF").detach().clone()
        for step in range(3):
            train_one_step(gpt, step)
        moved = [not torch.equal(before[name], now) for name, now in router_weights(gpt).items()]
        assert len(moved) == 2 and all(moved) == any(moved) == (state is RouterState.LEARNED)
        assert not torch.equal(experts, gpt.get_parameter("blocks.1.ffn.experts.up_EDF"))


@pytest.mark.parametrize("state", [RouterState.FROZEN, RouterState.REDRAWN])
def test_routers_that_are_not_learned_ask_for_no_gradient_and_no_decay(state: RouterState) -> None:
    gpt = gpt_with(dataclasses.replace(TOP_K["sequence prefix"], router_state=state))
    routers = [p for name, p in gpt.named_parameters() if "router" in name]
    decay, no_decay = gpt.decay_groups()
    assert len(routers) == 4  # a weight and a prior in each layer
    assert not {id(p) for p in routers} & {id(p) for p in decay + no_decay}
    train_one_step(gpt)
    assert all(p.grad is None for p in routers)


def test_a_redrawn_router_is_a_function_of_seed_step_and_layer() -> None:
    routing = Routing(**MIXTRAL, router_state=RouterState.REDRAWN)

    def drawn(seed: int, *steps: int) -> dict[str, Tensor]:
        gpt = gpt_with(routing, seed)
        for step in steps:
            gpt.begin_step(step)
        return router_weights(gpt)

    fifth = drawn(0, 5)
    assert_equal(fifth, drawn(0, 1, 2, 5))
    everything = [fifth, drawn(0), drawn(0, 4), drawn(0, 5, 6), drawn(1, 5)]
    values = {tuple(weight.flatten().tolist()) for weights in everything for weight in weights.values()}
    assert len(values) == 2 * len(everything)  # two layers each
    assert fifth["blocks.0.ffn.decider.router.weights.0"].std() == pytest.approx(MODEL.weight_std, rel=0.5)


def assert_equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_evaluation_uses_the_last_redrawn_weights_and_draws_none() -> None:
    gpt = gpt_with(Routing(**MIXTRAL, router_state=RouterState.REDRAWN))
    gpt.begin_step(3)
    before = router_weights(gpt)
    gpt.eval()(a_pass().tokens_BT)
    assert_equal(before, router_weights(gpt))


def test_learned_and_frozen_routers_are_not_redrawn() -> None:
    for state in (RouterState.LEARNED, RouterState.FROZEN):
        gpt = gpt_with(Routing(**MIXTRAL, router_state=state))
        before = router_weights(gpt)
        gpt.begin_step(3)
        assert_equal(before, router_weights(gpt))


def test_routers_start_equal_whatever_the_unit_state_or_gate() -> None:
    sequence: dict[str, Any] = {"unit": Unit.SEQUENCE, "context": Context.UNIT_MEAN}
    points = [
        Routing(k=2),
        Routing(k=1),
        Routing(k=2, **sequence),
        Routing(k=2, router_state=RouterState.FROZEN),
        Routing(k=2, shared_experts=1),
    ]
    starts = [router_weights(gpt_with(point)) for point in points]
    for start in starts[1:]:
        assert_equal(starts[0], start)


def test_building_and_redrawing_leave_the_global_random_state_alone() -> None:
    before = torch.get_rng_state()
    gpt_with(Routing(**MIXTRAL, router_state=RouterState.REDRAWN)).begin_step(1)
    gpt_with(TOP_K["hash"])
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_an_mlp_router_has_so_many_hidden_layers_of_the_model_s_width(depth: int) -> None:
    router = ScoringRouter(8, 5, Routing(router=RouterKind.MLP, router_depth=depth))
    assert [tuple(w.shape) for w in router.weights] == [(8, 8)] * depth + [(5, 8)]
    assert [tuple(w.shape) for w in ScoringRouter(8, 5, Routing(router_depth=depth)).weights] == [(5, 8)]


def test_hidden_layers_of_an_mlp_router_are_as_wide_as_asked_for() -> None:
    wide = Routing(router=RouterKind.MLP, router_depth=2, router_width=1.5)
    assert [tuple(w.shape) for w in ScoringRouter(8, 5, wide).weights] == [(12, 8), (12, 12), (5, 12)]
    assert [tuple(w.shape) for w in ScoringRouter(8, 5, Routing(router_width=1.5)).weights] == [(5, 8)]


def cosine_router(experts: int, **axes: Any) -> CosineRouter:
    router = scoring_router(8, experts, Routing(router=RouterKind.COSINE, num_experts=experts, **axes))
    assert isinstance(router, CosineRouter)
    Initialiser(0, MODEL).module(router, "blocks.0.ffn.decider.router")
    return router


def score(router: ScoringRouter, states_BUD: Tensor) -> Tensor:
    logits_BUE: Tensor = router(RouterInput(states_BUD, False, None, 1, states_BUD.shape[1]))
    return logits_BUE


@pytest.mark.parametrize(("experts", "dimensions"), [(2, 2), (3, 2), (6, 3), (64, 32)])
def test_a_cosine_router_compares_in_half_as_many_dimensions_as_experts_but_not_in_one(
    experts: int, dimensions: int
) -> None:
    assert [tuple(w.shape) for w in cosine_router(experts).weights] == [(dimensions, 8), (experts, dimensions)]


def test_cosines_over_the_temperature_start_at_its_inverse_and_ignore_sizes() -> None:
    router, states_BUD = cosine_router(64), states(2, 5, 8, dtype=torch.float32)
    logits_BUE = score(router, states_BUD)
    torch.testing.assert_close(score(router, 1000 * states_BUD), logits_BUE, rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        for number, weight in enumerate(router.weights):
            weight.mul_(3 + number)
    torch.testing.assert_close(score(router, states_BUD), logits_BUE, rtol=1e-4, atol=1e-4)
    with torch.no_grad():  # a state that an expert's embedding points at
        router.weights[0].copy_(torch.eye(32, 8))
        router.weights[1].zero_()[5, 2] = 0.1
    at_5_E = score(router, torch.eye(8)[2].view(1, 1, 8)).flatten()
    assert at_5_E.argmax() == 5 and at_5_E[5].item() == pytest.approx(1 / 0.07, rel=1e-5)


def test_a_cosine_router_s_temperature_is_learned_without_decay_or_kept() -> None:
    for state in RouterState:
        gpt = gpt_with(Routing(**MIXTRAL, router=RouterKind.COSINE, router_state=state))
        train_one_step(gpt)
        gpt.begin_step(1)
        temperatures = [p for name, p in gpt.named_parameters() if name.endswith("log_temperature")]
        moved = [abs(temperature.exp().item() - 0.07) > 1e-4 for temperature in temperatures]
        assert moved == [state is RouterState.LEARNED] * 2
        decay, _ = gpt.decay_groups()
        assert not {id(p) for p in temperatures} & {id(p) for p in decay}


def test_cosines_of_a_state_of_zeros_are_zero_with_a_finite_gradient() -> None:
    router, states_BUD = cosine_router(6), torch.zeros(1, 2, 8, requires_grad=True)
    logits_BUE = score(router, states_BUD)
    logits_BUE.square().sum().backward()
    assert logits_BUE.abs().max() == 0
    assert states_BUD.grad is not None and states_BUD.grad.isfinite().all()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in router.parameters())


def test_noise_is_added_in_training_only_and_has_the_size_asked_for() -> None:
    layer = layers_of(Routing(router_noise=0.7))[0]
    seen: list[Tensor] = []
    assert layer.decider is not None
    layer.decider.router.register_forward_hook(lambda module, inputs, logits: seen.append(logits.detach()))
    x_BTD = states(40, 10, 8)
    for training in (False, False, True, True):
        layer.train(training)(x_BTD, a_pass(40))
    calm, calm_again, noisy, noisier = seen
    assert torch.equal(calm, calm_again) and not torch.equal(noisy, noisier)
    assert (noisy - calm).std().item() == pytest.approx(0.7, rel=0.1)
    assert abs((noisy - calm).mean().item()) < 0.1


def test_logits_are_scored_in_float32_under_bfloat16_autocast() -> None:
    """Two experts' logits of 8 and 8.001 are equal in bfloat16; the better one is second."""
    layer = layers_of(Routing(num_experts=2), dtype=torch.float32)[0]
    seen: list[Tensor] = []
    assert layer.decider is not None
    with torch.no_grad():
        router_weight(layer).zero_()[:, 0] = torch.tensor([8.0, 8.001])
    layer.decider.router.register_forward_hook(lambda module, inputs, logits: seen.append(logits.detach()))
    for dtype in (torch.float32, torch.bfloat16):
        x_BTD = torch.ones(1, 4, 8, dtype=dtype)
        forward_pass = a_pass(1, 4)
        with torch.autocast("cpu", torch.bfloat16):
            layer(x_BTD, forward_pass)
        assert seen[-1].dtype == torch.float32
        assert forward_pass.stats[0].kept_E.tolist() == [0, 4]


@pytest.mark.parametrize("point", ["top2 mixtral", "previous segment, prior", "mlp router", "sequence prefix"])
def test_autocast_changes_no_logit_of_float32_states(point: str) -> None:
    layer = layers_of(TOP_K[point], dtype=torch.float32)[0]
    seen: list[Tensor] = []
    assert layer.decider is not None
    layer.decider.router.register_forward_hook(lambda module, inputs, logits: seen.append(logits))
    x_BTD = states(3, 10, 8, dtype=torch.float32)
    plain = layer(x_BTD, a_pass())
    with torch.autocast("cpu", torch.bfloat16):
        mixed = layer(x_BTD, a_pass())
    assert torch.equal(*seen)
    torch.testing.assert_close(mixed.float(), plain, rtol=0.05, atol=0.1)
    mixed.float().square().sum().backward()
    gradients = [p.grad for p in layer.parameters()]
    assert all(g is not None and g.dtype == torch.float32 and g.isfinite().all() for g in gradients)


def hash_table(k: int, seed: int = 0, layer: int = 0) -> Tensor:
    gpt = gpt_with(Routing(router=RouterKind.HASH, num_experts=5, k=k), seed)
    router = gpt.get_submodule(f"blocks.{layer}.ffn.decider.router")
    assert isinstance(router, HashRouter)
    return router.table_VK


@pytest.mark.parametrize("k", [1, 2, 5])
def test_a_hash_gives_every_token_the_same_distinct_experts_each_time(k: int) -> None:
    table_VK = hash_table(k)
    assert table_VK.shape == (VOCABULARY, k) and table_VK.min() >= 0 and table_VK.max() < 5
    assert all(len(set(row)) == k for row in table_VK.tolist())
    assert torch.equal(table_VK, hash_table(k))
    assert not torch.equal(table_VK, hash_table(k, seed=1)) and not torch.equal(table_VK, hash_table(k, layer=1))


def test_a_hash_spreads_the_vocabulary_over_the_experts() -> None:
    counts = hash_table(1).flatten().bincount(minlength=5)
    assert counts.min() > VOCABULARY / 5 * 0.6


def test_a_hash_reads_the_token_and_nothing_else() -> None:
    layer = layers_of(TOP_K["hash"])[0]
    assert layer.decider is not None
    tokens_BT = torch.tensor([[4, 9, 4], [9, 9, 4]])
    experts_RK = layer.decider.router(tokens_BT)
    assert torch.equal(experts_RK[0], experts_RK[2]) and torch.equal(experts_RK[1], experts_RK[4])
    assert list(layer.decider.parameters()) == []


def test_labels_go_to_their_own_experts() -> None:
    router = LabelRouter(4, Routing(router=RouterKind.LABEL, k=2))
    assert router(torch.tensor([0, 1, 2, 3])).tolist() == [[0, 1], [2, 3], [0, 1], [2, 3]]
    alone = LabelRouter(4, Routing(router=RouterKind.LABEL, k=1))
    assert alone(torch.tensor([3, 0, 5])).tolist() == [[3], [0], [1]]
    uneven = LabelRouter(5, Routing(router=RouterKind.LABEL, k=2))
    assert uneven(torch.tensor([2])).tolist() == [[4, 0]]


def test_only_the_first_of_global_layers_has_a_router() -> None:
    gpt = gpt_with(Routing(**MIXTRAL, scope=Scope.GLOBAL))
    assert [name.split(".")[1] for name in router_weights(gpt)] == ["0"]
