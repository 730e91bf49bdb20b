from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon

from moe_study.analysis.specialisation.domains import divergence, domain_distances, shares
from tests.analysis.specialisation import naive
from tests.analysis.specialisation.planted_routes import planted_trace

MARGIN = 4  # standard errors of a simulated rate


@pytest.mark.parametrize("by", ["picks", "gate"])
@pytest.mark.parametrize("label", ["topic", "part of speech"])
def test_shares_agree_with_loops(trace, label, by):
    codes_T, names = trace.label(label)
    table = np.zeros((len(names), trace.experts))
    for token, expert, weight in naive.weights(trace, by):
        if codes_T[token] >= 0:
            table[codes_T[token], expert] += weight
    found = shares(trace, label, by)
    assert found.share_LE == pytest.approx(table / table.sum(1, keepdims=True), abs=1e-9)
    assert found.tokens_L == pytest.approx(table.sum(1), abs=1e-9)
    assert found.lift_LE == pytest.approx(
        (table / table.sum(1, keepdims=True)) / (table.sum(0) / table.sum()), abs=1e-9
    )


def test_a_domain_without_tokens_has_no_shares(random):
    trace = planted_trace(random)
    codes_D, _ = trace.document_labels["topic"]
    found = shares(replace(trace, document_labels={"topic": (codes_D, ("a", "b", "c", "never"))}), "topic")
    assert np.isnan(found.share_LE[3]).all() and not np.isnan(found.share_LE[:3]).any()
    assert np.isnan(found.lift_LE[3]).all() and not np.isnan(found.lift_LE[:3]).any()


def test_distances_agree_with_scipy(trace, random):
    p, q = random.random((2, 50, 6)) * (random.random((2, 50, 6)) < 0.7) + 1e-12
    expected = [jensenshannon(a, b, base=2) ** 2 for a, b in zip(p, q, strict=True)]
    assert divergence(p, q) == pytest.approx(expected, abs=1e-9)

    share_LE = shares(trace, "topic").share_LE
    found = domain_distances(trace, "topic", resamples=100)
    _, names = trace.label("topic")
    assert [(each.first, each.second) for each in found] == list(combinations(names, 2))
    for each, (a, b) in zip(found, combinations(share_LE, 2), strict=True):
        assert each.plug_in == pytest.approx(jensenshannon(a, b, base=2), abs=1e-9)
        assert each.low <= each.distance <= each.high


def test_planted_distances_stand_out_from_the_floor_and_tastes_of_documents_do_not(random):
    (far,) = domain_distances(planted_trace(random, "language", strength=2.0, taste=0.5, documents=80), "language")
    assert far.low > far.floor > 0 and far.p < 0.01
    reject = [
        domain_distances(planted_trace(random, taste=1.0), "language", resamples=99, seed=n)[0].p <= 0.05
        for n in range(200)
    ]
    assert np.mean(reject) < 0.05 + MARGIN * np.sqrt(0.05 * 0.95 / 200)


def test_split_halves_are_as_far_apart_as_two_samples_of_one_domain(random):
    found = [domain_distances(planted_trace(random, taste=1.0, documents=60), "language", seed=n)[0] for n in range(60)]
    floor, plug_in = np.mean([[each.floor**2, each.plug_in**2] for each in found], axis=0)
    assert floor == pytest.approx(plug_in, rel=0.25)


def test_domains_of_fewer_than_two_documents_are_left_out(random):
    trace = planted_trace(random)
    codes_D = np.zeros(trace.documents, dtype=int)
    codes_D[0], codes_D[1:5] = 1, 2
    found = domain_distances(replace(trace, document_labels={"x": (codes_D, ("a", "lone", "b"))}), "x", resamples=50)
    assert [(each.first, each.second, each.documents) for each in found] == [("a", "b", (trace.documents - 5, 4))]


def population(random, base_LE, documents, taste):
    """A trace with a domain for each row of base logits."""
    domains, experts = base_LE.shape
    made = planted_trace(random, documents=documents * domains, experts=experts)
    domain_D = np.repeat(np.arange(domains), documents)
    logits_TE = (base_LE[domain_D] + taste * random.normal(size=(len(domain_D), experts)))[made.document_T]
    expert_P = (logits_TE + random.gumbel(size=logits_TE.shape)).argmax(1)
    names = tuple(f"domain {n}" for n in range(domains))
    return replace(made, expert_P=expert_P, document_labels={"domain": (domain_D, names)})


def coverage(simulations, resamples, documents=40, taste=1.0):
    """(rates by pair at which the interval holds the true distance, the true distances)."""
    base_LE = np.random.default_rng(5).normal(size=(3, 6)) * 1.2
    random = np.random.default_rng(17)
    truth = shares(population(random, base_LE, 10_000, taste), "domain").share_LE
    true = [jensenshannon(a, b, base=2) for a, b in combinations(truth, 2)]
    holds = []
    for n in range(simulations):
        trace = population(random, base_LE, documents, taste)
        found = domain_distances(trace, "domain", resamples=resamples, seed=n)
        holds.append([each.low <= t <= each.high for each, t in zip(found, true, strict=True)])
    return np.mean(holds, axis=0), true


@pytest.mark.long
def test_intervals_over_documents_hold_the_true_distance():
    rates, true = coverage(40, 100)
    assert min(true) > 0.2
    assert np.all(rates > 0.95 - MARGIN * np.sqrt(0.95 * 0.05 / 40))


@pytest.mark.simulation
@pytest.mark.timeout(3600)
def test_intervals_over_documents_hold_the_true_distance_in_93_to_97_of_100():
    rates, _ = coverage(1000, 500)
    assert 0.93 <= rates.mean() <= 0.97
