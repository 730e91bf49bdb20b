"""ReMoE's rule (2412.14711): who is picked, what the penalty is, and that it holds the average at k.

Shape suffixes: B sequences, T positions, E experts.
"""

import pytest
import torch
from torch import Tensor

from moe_study.design.config import ModelConfig
from moe_study.design.routing import Gate, Routing, Selection
from moe_study.model.forward_pass import Counts, Reducer
from moe_study.model.gpt import GPT
from moe_study.model.moe.layer import MixtureLayer
from moe_study.model.moe.routing.selection import Positive, build_selection
from tests.model.moe import oracle
from tests.model.moe.doubles import a_pass, layers_of, states

REMOE = Routing(selection=Selection.POSITIVE, gate=Gate.RELU, num_experts=5, k=2)


def rule_of(layer: MixtureLayer) -> Positive:
    assert layer.decider is not None and isinstance(layer.decider.select, Positive)
    return layer.decider.select


def scores_of(layer: MixtureLayer, x_BTD: Tensor) -> list[list[float]]:
    return [oracle.logits(layer, REMOE, x_TD, t).tolist() for x_TD in x_BTD for t in range(x_TD.shape[0])]


def naive_penalty(scores: list[list[float]], k: int) -> float:
    """Eq. 10 and 11 of one layer, token by token."""
    tokens, experts = len(scores), len(scores[0])
    taken = [sum(row[e] > 0 for row in scores) for e in range(experts)]
    total = 0.0
    for row in scores:
        for e, score in enumerate(row):
            total += experts / (k * tokens) * taken[e] * max(score, 0.0)
    return total / tokens


@pytest.mark.parametrize("seed", range(20))
def test_the_experts_of_positive_score_are_taken_best_first(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits_BTE = torch.randn(2, 7, 1 + seed % 6, generator=generator, dtype=torch.float64)
    logits_BTE = logits_BTE.round() if seed % 3 == 0 else logits_BTE  # zeros are not positive
    decision = build_selection(REMOE, logits_BTE.shape[2])(logits_BTE, None)
    for r, scores in enumerate(logits_BTE.flatten(0, 1)):
        taken = [e for e in oracle.ranking(scores.tolist()) if scores[e] > 0]
        assert decision.expert_RK[r][decision.mask()[r]].tolist() == taken
        assert decision.weight_RK[r].tolist() == scores[decision.expert_RK[r]].clamp_min(0).tolist()


def test_a_token_without_a_positive_score_is_left_to_its_residual() -> None:
    layer, x_BTD, forward_pass = layers_of(REMOE)[0], states(3, 10, 8), a_pass()
    y_BTD = layer(x_BTD, forward_pass)
    none = [not any(score > 0 for score in row) for row in scores_of(layer, x_BTD)]
    assert any(none) and not all(none)
    assert ((y_BTD == 0).all(-1).flatten() == torch.tensor(none)).all()


def test_the_penalty_is_that_of_the_paper_and_reaches_the_loss_by_its_weight() -> None:
    layer, x_BTD, forward_pass = layers_of(REMOE)[0], states(3, 10, 8), a_pass()
    rule_of(layer).penalty_weight.fill_(0.25)
    layer(x_BTD, forward_pass)
    expected = naive_penalty(scores_of(layer, x_BTD), k=2)
    assert forward_pass.aux["positive"][0].item() == pytest.approx(expected)
    assert forward_pass.total_aux_loss().item() == pytest.approx(0.25 * expected)


def test_the_penalty_pushes_an_expert_down_by_how_often_it_is_taken() -> None:
    """Which share takes it is a constant: the gradient is f_e / T where the score is positive (section 3.4)."""
    logits_RE = torch.tensor([[2.0, -1.0], [1.0, 3.0], [0.5, -2.0]], dtype=torch.float64, requires_grad=True)
    rule, forward_pass = Positive(Routing(selection=Selection.POSITIVE, num_experts=2), 2), a_pass(1, 3)
    rule.add_terms(logits_RE, rule(logits_RE.unsqueeze(0), None), forward_pass)
    (slope_RE,) = torch.autograd.grad(forward_pass.aux["positive"][0], logits_RE)
    expected = torch.tensor([[2.0, 0.0], [2.0, 2 / 3], [2.0, 0.0]], dtype=torch.float64) / 3
    torch.testing.assert_close(slope_RE, expected)


def test_the_weight_moves_with_the_average_over_all_layers_and_micro_batches() -> None:
    """Of two layers, one over k and one under it, the mean tells; and every layer has the same weight."""
    model = GPT(ModelConfig(layers=2, heads=1, width=4, context=4), REMOE, vocab_size=9)
    rules = [rule_of(block.ffn) for block in model.blocks]  # type: ignore[arg-type]
    expected = Positive.FIRST_WEIGHT
    for few, many in (([1, 1], [5, 4]), ([0, 1], [2, 1]), ([2, 2], [2, 2])):
        for first, second in zip(few, many, strict=True):  # micro-batches
            forward_pass = a_pass(1, 4)
            for rule, taken in zip(rules, (first, second), strict=True):
                logits_RE = torch.where(torch.arange(5) < taken, 1.0, -1.0).expand(4, 5)
                rule.add_terms(logits_RE, rule(logits_RE.unsqueeze(0), None), forward_pass)
        model.end_step()
        mean = sum(few + many) / 4
        expected *= 1.2 ** ((mean > 2) - (mean < 2))
        assert [rule.penalty_weight.item() for rule in rules] == pytest.approx([expected] * 2)


def test_evaluation_moves_no_weight_and_the_weight_is_part_of_what_is_saved() -> None:
    layer = layers_of(REMOE)[0].eval()
    layer(states(3, 10, 8), a_pass())
    layer.end_step()
    assert rule_of(layer).penalty_weight.item() == pytest.approx(Positive.FIRST_WEIGHT)
    assert "decider.select.penalty_weight" in layer.state_dict()


def test_tokens_of_other_processes_count_as_those_of_one() -> None:
    """Halves of a micro-batch, each with the counts of both: their mean is the penalty of the whole."""
    layer, x_BTD, whole = layers_of(REMOE)[0], states(4, 10, 8), a_pass(4, 10)
    layer(x_BTD, whole)
    seen: list[Tensor] = []

    class Other(Reducer):
        def counts(self, counts_E: Tensor) -> Counts:
            seen.append(counts_E)
            both_E = counts_E if len(seen) <= 2 else seen[0] + seen[1]
            return Counts(both_E, both_E, both_E)

    def halves() -> list[float]:
        passes = [a_pass(2, 10), a_pass(2, 10)]
        for half_BTD, forward_pass in zip((x_BTD[:2], x_BTD[2:]), passes, strict=True):
            forward_pass.reducer = reducer
            layer(half_BTD, forward_pass)
        return [forward_pass.aux["positive"][0].item() for forward_pass in passes]

    reducer = Other()
    halves()  # what each of the two counts by itself
    assert sum(halves()) / 2 == pytest.approx(whole.aux["positive"][0].item())


def test_training_holds_the_average_near_k() -> None:
    """A linear router whose loss would like every weight to be large: it starts at half of all experts."""
    torch.manual_seed(0)
    x_RD, wanted_RE = 1 + torch.randn(256, 16), torch.rand(256, 8)  # of mean 0, any score would be positive for half
    weight_ED = torch.nn.Parameter(0.02 * torch.randn(8, 16))
    rule = Positive(Routing(selection=Selection.POSITIVE, gate=Gate.RELU, num_experts=8, k=2), 8)
    optimizer, picked = torch.optim.Adam([weight_ED], lr=0.01), []
    for _ in range(400):
        forward_pass, logits_RE = a_pass(1, 256), x_RD @ weight_ED.T
        decision = rule(logits_RE.unsqueeze(0), None)
        rule.add_terms(logits_RE, decision, forward_pass)
        loss = (decision.weight_RK - wanted_RE).square().mean() + forward_pass.total_aux_loss()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rule.end_step()
        picked.append(decision.mask().sum(1).float().mean().item())
    assert picked[0] > 3.5
    assert abs(sum(picked[200:]) / 200 - 2) < 0.3
