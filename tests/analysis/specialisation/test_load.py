from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from moe_study.analysis.specialisation.load import co_activation, committee, load, spread, spread_by_label
from tests.analysis.specialisation import naive
from tests.analysis.specialisation.conftest import random_picks
from tests.analysis.specialisation.planted_routes import planted_trace


@pytest.mark.parametrize("by", ["picks", "gate"])
def test_load_and_its_evenness_agree_with_loops_and_scipy(trace, by):
    expected = np.zeros(trace.experts)
    for _, expert, weight in naive.weights(trace, by):
        expected[expert] += weight
    found = load(trace, by)
    assert found.share_E == pytest.approx(expected / expected.sum(), abs=1e-9)
    assert found.variation == pytest.approx(stats.variation(expected), abs=1e-9)
    assert found.largest_violation == pytest.approx(expected.max() / expected.mean() - 1, abs=1e-9)
    assert found.effective_experts == pytest.approx(np.exp(stats.entropy(expected)), abs=1e-9)


def test_all_to_one_expert_is_as_uneven_as_can_be(random):
    trace = planted_trace(random, experts=8)
    found = load(replace(trace, expert_P=np.full(len(trace.expert_P), 3)))
    assert (found.variation, found.largest_violation) == pytest.approx((np.sqrt(7), 7))
    assert (found.effective_experts, found.unused) == pytest.approx((1, 7))
    empty = replace(
        trace,
        start_T1=np.zeros_like(trace.start_T1),
        expert_P=np.zeros(0, int),
        weight_P=np.zeros(0),
        kept_P=np.zeros(0, bool),
    )
    assert np.isnan(load(empty).variation) and load(empty).unused == 8


def test_spread_leaves_missing_scores_out(random):
    values = random.normal(size=1000)
    found = spread(np.concatenate([values, [np.nan] * 50]))
    assert found.tokens == 1000
    assert (found.mean, found.sd) == pytest.approx((values.mean(), values.std()))
    assert (found.low, found.median, found.high) == pytest.approx(tuple(np.quantile(values, [0.05, 0.5, 0.95])))
    assert np.isnan(spread(np.full(3, np.nan)).mean)


def test_entropy_and_margin_by_label(trace):
    codes_T, names = trace.label("part of speech")
    for of, values_T in (("entropy", trace.entropy_T), ("margin", trace.margin_T)):
        found = spread_by_label(trace, "part of speech", of)
        assert found["verb"].mean == pytest.approx(values_T[codes_T == names.index("verb")].mean())


def test_co_activation_leaves_the_picks_beside_their_weights(random):
    trace = planted_trace(random, "topic", top=2)
    before = trace.expert_P.copy()
    assert np.any(np.diff(before.reshape(-1, 2)) < 0)
    co_activation(trace)
    np.testing.assert_array_equal(trace.expert_P, before)


def test_co_activation_counts_all_pairs(random):
    """A published script counts neighbouring pairs only: 7 of 28."""
    trace = random_picks(planted_trace(random, experts=8), random)
    sets = naive.sets(trace)
    found = co_activation(trace)
    for i, j in combinations(range(8), 2):
        both = sum(i in s and j in s for s in sets)
        assert both > 0 and found.both_EE[i, j] == found.both_EE[j, i] == both
        assert found.given_first_EE[i, j] == pytest.approx(both / sum(i in s for s in sets), abs=1e-9)
        chance = sum(i in s for s in sets) * sum(j in s for s in sets) / sum(len(s) > 0 for s in sets)
        assert found.lift_EE[i, j] == pytest.approx(both / chance, abs=1e-9)
    assert found.both_EE.diagonal().tolist() == [sum(i in s for s in sets) for i in range(8)]


def test_an_expert_that_is_never_picked_comes_along_with_none(random):
    trace = planted_trace(random, experts=3, top=2)
    found = co_activation(replace(trace, experts=4))
    assert np.isnan(found.given_first_EE[3]).all() and np.isnan(found.lift_EE[3]).all()
    assert np.all(found.given_first_EE[:3, 3] == 0)


def test_committee_is_the_pareto_set_by_definition(trace):
    found = committee(trace, "topic")
    codes_T, names = trace.label("topic")
    mass = np.zeros((len(names), trace.experts))
    for token, expert, weight in naive.weights(trace, "gate"):
        if codes_T[token] >= 0:
            mass[codes_T[token], expert] += weight
    share = mass / mass.sum(1, keepdims=True)
    rank = np.array([[1 + sum(other > mine for other in row) for mine in row] for row in share])
    mean, variance = rank.mean(0), rank.var(0)
    present = [e for e in range(trace.experts) if np.mean(share[:, e] >= 0.5 / trace.experts) >= 0.8]
    members = [
        e
        for e in present
        if not any(
            mean[o] <= mean[e] and variance[o] <= variance[e] and (mean[o] < mean[e] or variance[o] < variance[e])
            for o in present
        )
    ]
    assert found.members == tuple(members) and members
    assert found.coverage == pytest.approx(share[:, members].sum(1).mean(), abs=1e-9)


def test_a_planted_committee_is_found_and_specialists_are_not_in_it(random):
    trace = planted_trace(random, experts=5, topics=3, documents=90, length=60)
    topic_T = trace.label("topic")[0]
    member = random.random(len(topic_T)) < 0.6
    trace = replace(trace, expert_P=np.where(member, 0, 1 + topic_T))  # expert 0 for all; 1, 2, 3 for a topic each
    found = committee(trace, "topic")
    assert found.members == (0,) and found.coverage == pytest.approx(0.6, abs=0.03) and found.chance == 0.2
