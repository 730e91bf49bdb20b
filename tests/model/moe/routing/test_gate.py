"""Gate weights: closed forms, limits, and what is left out of a normalisation."""

import math

import pytest
import torch

from moe_study.design.routing import AFTER_PICK, Gate
from moe_study.model.moe.routing.gate import RoutingDecision, entropy, fixed_decision, gate_weights, shuffled


def logits(rows: int = 200, experts: int = 6, scale: float = 3.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return scale * torch.randn(rows, experts, generator=generator, dtype=torch.float64)


def test_double_softmax_of_two_picks_is_confined() -> None:
    """The study paper's sequence gate: differences of probabilities lie in [0, 1]."""
    low, high = 1 / (1 + math.e), math.e / (1 + math.e)
    assert (round(low, 3), round(high, 3)) == (0.269, 0.731)
    for scale in (0.01, 1.0, 100.0):
        logits_RE = logits(scale=scale)
        weight_RK = gate_weights(Gate.DOUBLE_SOFTMAX, logits_RE, logits_RE.topk(2).indices, None, False)
        assert low <= weight_RK.min() and weight_RK.max() <= high
        torch.testing.assert_close(weight_RK.sum(1), torch.ones(200, dtype=torch.float64))
    assert weight_RK.max() == pytest.approx(high) and weight_RK.min() == pytest.approx(low)  # the limits are reached


@pytest.mark.parametrize("gate", Gate)
def test_candidates_that_are_not_kept_have_no_weight_and_no_influence(gate: Gate) -> None:
    logits_RE = logits().requires_grad_()
    expert_RK = logits_RE.detach().topk(4).indices
    keep_RK = torch.tensor([True, True, False, True]).expand(200, -1)
    for renormalise in (False, True):
        masked = gate_weights(gate, logits_RE, expert_RK, keep_RK, renormalise)
        chosen = gate_weights(gate, logits_RE, expert_RK[:, [0, 1, 3]], None, renormalise)
        torch.testing.assert_close(masked[:, [0, 1, 3]], chosen)
        assert (masked[:, 2] == 0).all()


@pytest.mark.parametrize("gate", [gate for gate in Gate if gate not in AFTER_PICK])
def test_a_decision_without_experts_has_weights_and_gradients_of_zero(gate: Gate) -> None:
    """Expert choice leaves some tokens without any."""
    logits_RE = logits(3, 4).requires_grad_()
    expert_RE = torch.arange(4).expand(3, 4)
    weight_RE = gate_weights(gate, logits_RE, expert_RE, torch.zeros(3, 4, dtype=torch.bool), True)
    weight_RE.sum().backward()
    assert (weight_RE == 0).all() and logits_RE.grad is not None and (logits_RE.grad == 0).all()


def test_a_relu_gate_is_the_score_and_nothing_below_0() -> None:
    logits_RE = logits().requires_grad_()
    expert_RE = torch.arange(6).expand(200, 6)
    weight_RE = gate_weights(Gate.RELU, logits_RE, expert_RE, None, False)
    (slope_RE,) = torch.autograd.grad(weight_RE.sum(), logits_RE)
    for scores, weights, slopes in zip(logits_RE.tolist(), weight_RE.tolist(), slope_RE.tolist(), strict=True):
        assert weights == [max(score, 0) for score in scores]
        assert slopes == [float(score > 0) for score in scores]


def test_large_logits_do_not_overflow() -> None:
    logits_RE = torch.tensor([[1000.0, 999.0, -1000.0]])
    for gate in Gate:
        weight_RK = gate_weights(gate, logits_RE, torch.tensor([[0, 1]]), None, False)
        assert weight_RK.isfinite().all()
    weight_RK = gate_weights(Gate.SOFTMAX_THEN_PICK, logits_RE, torch.tensor([[0, 1]]), None, False)
    torch.testing.assert_close(weight_RK, torch.tensor([[0.7310586, 0.2689414]]), rtol=1e-4, atol=0)


def test_experts_chosen_without_scores_share_the_weight_equally() -> None:
    decision = fixed_decision(torch.tensor([[1, 2, 0], [0, 1, 2]]), torch.float64)
    torch.testing.assert_close(decision.weight_RK, torch.full((2, 3), 1 / 3, dtype=torch.float64))
    assert decision.mask().all()


def test_entropy_of_uniform_and_of_certain_scores() -> None:
    assert entropy(torch.zeros(3, 8)).item() == pytest.approx(math.log(8))
    certain = torch.tensor([[100.0, 0.0, 0.0]])
    assert entropy(certain).item() == pytest.approx(0, abs=1e-6)
    assert entropy(torch.cat((torch.zeros(1, 3), certain))).item() == pytest.approx(math.log(3) / 2)


def test_shuffling_moves_whole_decisions() -> None:
    rows = torch.arange(50).unsqueeze(1)
    weights, keep = rows + torch.tensor([0.1, 0.2]), rows % 2 == torch.arange(2)
    decision = RoutingDecision(rows * 10 + torch.arange(2), weights, keep)
    for training in (True, False):
        mixed = shuffled(decision, training)
        order = mixed.expert_RK[:, 0] // 10
        assert sorted(order.tolist()) == list(range(50)) and order.tolist() != list(range(50))
        assert mixed.keep_RK is not None and decision.keep_RK is not None
        assert torch.equal(mixed.expert_RK, decision.expert_RK[order])
        assert torch.equal(mixed.weight_RK, decision.weight_RK[order])
        assert torch.equal(mixed.keep_RK, decision.keep_RK[order])
    torch.manual_seed(0)
    one, other = shuffled(decision, True), shuffled(decision, True)
    assert not torch.equal(one.expert_RK, other.expert_RK)
    assert torch.equal(shuffled(decision, False).expert_RK, shuffled(decision, False).expert_RK)
