"""What a mixture layer counts on its way, against loops over tokens and experts."""

from itertools import product

import pytest
import torch

from tests.design.points import TOP_K
from tests.model.moe import oracle
from tests.model.moe.doubles import a_pass, layers_of, states
from tests.model.moe.layer_cases import POINTS, by_loops, run


@pytest.mark.parametrize("point", POINTS)
def test_statistics_count_what_the_loops_count(point: str) -> None:
    layers, inputs, _, decided = by_loops(point, True)
    forward_pass = a_pass(2, 9, detail=True)
    run(layers, inputs, forward_pass)
    assert [stats.layer for stats in forward_pass.stats] == [layer.layer for layer in layers]
    for layer, stats, sequences in zip(layers, forward_pass.stats, decided, strict=True):
        kept = torch.zeros(2, layer.num_experts, dtype=torch.int64)
        weight = torch.zeros(2, layer.num_experts, dtype=torch.float64)
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
        assert stats.tokens == 18


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
