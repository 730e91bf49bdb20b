from collections import defaultdict
from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
from scipy import stats

from moe_study.analysis.specialisation.agreement import (
    agreement_with_label,
    best_expert,
    match_experts,
    paths,
    relabelled,
    saturation,
    shares_over_seeds,
)
from moe_study.analysis.specialisation.domains import shares
from moe_study.errors import DataError
from tests.analysis.specialisation import naive
from tests.analysis.specialisation.conftest import random_picks
from tests.analysis.specialisation.planted_routes import planted_trace


def test_saturation_agrees_with_sets(trace, random):
    earlier = random_picks(trace, random)
    pairs = [(now, last) for now, last in zip(naive.sets(earlier), naive.sets(trace), strict=True) if last]
    found = saturation(earlier, trace)
    assert found.overlap == pytest.approx(np.mean([len(now & last) / len(last) for now, last in pairs]), abs=1e-9)
    loads = [np.mean([e in s for s in naive.sets(earlier)]) for e in range(trace.experts)]
    expected = np.mean([sum(loads[e] for e in last) / len(last) for _, last in pairs])
    assert found.chance == pytest.approx(expected, abs=1e-9)
    assert found.overlap == pytest.approx(found.chance, abs=0.06)  # picks at random
    assert saturation(trace, trace).overlap == 1


def test_best_expert_is_the_heaviest_pick(trace):
    for token, best in enumerate(best_expert(trace)):
        span = slice(trace.start_T1[token], trace.start_T1[token + 1])
        if span.start == span.stop:
            assert best == -1
        else:
            assert best == trace.expert_P[span][np.argmax(trace.weight_P[span])]


def test_paths_are_counted_as_tuples_are(trace, random):
    layers = [trace, random_picks(trace, random), relabelled(trace, random.permutation(trace.experts))]
    best = [path for path in zip(*(best_expert(layer).tolist() for layer in layers), strict=True) if min(path) >= 0]
    found = paths(layers)
    assert (found.tokens, found.distinct) == (len(best), len(set(best)))
    counts = [best.count(path) for path in set(best)]
    assert found.entropy == pytest.approx(stats.entropy(counts), abs=1e-9)
    marginals = [stats.entropy(np.bincount(column)) for column in zip(*best, strict=True)]
    assert found.sum_of_entropies == pytest.approx(sum(marginals), abs=1e-9)
    # The third layer repeats the first, so fewer paths than of independent layers: sum of 1 - (1 - p)^T.
    shares_of = [np.bincount(column, minlength=4) / len(best) for column in zip(*best, strict=True)]
    p = np.einsum("i,j,k->ijk", *shares_of)
    assert found.distinct_if_independent == pytest.approx((1 - (1 - p) ** len(best)).sum(), rel=0.02)
    assert found.distinct < found.distinct_if_independent
    assert found.total_correlation > 10 * found.correlation_if_independent > 0


def test_agreement_is_the_best_of_all_one_to_one_matchings(trace):
    codes_D, _ = trace.document_label("topic")
    table = np.zeros((3, trace.experts))
    for token, expert, weight in naive.weights(trace):
        if codes_D[trace.document_T[token]] >= 0:
            table[codes_D[trace.document_T[token]], expert] += weight
    best = max(sum(table[label, expert] for label, expert in enumerate(p)) for p in permutations(range(4), 3))
    found = agreement_with_label(trace, codes_D, permutations=50)
    assert found.share == pytest.approx(best / table.sum(), abs=1e-9)
    assert found.share <= found.bound <= 1


def test_the_label_router_reaches_its_bound_and_chance_does_not(random):
    trace = planted_trace(random, taste=1.0, topics=6, experts=4, documents=60)
    topic_D, _ = trace.document_label("topic")
    oracle = replace(trace, expert_P=(topic_D % 4)[trace.document_T])
    ours = agreement_with_label(oracle, topic_D, permutations=199)
    tokens = np.sort(np.bincount(topic_D))[::-1] / 60
    assert ours.bound == pytest.approx(tokens[:4].sum())
    assert ours.share > ours.chance and ours.p == 1 / 200
    told = agreement_with_label(oracle, topic_D % 4, permutations=199)  # beside the label router's experts
    assert told.share == told.bound == 1
    assert agreement_with_label(trace, topic_D, permutations=199).p > 0.01
    assert agreement_with_label(planted_trace(random, top=2), np.arange(40) % 2, permutations=9).bound == 0.5


def test_experts_of_another_seed_are_matched_whatever_their_numbers(trace, random):
    order_E = random.permutation(trace.experts)
    found = match_experts(trace, relabelled(trace, order_E))
    assert found.other_of_reference_E.tolist() == order_E.tolist()
    overlap = np.zeros((4, 4))
    other = random_picks(trace, random)
    theirs = defaultdict(list)
    for token, expert, weight in naive.weights(other):
        theirs[token].append((expert, weight))
    for token, i, weight in naive.weights(trace):
        for j, other_weight in theirs[token]:
            overlap[i, j] += weight * other_weight
    best = max(sum(overlap[i, j] for i, j in enumerate(p)) for p in permutations(range(4)))
    assert match_experts(trace, other).share == pytest.approx(best / overlap.sum(), abs=1e-9)


def test_shares_over_seeds_are_of_matched_experts(random):
    trace = planted_trace(random, "topic", strength=3.0, experts=3)
    seeds = [trace, *(relabelled(trace, random.permutation(3)) for _ in range(3))]
    found = shares_over_seeds(seeds, "topic")
    assert found.mean_LE == pytest.approx(shares(trace, "topic").share_LE)
    assert found.high_LE == pytest.approx(found.low_LE)
    assert all(matching.share > matching.chance for matching in found.matchings)
    noise = [planted_trace(np.random.default_rng(0), experts=3) for _ in range(2)]
    random_routes = replace(noise[1], expert_P=random.integers(3, size=len(noise[1].expert_P)))
    matching = match_experts(noise[0], random_routes)
    assert matching.share == pytest.approx(matching.chance, abs=0.05)


def test_routes_over_different_tokens_are_not_compared(random):
    first, second = planted_trace(random), planted_trace(random)
    for compare in (saturation, match_experts, lambda a, b: paths([a, b])):
        with pytest.raises(DataError, match="over the same tokens only"):
            compare(first, second)
    with pytest.raises(DataError, match="4 experts cannot be matched one to one with 5"):
        match_experts(first, replace(first, experts=5))
