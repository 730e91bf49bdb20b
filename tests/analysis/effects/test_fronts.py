import itertools

import numpy as np
import pytest

from moe_study.analysis.effects.costs import DESCRIBED, Cost
from moe_study.analysis.effects.fronts import front, front_shares, on_front, resamples
from moe_study.analysis.effects.wording import front_sentences
from moe_study.analysis.statistics import interval
from tests.analysis.effects.studies import costs, losses


def naive_front(cost, loss):
    """A point is on the front unless another costs no more, loses no more, and is better in one."""
    return [
        not any(
            cost[j] <= cost[i] and loss[j] <= loss[i] and (cost[j] < cost[i] or loss[j] < loss[i])
            for j in range(len(cost))
        )
        for i in range(len(cost))
    ]


def test_the_front_agrees_with_two_plain_loops():
    random = np.random.default_rng(1)
    for _ in range(200):
        cost, loss = random.integers(1, 6, 7).astype(float), random.integers(1, 6, 7).astype(float)
        assert on_front(cost, loss).tolist() == naive_front(cost, loss)


@pytest.mark.parametrize("seeds", [2, 3, 4])
def test_shares_count_every_resample_of_seeds(seeds):
    random = np.random.default_rng(seeds)
    cost, loss = np.array([1.0, 2.0, 2.0, 3.0, 5.0]), random.normal(0, 1, (5, seeds))
    every = [
        naive_front(cost, loss[:, list(own)].mean(axis=1)) for own in itertools.product(range(seeds), repeat=seeds)
    ]
    assert front_shares(cost, loss) == pytest.approx(np.mean(every, axis=0))


def test_many_seeds_are_resampled_at_random_and_the_same_each_time():
    counts, weights = resamples(9)
    assert counts.shape[1] == 9 and (counts.sum(axis=1) == 9).all() and weights.sum() == pytest.approx(1)
    assert (resamples(9)[0] == counts).all()
    exact, probability = resamples(3)
    assert len(exact) == 10 and probability.sum() == pytest.approx(1)


def test_leaking_points_and_those_that_lack_seeds_are_set_apart_and_beat_nobody():
    rows = {"a": [4.0, 4.1], "b": [3.9, 4.0], "leaks": [1.0, 1.1], "lacks": [2.0, np.nan], "worse": [5.0, 5.1]}
    standings = {"a": "ranked", "b": "ranked", "leaks": "reads later tokens", "lacks": "lacks seeds", "worse": "ranked"}
    known = costs(a=1, b=2, leaks=1, lacks=1, worse=3)
    found = front(Cost.FLOPS, losses(rows), known, standings, "ranked")
    assert [p.label for p in found.on_front] == ["a", "b"] and {p.label for p in found.apart} == {"leaks", "lacks"}
    by_label = {p.label: p for p in found.points}
    assert by_label["worse"].beaten_by == "b" and by_label["worse"].share == 0
    assert np.isnan(by_label["leaks"].share) and not by_label["leaks"].on_front
    assert by_label["lacks"].loss.n == 1
    assert by_label["a"].loss == interval([4.0, 4.1]) and found.seeds == (0, 1)


def test_costs_by_which_the_same_points_are_on_the_front_share_a_line():
    rows = {"a": [4.0, 4.1], "b": [3.9, 3.8], "c": [3.95, 3.9]}
    known, standings = costs(a=(1, 1), b=(2, 9), c=(3, 8)), dict.fromkeys("abc", "ranked")
    fronts = [front(cost, losses(rows), known, standings, "ranked") for cost in DESCRIBED]
    said = front_sentences(fronts)
    assert said[0] == "by total parameters, active parameters and executed training FLOPs: a (100%); b (100%)"
    assert said[1].startswith("by training time: a (") and "c (" in said[1]


def test_one_seed_gives_a_front_without_shares():
    found = front(
        Cost.FLOPS, losses({"a": [4.0], "b": [3.0]}), costs(a=1, b=2), dict.fromkeys("ab", "ranked"), "ranked"
    )
    assert front_sentences([found]) == ["by executed training FLOPs: a; b"]
