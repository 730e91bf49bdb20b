"""Balanced clusters of hidden units."""

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from moe_study.posthoc.sparsify.clusters import balanced_clusters, improve, random_clusters


@pytest.mark.parametrize("make", [lambda rows, n: balanced_clusters(rows, n), lambda rows, n: random_clusters(60, n)])
@pytest.mark.parametrize("clusters", [2, 5, 60])
def test_clusters_are_of_equal_size_and_hold_every_unit_once(make, clusters):
    rows_HD = np.random.default_rng(0).normal(size=(60, 7))
    found_CS = make(rows_HD, clusters)
    assert found_CS.shape == (clusters, 60 // clusters)
    assert sorted(found_CS.flatten()) == list(range(60))
    assert np.array_equal(found_CS, make(rows_HD, clusters))  # nothing is left to chance


@pytest.mark.parametrize("seed", range(5))
def test_planted_clusters_are_found_whatever_the_lengths_of_rows(seed):
    draw = np.random.default_rng(seed)
    directions_CD = draw.normal(size=(6, 12))
    planted_H = draw.permutation(np.repeat(np.arange(6), 10))
    rows_HD = directions_CD[planted_H] + 0.2 * draw.normal(size=(60, 12))
    rows_HD *= draw.uniform(0.1, 10, size=(60, 1))
    found_CS = balanced_clusters(rows_HD, 6)
    assert all(len(set(planted_H[units_S])) == 1 for units_S in found_CS)
    mixed = random_clusters(60, 6, seed)
    assert any(len(set(planted_H[units_S])) > 1 for units_S in mixed)


@pytest.mark.parametrize("seed", range(10))
def test_exchanges_come_within_a_few_percent_of_the_exact_balanced_assignment(seed):
    cost_HC = np.random.default_rng(seed).random((48, 6))
    start_H = np.repeat(np.arange(6), 8)
    label_H = improve(cost_HC, start_H)
    assert np.bincount(label_H).tolist() == [8] * 6
    units, slots = linear_sum_assignment(np.repeat(cost_HC, 8, axis=1))
    exact = cost_HC[units, slots // 8].sum()
    start, reached = (cost_HC[np.arange(48), labels].sum() for labels in (start_H, label_H))
    assert exact <= reached + 1e-9
    assert reached - exact < 0.05 * (start - exact)
