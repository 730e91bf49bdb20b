"""Balancing terms: closed forms, where their gradients come from, and what a step moves."""

import dataclasses

import pytest
import torch
from torch import Tensor

from moe_study.design.config import ModelConfig
from moe_study.design.routing import Balance, Choices, ChoiceScope, Gate, RouterKind, Routing, Scope, Selection
from moe_study.model.forward_pass import ForwardPass
from moe_study.model.gpt import GPT
from moe_study.model.moe.layer import MixtureLayer
from moe_study.model.moe.routing.balance import Balancer, first_counts, pick_counts, switch_loss, z_loss
from moe_study.model.moe.routing.gate import RoutingDecision
from tests.design.points import TOP_K, VOCABULARY
from tests.model.moe import oracle
from tests.model.moe.doubles import a_pass, layers_of, router_weight, states

SWITCH = Balance(switch=0.01)


def logits(rows: int = 30, experts: int = 4, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(rows, experts, generator=generator, dtype=torch.float64)


def naive_switch(scores: list[list[float]], counts: list[float]) -> float:
    """N * sum over e of (share of counts) * (mean probability)."""
    p = [oracle.probabilities(row) for row in scores]
    total = sum(counts)
    return len(counts) * sum(count / total * sum(row[e] for row in p) / len(p) for e, count in enumerate(counts))


@pytest.mark.parametrize("experts", [1, 2, 7, 64])
@pytest.mark.parametrize("k", [1, 2])
def test_switch_loss_is_one_at_uniform_whatever_n_and_k(experts: int, k: int) -> None:
    even = torch.full((experts,), 10.0 * k)
    assert switch_loss(torch.zeros(10 * experts, experts), even).item() == pytest.approx(1)


def test_switch_loss_of_a_collapsed_router_is_n() -> None:
    logits_RE = torch.tensor([[100.0, 0, 0, 0]]).expand(20, -1)
    assert switch_loss(logits_RE, first_counts(logits_RE.argmax(1), logits_RE)).item() == pytest.approx(4)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_switch_loss_equals_the_formula_over_all_picks(k: int) -> None:
    routing = Routing(k=k, balance=SWITCH)
    layer, x_BTD, forward_pass = layers_of(routing)[0], states(3, 10, 8), a_pass()
    layer(x_BTD, forward_pass)
    scores = [oracle.logits(layer, routing, x_TD, t).tolist() for x_TD in x_BTD for t in range(10)]
    counts = [0.0] * 4
    for row in scores:
        for expert in oracle.pick(row, routing):
            counts[expert] += 1
    (value,) = forward_pass.aux["switch"]
    assert value.item() == pytest.approx(naive_switch(scores, counts))
    assert forward_pass.total_aux_loss().item() == pytest.approx(0.01 * naive_switch(scores, counts))


@pytest.mark.parametrize("selection", [Selection.THRESHOLD, Selection.POSITIVE, Selection.ALL])
def test_rules_with_any_number_of_picks_count_the_largest_score(selection: Selection) -> None:
    """XMoE: the share of tokens whose argmax is e, before any capacity."""
    routing = Routing(selection=selection, balance=SWITCH)
    layer, x_BTD, forward_pass = layers_of(routing)[0], states(3, 10, 8), a_pass()
    layer(x_BTD, forward_pass)
    scores = [oracle.logits(layer, routing, x_TD, t).tolist() for x_TD in x_BTD for t in range(10)]
    counts = [float(sum(oracle.ranking(row)[0] == e for row in scores)) for e in range(4)]
    assert forward_pass.aux["switch"][0].item() == pytest.approx(naive_switch(scores, counts))


CHOOSING = {
    "top-2": Routing(k=2),
    "top-3 by segment": dataclasses.replace(TOP_K["segment mean"], k=3),
    "threshold": Routing(selection=Selection.THRESHOLD, threshold=0.7),
    "threshold by sequence": dataclasses.replace(
        TOP_K["sequence first token"], selection=Selection.THRESHOLD, threshold=0.6
    ),
    "high threshold": Routing(selection=Selection.THRESHOLD, threshold=0.95, num_experts=7),
}


@pytest.mark.parametrize("choices", Choices)
@pytest.mark.parametrize("point", CHOOSING)
def test_the_load_counts_the_first_choice_or_all_whatever_the_rule(point: str, choices: Choices) -> None:
    routing = dataclasses.replace(CHOOSING[point], balance=Balance(switch=0.01, choices=choices))
    layer, x_BTD, forward_pass = layers_of(routing)[0], states(3, 10, 8), a_pass()
    layer(x_BTD, forward_pass)
    scores = [oracle.logits(layer, routing, x_TD, t).tolist() for x_TD in x_BTD for t in range(10)]
    taken = [oracle.pick(row, routing) for row in scores]
    assert max(map(len, taken)) > 1  # otherwise both count the same
    counts = [0.0] * layer.num_experts
    for experts in taken:
        for expert in experts if choices is Choices.ALL else experts[:1]:
            counts[expert] += 1
    assert forward_pass.aux["switch"][0].item() == pytest.approx(naive_switch(scores, counts), rel=1e-12)


@pytest.mark.parametrize("choices", Choices)
def test_the_load_of_experts_that_choose_by_a_cutoff_counts_the_first_choice_or_all(choices: Choices) -> None:
    balance = Balance(switch=0.01, choices=choices)
    routing = Routing(selection=Selection.EXPERT_CHOICE, choice_scope=ChoiceScope.CUTOFF, k=1, balance=balance)
    layer, x_BTD, forward_pass = layers_of(routing)[0], states(3, 10, 8), a_pass()
    layer(x_BTD, forward_pass)  # a new cutoff is 1 / N for each expert
    scores = [oracle.logits(layer, routing, x_TD, t).tolist() for x_TD in x_BTD for t in range(10)]
    counts = [0.0] * 4
    for row in scores:
        above = [e for e, p in enumerate(oracle.probabilities(row)) if p > 0.25]
        for expert in above if choices is Choices.ALL else oracle.ranking(row)[:1]:
            counts[expert] += 1
    assert forward_pass.aux["switch"][0].item() == pytest.approx(naive_switch(scores, counts))


def test_the_first_choice_under_a_bias_is_what_the_bias_puts_first_and_the_bias_goes_by_all() -> None:
    routing = Routing(k=2, balance=Balance(switch=1.0, bias_rate=0.25, choices=Choices.FIRST))
    layer = layers_of(routing)[0].train()
    assert layer.decider is not None
    bias = [0.0, 0.6, -0.3, 0.2]
    layer.decider.balancer.bias_E.copy_(torch.tensor(bias))
    x_BTD, forward_pass = states(3, 10, 8), a_pass()
    layer.begin_step(0)
    layer(x_BTD, forward_pass)
    layer.end_step()
    scores = [oracle.logits(layer, routing, x_TD, t).tolist() for x_TD in x_BTD for t in range(10)]
    first, both = [0.0] * 4, [0.0] * 4
    for row in scores:
        biased = [p + b for p, b in zip(oracle.probabilities(row), bias, strict=True)]
        taken = oracle.ranking(biased)[:2]
        first[taken[0]] += 1
        for expert in taken:
            both[expert] += 1
    assert first != [float(sum(oracle.ranking(row)[0] == e for row in scores)) for e in range(4)]  # the bias tells
    assert forward_pass.aux["switch"][0].item() == pytest.approx(naive_switch(scores, first))
    moved = [b + 0.25 * ((n < 15) - (n > 15)) for b, n in zip(bias, both, strict=True)]  # 60 picks of 4 experts
    assert layer.decider.balancer.bias_E.tolist() == pytest.approx(moved)


def test_units_count_by_their_tokens() -> None:
    """Segments of 4, 4 and 2 tokens: the last decision weighs half as much as the others."""
    routing = dataclasses.replace(TOP_K["segment mean"], k=1, balance=SWITCH)
    layer, x_BTD, forward_pass = layers_of(routing)[0], states(3, 10, 8), a_pass()
    layer(x_BTD, forward_pass)
    scores = [oracle.logits(layer, routing, x_TD, t).tolist() for x_TD in x_BTD for t in range(10)]
    counts = [float(sum(oracle.ranking(row)[0] == e for row in scores)) for e in range(4)]
    assert forward_pass.aux["switch"][0].item() == pytest.approx(naive_switch(scores, counts))


def test_switch_gradient_comes_from_all_probabilities_not_from_masked_ones() -> None:
    """d loss / d logit of an expert that was not picked is not zero."""
    logits_RE = logits().requires_grad_()
    picked_RK = logits_RE.detach().topk(2).indices
    counts_E = pick_counts(RoutingDecision(picked_RK, torch.ones(30, 2, dtype=torch.float64)), 4)
    switch_loss(logits_RE, counts_E).backward()
    assert logits_RE.grad is not None
    p_RE, f_E = logits_RE.detach().softmax(1), counts_E / 60
    expected_RE = 4 / 30 * p_RE * (f_E - (p_RE @ f_E).unsqueeze(1))  # by hand, from the softmax's Jacobian
    torch.testing.assert_close(logits_RE.grad, expected_RE)
    not_picked = torch.ones(30, 4, dtype=torch.bool).scatter_(1, picked_RK, False)
    assert (logits_RE.grad[not_picked] != 0).all()


@pytest.mark.parametrize("term", ["switch", "z"])
@pytest.mark.parametrize("point", ["top1", "top2 mixtral", "sequence global", "sequence prefix", "mlp router"])
def test_balancing_terms_reach_the_router(point: str, term: str) -> None:
    routing = dataclasses.replace(TOP_K[point], balance=Balance(switch=float(term == "switch"), z=float(term == "z")))
    layer, forward_pass = layers_of(routing)[0], a_pass()
    layer(states(3, 10, 8), forward_pass)
    forward_pass.total_aux_loss().backward()
    assert layer.decider is not None
    assert all(p.grad is not None and p.grad.abs().max() > 1e-4 for p in layer.decider.router.parameters())


def test_z_loss_is_the_mean_squared_logsumexp() -> None:
    assert z_loss(torch.zeros(5, 8)).item() == pytest.approx(torch.tensor(8.0).log().item() ** 2)
    routing = Routing(balance=Balance(z=0.5))
    layer, x_BTD, forward_pass = layers_of(routing)[0], states(3, 10, 8), a_pass()
    layer(x_BTD, forward_pass)
    squares = []
    for x_TD in x_BTD:
        for t in range(10):
            scores_E = oracle.logits(layer, routing, x_TD, t)
            squares.append(scores_E.exp().sum().log().item() ** 2)
    assert forward_pass.aux["z"][0].item() == pytest.approx(sum(squares) / 30)
    assert forward_pass.total_aux_loss().item() == pytest.approx(0.5 * sum(squares) / 30)


def test_terms_are_reported_apart_and_summed_over_layers() -> None:
    model = ModelConfig(layers=3, heads=2, width=8, context=10)
    tokens_BT = a_pass().tokens_BT
    parts = []
    for balance in (Balance(switch=0.5), Balance(z=0.25), Balance(switch=0.5, z=0.25), Balance()):
        gpt = GPT(model, Routing(balance=balance), VOCABULARY).double()
        parts.append(gpt(tokens_BT, tokens_BT))
    switch, z, both, neither = parts
    assert (switch.aux.keys(), z.aux.keys(), neither.aux.keys()) == ({"switch"}, {"z"}, set())
    assert both.aux["switch"] == switch.aux["switch"] and both.aux["z"] == z.aux["z"]
    assert 2.5 < switch.aux["switch"] < 5  # about one a layer
    torch.testing.assert_close(both.aux_loss, 0.5 * switch.aux["switch"] + 0.25 * z.aux["z"])
    assert neither.aux_loss == 0
    assert both.loss == neither.loss  # the language model's loss alone, whatever is added to it


def test_a_global_decision_is_balanced_once() -> None:
    layers = layers_of(dataclasses.replace(TOP_K["sequence global"], scope=Scope.GLOBAL, balance=SWITCH))
    forward_pass = a_pass()
    for layer in layers:
        layer(states(3, 10, 8), forward_pass)
    assert len(forward_pass.aux["switch"]) == 1


def run_step(layer: MixtureLayer, seeds: range) -> list[tuple[float, list[float], list[list[float]]]]:
    """One training step over micro-batches: each one's loss, pick counts and scores."""
    layer.begin_step(0)
    found = []
    for seed in seeds:
        x_BTD, forward_pass = states(2, 6, 8, seed=seed), a_pass(2, 6)
        layer(x_BTD, forward_pass)
        routing = Routing()
        scores = [oracle.logits(layer, routing, x_TD, t).tolist() for x_TD in x_BTD for t in range(6)]
        counts = [float(n) for n in forward_pass.stats[0].kept_E.tolist()]
        found.append((forward_pass.aux["switch"][0].item(), counts, scores))
    layer.end_step()
    return found


@pytest.mark.parametrize("scope", ["micro_batch", "batch"])
def test_the_scope_says_over_which_tokens_the_load_is_counted(scope: str) -> None:
    layer = layers_of(Routing(balance=Balance(switch=1.0, scope=scope)))[0].train()
    for step in range(2):  # nothing of one step is left in the next
        running = [0.0] * 4
        for value, counts, scores in run_step(layer, range(10 * step, 10 * step + 4)):
            running = [a + b for a, b in zip(running, counts, strict=True)]
            assert value == pytest.approx(naive_switch(scores, running if scope == "batch" else counts))


def test_a_step_that_was_given_up_leaves_nothing_behind() -> None:
    layer = layers_of(Routing(balance=Balance(switch=1.0, scope="batch")))[0].train()
    layer(states(2, 6, 8, seed=9), a_pass(2, 6))  # no end of the step: training was interrupted
    ((value, counts, scores),) = run_step(layer, range(1))
    assert value == pytest.approx(naive_switch(scores, counts))


def test_picks_that_do_not_count_are_not_counted() -> None:
    keep_RK = torch.tensor([[True, False], [True, True], [True, True]])
    decision = RoutingDecision(torch.tensor([[0, 1], [2, 0], [0, 3]]), torch.ones(3, 2), keep_RK)
    assert pick_counts(decision, 5).tolist() == [3, 0, 1, 1, 0]


def test_evaluation_counts_its_own_tokens_only_and_leaves_the_step_alone() -> None:
    layer = layers_of(Routing(balance=Balance(switch=1.0, scope="batch", bias_rate=0.1)))[0]
    assert layer.decider is not None
    layer.train()(states(2, 6, 8, seed=9), a_pass(2, 6))
    x_BTD, amid_a_step, before_it = states(2, 6, 8), a_pass(2, 6), a_pass(2, 6)
    layer.eval()(x_BTD, amid_a_step)
    layer.begin_step(1)
    layer(x_BTD, before_it)
    assert amid_a_step.aux["switch"] == before_it.aux["switch"]
    before = layer.decider.balancer.bias_E.clone()
    for value, counts, scores in run_step(layer.eval(), range(3)):
        assert value == pytest.approx(naive_switch(scores, counts))
    assert torch.equal(before, layer.decider.balancer.bias_E)


def test_a_loss_free_bias_rises_for_the_idle_and_falls_for_the_busy() -> None:
    balancer = Balancer(4, Routing(k=1, balance=Balance(bias_rate=0.001)))
    balancer.begin_step()
    for picked in ([0, 0, 0, 1], [0, 0, 1, 3]):  # counts 5, 2, 0, 1 and a mean of 2
        expert_RK = torch.tensor(picked).unsqueeze(1)
        decision = RoutingDecision(expert_RK, torch.ones(4, 1))
        balancer.add_terms(torch.zeros(4, 4), decision, ForwardPass(torch.zeros(1, 4)))
    assert balancer.bias is not None and balancer.bias.tolist() == [0, 0, 0, 0]  # not before the step is over
    balancer.end_step()
    torch.testing.assert_close(balancer.bias, torch.tensor([-0.001, 0, 0.001, 0.001]))
    balancer.end_step()  # nothing was counted since
    torch.testing.assert_close(balancer.bias, torch.tensor([-0.001, 0, 0.001, 0.001]))


def test_a_loss_free_bias_adds_no_loss_and_no_gradient_and_is_saved() -> None:
    layer, forward_pass = layers_of(Routing(balance=Balance(bias_rate=0.001)))[0].train(), a_pass()
    layer(states(3, 10, 8), forward_pass)
    assert forward_pass.aux == {} and forward_pass.total_aux_loss() == 0
    assert [name for name in layer.state_dict() if "bias_E" in name and "experts" not in name] == [
        "decider.balancer.bias_E"
    ]
    assert all("balancer" not in name for name, _ in layer.named_parameters())


@pytest.mark.parametrize("gate", [Gate.SOFTMAX_THEN_PICK, Gate.SIGMOID])
def test_a_loss_free_bias_levels_the_load_of_a_skewed_router(gate: Gate) -> None:
    layer = layers_of(Routing(k=1, gate=gate, balance=Balance(bias_rate=0.02)))[0].train()
    with torch.no_grad():
        router_weight(layer).mul_(0.3)[:, 0] = torch.tensor([1.0, 0.5, -0.5, -1.0])
    loads = []
    for step in range(100):
        x_BTD, forward_pass = states(8, 10, 8, seed=step).detach(), a_pass(8)
        x_BTD[..., 0] = 1
        layer.begin_step(step)
        layer(x_BTD, forward_pass)
        layer.end_step()
        loads.append(forward_pass.stats[0].kept_E.double() / 80)
    assert loads[0].max() > 0.45
    assert torch.stack(loads[-20:]).mean(0).max() < 0.32


def test_routers_without_scores_have_nothing_to_balance() -> None:
    for point in ("hash", "label"):
        layer, forward_pass = layers_of(TOP_K[point])[0].train(), a_pass()
        layer.begin_step(0)
        layer(states(3, 10, 8), forward_pass)
        layer.end_step()
        assert forward_pass.aux == {} and TOP_K[point].router in (RouterKind.HASH, RouterKind.LABEL)
