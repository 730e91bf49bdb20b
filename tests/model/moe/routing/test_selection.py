"""Selection rules against naive loops, on random and on quantised scores (ties), and their invariants."""

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from moe_study.design.config import ModelConfig
from moe_study.design.routing import ChoiceScope, Gate, Routing, Selection
from moe_study.model.gpt import GPT
from moe_study.model.moe.routing.gate import RoutingDecision
from moe_study.model.moe.routing.selection import ExpertChoice, Threshold, build_selection, descending
from tests.model.moe import oracle
from tests.model.moe.doubles import a_pass

CASES = range(150)


def logits(seed: int, sequences: int = 2, length: int = 5) -> Tensor:
    """Random scores (B, T, E): of 1 to 9 experts, at some scale, and with many ties in every third case."""
    generator = torch.Generator().manual_seed(seed)
    experts = int(torch.randint(1, 10, (), generator=generator))
    scale = [0.1, 1.0, 4.0][int(torch.randint(3, (), generator=generator))]
    scores_BTE = scale * torch.randn(sequences, length, experts, generator=generator, dtype=torch.float64)
    return scores_BTE.round() if seed % 3 == 0 else scores_BTE


def kept(decision: RoutingDecision) -> list[list[int]]:
    """Experts of each decision that count, in the order of the candidates."""
    rows = zip(decision.expert_RK.tolist(), decision.mask().tolist(), strict=True)
    return [[e for e, keep in zip(experts, keeps, strict=True) if keep] for experts, keeps in rows]


def threshold_picks(logits_BTE: Tensor, t: float) -> list[list[int]]:
    rule = build_selection(Routing(selection=Selection.THRESHOLD, threshold=t), logits_BTE.shape[2])
    return kept(rule(logits_BTE, None))


# Top-k


@pytest.mark.parametrize("seed", CASES)
def test_top_k_takes_the_k_largest_scores_best_first(seed: int) -> None:
    logits_BTE = logits(seed)
    experts = logits_BTE.shape[2]
    for k in {1, (experts + 1) // 2, experts}:
        rule = build_selection(Routing(k=k, num_experts=experts), experts)
        decision = rule(logits_BTE, None)
        assert decision.keep_RK is None
        for scores, chosen in zip(logits_BTE.flatten(0, 1).tolist(), decision.expert_RK.tolist(), strict=True):
            assert len(set(chosen)) == k
            # Which one of equals is taken is free: their scores tell whether the choice is right.
            assert [scores[e] for e in chosen] == sorted(scores, reverse=True)[:k]


def test_top_k_is_greedy_in_evaluation_and_in_training() -> None:
    rule, logits_BTE = build_selection(Routing(k=3), 8), logits(2, 20, 20)
    logits_BTE = torch.randn(4, 50, 8, generator=torch.Generator().manual_seed(0))
    chosen = [rule.train(training)(logits_BTE, None).expert_RK for training in (True, False, True, False)]
    assert all(torch.equal(chosen[0], other) for other in chosen[1:])


@pytest.mark.parametrize("gate", Gate)
def test_a_bias_moves_the_choice_and_not_the_weights(gate: Gate) -> None:
    rule = build_selection(Routing(k=2, gate=gate), 5)
    logits_BTE = torch.randn(3, 20, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    bias_E = torch.tensor([0.3, -0.2, 0.0, 0.1, -0.4], dtype=torch.float64)
    decision, plain = rule(logits_BTE, bias_E), rule(logits_BTE, None)
    changed = 0
    for r, scores in enumerate(logits_BTE.flatten(0, 1)):
        sigmoid = [1 / (1 + math.exp(-s)) for s in scores.tolist()]
        biased = [
            s + b
            for s, b in zip(
                sigmoid if gate is Gate.SIGMOID else oracle.probabilities(scores.tolist()), bias_E.tolist(), strict=True
            )
        ]
        expected = oracle.ranking(biased)[:2]
        assert decision.expert_RK[r].tolist() == expected
        weights = torch.stack(oracle.gate(scores, expected, Routing(k=2, gate=gate)))
        torch.testing.assert_close(decision.weight_RK[r], weights)
        changed += expected != plain.expert_RK[r].tolist()
    assert changed > 10


# Threshold (XMoE)


@pytest.mark.parametrize("seed", CASES)
def test_threshold_takes_what_the_loops_take(seed: int) -> None:
    logits_BTE = logits(seed)
    p_RE = logits_BTE.flatten(0, 1).softmax(1).tolist()
    for t in (0.0, 0.25, 0.5, 0.9, 1.0):
        assert threshold_picks(logits_BTE, t) == [oracle.threshold(p, t) for p in p_RE]


@pytest.mark.parametrize("seed", range(0, 60, 7))
def test_threshold_takes_the_smallest_mass_that_reaches_it(seed: int) -> None:
    logits_BTE = logits(seed, 4, 20)
    p_RE = logits_BTE.flatten(0, 1).softmax(1)
    for t in (0.1, 0.5, 0.77, 0.95):
        for p_E, chosen in zip(p_RE, threshold_picks(logits_BTE, t), strict=True):
            assert p_E[chosen].sum() >= t - 1e-12
            assert len(chosen) == 1 or p_E[chosen[:-1]].sum() < t
            assert min(p_E[chosen]) >= max(set(p_E.tolist()) - set(p_E[chosen].tolist()), default=0)


@pytest.mark.parametrize("experts", [1, 2, 64, 1000])
def test_equal_probabilities_are_ranked_by_the_experts_order(experts: int) -> None:
    generator = torch.Generator().manual_seed(experts)
    values = torch.tensor([0.0, 1e-42, 1e-38, 0.01, 0.25, 0.5, 1.0])  # zeros, denormal numbers and many ties
    p_RE = torch.cat((values[torch.randint(7, (50, experts), generator=generator)], torch.rand(50, experts)))
    expected_RE = [sorted(range(experts), key=lambda e: (-row[e], e)) for row in p_RE.tolist()]
    for dtype in (torch.float32, torch.float64):
        ordered_RE, expert_RE = descending(p_RE.to(dtype))
        assert expert_RE.tolist() == expected_RE
        assert torch.equal(ordered_RE, p_RE.to(dtype).gather(1, expert_RE))


def test_threshold_of_zero_takes_one_expert_and_more_never_takes_fewer() -> None:
    for seed in range(30):
        logits_BTE = logits(seed)
        counts = [
            [len(chosen) for chosen in threshold_picks(logits_BTE, t)]
            for t in (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99, 1.0)
        ]
        assert set(counts[0]) == {1}
        for fewer, more in pairwise(counts):
            assert all(a <= b for a, b in zip(fewer, more, strict=True))


def test_threshold_has_no_upper_limit_but_one_in_float32_is_not_all() -> None:
    even = torch.zeros(1, 3, 64)
    assert [len(chosen) for chosen in threshold_picks(even, 0.9)] == [58] * 3  # 58 / 64 >= 0.9 > 57 / 64
    sharp = 30 * torch.eye(64).unsqueeze(0)  # the rest has 1e-13 each: lost beside 1 in float32
    assert {len(chosen) for chosen in threshold_picks(sharp, 1.0)} == {1}
    rule = build_selection(Routing(selection=Selection.ALL), 64)
    assert all(len(chosen) == 64 for chosen in kept(rule(sharp, None)))


def test_weight_of_one_expert_among_many_stays_small() -> None:
    """XMoE does not renormalise: at N=64 and small logits, t=0 leaves a weight of about 0.1 at most."""
    logits_BTE = torch.randn(1, 200, 64, generator=torch.Generator().manual_seed(0))
    rule = build_selection(Routing(selection=Selection.THRESHOLD, threshold=0.0), 64)
    assert 0.05 < rule(logits_BTE, None).weight_RK.sum(1).mean() < 0.15


def budgeted(budget: float, threshold: float = 0.5) -> Threshold:
    routing = Routing(selection=Selection.THRESHOLD, threshold=threshold, threshold_budget=budget, num_experts=16)
    rule = build_selection(routing, 16)
    assert isinstance(rule, Threshold)
    return rule


@pytest.mark.parametrize("budget", [1.5, 4.0, 9.0])
def test_a_budget_steers_the_threshold_until_so_many_experts_are_taken(budget: float) -> None:
    rule = budgeted(budget)
    generator = torch.Generator().manual_seed(0)
    taken = []
    for _ in range(250):
        for _ in range(2):  # micro-batches
            decision = rule(torch.randn(4, 32, 16, generator=generator), None)
        rule.end_step()
        taken.append(decision.mask().sum(1).double().mean().item())
    assert sum(taken[-50:]) / 50 == pytest.approx(budget, rel=0.05)
    assert taken[0] != pytest.approx(budget, rel=0.05)


def test_a_budget_counts_all_micro_batches_of_a_step_and_moves_after_it() -> None:
    rule = budgeted(4.0)
    counts = []
    for seed in range(2):
        logits_BTE = torch.randn(2, 9, 16, generator=torch.Generator().manual_seed(seed))
        counts.append(rule(logits_BTE, None).mask().sum(1).float().mean().item())
        assert rule.moving_threshold.item() == 0.5
    assert counts[0] != counts[1]
    rule.end_step()
    expected = 0.5 + rule.GAIN * math.log(4.0 / (sum(counts) / 2))
    assert rule.moving_threshold.item() == pytest.approx(expected, abs=1e-6)
    rule.end_step()  # nothing was seen since
    assert rule.moving_threshold.item() == pytest.approx(expected, abs=1e-6)


def test_evaluation_uses_the_steered_threshold_and_does_not_move_it() -> None:
    rule = budgeted(4.0).eval()
    rule.moving_threshold.fill_(0.25)
    logits_BTE = logits(1, 2, 5)[..., :1].expand(-1, -1, 16) + torch.linspace(0, 3, 16, dtype=torch.float64)
    assert kept(rule(logits_BTE, None)) == threshold_picks(logits_BTE, 0.25)
    rule.end_step()
    assert rule.moving_threshold.item() == 0.25


def test_a_steered_threshold_is_saved_with_the_model_and_a_fixed_one_is_not() -> None:
    assert list(budgeted(4.0).state_dict()) == ["moving_threshold"]
    assert not build_selection(Routing(selection=Selection.THRESHOLD), 4).state_dict()


# Expert choice


def choice(scope: ChoiceScope, experts: int, k: int = 1) -> ExpertChoice:
    routing = Routing(selection=Selection.EXPERT_CHOICE, choice_scope=scope, num_experts=experts, k=k)
    rule = build_selection(routing, experts)
    assert isinstance(rule, ExpertChoice)
    return rule


def pools(scope: ChoiceScope, sequences: int, length: int) -> list[list[tuple[int, int]]]:
    """The tokens (b, t) among which an expert chooses, pool by pool."""
    if scope is ChoiceScope.SEQUENCE:
        return [[(b, t) for t in range(length)] for b in range(sequences)]
    if scope is ChoiceScope.POSITION:
        return [[(b, t) for b in range(sequences)] for t in range(length)]
    return [[(b, t) for b in range(sequences) for t in range(length)]]


@pytest.mark.parametrize("scope", [ChoiceScope.SEQUENCE, ChoiceScope.POSITION, ChoiceScope.BATCH])
@pytest.mark.parametrize("seed", range(60))
def test_experts_choose_what_the_loops_choose(seed: int, scope: ChoiceScope) -> None:
    logits_BTE = logits(seed, 4, 6)
    experts = logits_BTE.shape[2]
    k = 1 + seed % experts
    decision = choice(scope, experts, k)(logits_BTE, None)
    keep_BTE = decision.mask().view(4, 6, experts)
    assert decision.expert_RK.tolist() == [list(range(experts))] * 24
    p_BTE = logits_BTE.softmax(2)
    for pool in pools(scope, 4, 6):
        slots = min(len(pool), math.ceil(k * len(pool) / experts))
        for e in range(experts):
            scores = {(b, t): p_BTE[b, t, e].item() for b, t in pool}
            chosen = [scores[b, t] for b, t in pool if keep_BTE[b, t, e]]
            # Which one of equals is taken is free: their scores tell whether the choice is right.
            assert sorted(chosen, reverse=True) == sorted(scores.values(), reverse=True)[:slots]
    weights_BTE = decision.weight_RK.view(4, 6, experts)
    torch.testing.assert_close(weights_BTE, p_BTE * keep_BTE)


def test_a_cutoff_takes_all_tokens_above_it_and_looks_at_no_other() -> None:
    rule = choice(ChoiceScope.CUTOFF, 3)
    rule.cutoff_E.copy_(torch.tensor([0.2, 0.5, 0.9]))
    logits_BTE = torch.randn(2, 30, 3, generator=torch.Generator().manual_seed(0))
    keep_BTE = rule(logits_BTE, None).mask().view(2, 30, 3)
    p_BTE = logits_BTE.softmax(2)
    for e, cutoff in enumerate((0.2, 0.5, 0.9)):
        assert keep_BTE[..., e].tolist() == (p_BTE[..., e] > cutoff).tolist()


def test_a_cutoff_moves_after_the_step_by_the_mean_of_what_was_observed() -> None:
    rule = choice(ChoiceScope.CUTOFF, 3, k=2)
    expected = torch.full((3,), 1 / 3)
    for step in range(1, 200):
        observed = []
        for micro in range(2):
            logits_BTE = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(10 * step + micro))
            rule(logits_BTE, None)
            p_RE = logits_BTE.softmax(2).flatten(0, 1)
            observed.append([sorted(p_RE[:, e].tolist(), reverse=True)[6] for e in range(3)])  # C = ceil(20 / 3) = 7
            torch.testing.assert_close(rule.cutoff_E, expected, rtol=1e-4, atol=1e-6)
        rule.end_step()
        rate = max(1 / step, 0.01)
        expected = expected + rate * (torch.tensor(observed).mean(0) - expected)
    torch.testing.assert_close(rule.cutoff_E, expected, rtol=1e-4, atol=1e-6)


def test_a_moving_cutoff_comes_to_give_every_token_k_experts_on_average() -> None:
    rule = choice(ChoiceScope.CUTOFF, 8, k=2)
    generator = torch.Generator().manual_seed(0)
    preference_E = torch.linspace(-1, 1, 8)
    for _ in range(60):
        keep_RE = rule(torch.randn(4, 64, 8, generator=generator) + preference_E, None).mask()
        rule.end_step()
    assert keep_RE.sum(1).double().mean().item() == pytest.approx(2, rel=0.1)
    assert keep_RE.sum(0).min() > 64 / 2  # and every expert has its share, liked or not


@pytest.mark.parametrize(
    ("routing", "state"),
    [
        (Routing(selection=Selection.THRESHOLD, threshold_budget=1.5), "moving_threshold"),
        (Routing(selection=Selection.EXPERT_CHOICE, choice_scope=ChoiceScope.CUTOFF), "cutoff_E"),
    ],
)
def test_the_end_of_a_model_s_step_moves_every_layer_s_state(routing: Routing, state: str) -> None:
    gpt = GPT(ModelConfig(layers=2, heads=2, width=8, context=10), routing, 257)
    start = [value.clone() for name, value in gpt.named_buffers() if state in name]
    gpt.begin_step(0)
    gpt(a_pass().tokens_BT)
    during = [value.clone() for name, value in gpt.named_buffers() if state in name]
    gpt.end_step()
    after = [value for name, value in gpt.named_buffers() if state in name]
    assert len(start) == 2
    assert all(torch.equal(a, b) for a, b in zip(start, during, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(start, after, strict=True))


def test_evaluation_observes_nothing() -> None:
    rule = choice(ChoiceScope.CUTOFF, 3).eval()
    before = {name: value.clone() for name, value in rule.state_dict().items()}
    rule(torch.randn(2, 5, 3), None)
    rule.end_step()
    assert set(before) == {"cutoff_E", "updates"}
    assert all(torch.equal(before[name], value) for name, value in rule.state_dict().items())
