import numpy as np
import pytest
from scipy import stats

from moe_study.analysis.statistics import (
    equivalence_p,
    holm,
    interval,
    minimum_detectable_difference,
    paired_difference,
    pooled_noise,
    t_interval,
    t_test_p,
)

STUDIES = 20_000


@pytest.fixture
def random():
    return np.random.default_rng(7)


def within(rate, expected, studies=STUDIES):
    """Four standard errors of a simulated rate."""
    return abs(rate - expected) < 4 * np.sqrt(expected * (1 - expected) / studies)


@pytest.mark.parametrize("n", [2, 3, 8])
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_interval_and_p_agree_with_scipy(random, n, level):
    values = random.normal(0.3, 2.0, n)
    ours = interval(values, level)
    reference = stats.ttest_1samp(values, 0)
    assert (ours.low, ours.high) == pytest.approx(tuple(reference.confidence_interval(level)))
    assert t_test_p(values) == pytest.approx(reference.pvalue)
    assert (ours.mean, ours.sd) == pytest.approx((np.mean(values), np.std(values, ddof=1)))


def test_two_seeds_have_the_wide_interval_of_one_degree_of_freedom():
    found = interval([1.0, 1.2])
    assert found.high - found.mean == pytest.approx(np.tan(0.95 * np.pi / 2) * 0.1)  # Cauchy quantile in closed form


def test_one_value_has_a_mean_and_no_interval():
    found = paired_difference([1.0], [3.0])
    assert found.mean == -2.0 and found.n == 1
    assert all(np.isnan([found.sd, found.low, found.high, found.p]))
    assert np.isnan(equivalence_p([0.0], 1.0))
    assert np.isnan(minimum_detectable_difference(0.1, 1))


def test_no_value_has_no_mean():
    assert np.isnan(paired_difference([], []).mean)
    assert not paired_difference([], []).same_sign


@pytest.mark.parametrize("n", [2, 3, 5])
def test_interval_covers_the_truth_as_often_as_it_says(random, n):
    truth = 0.25
    _, _, low, high = t_interval(random.normal(truth, 1.7, (STUDIES, n)), 0.9)
    assert within(np.mean((low <= truth) & (truth <= high)), 0.9)


def test_what_seeds_share_cancels_in_paired_differences(random):
    common = random.normal(0, 1.0, (STUDIES, 4))
    a = common + random.normal(0.1, 0.05, (STUDIES, 4))
    b = common + random.normal(0.0, 0.05, (STUDIES, 4))
    _, _, low, high = t_interval(a - b)
    assert within(np.mean((low <= 0.1) & (high >= 0.1)), 0.95)
    unpaired = stats.ttest_ind(a, b, axis=1).confidence_interval()
    assert np.median(high - low) < 0.1 * np.median(unpaired.high - unpaired.low)


def test_paired_difference_agrees_with_scipy(random):
    a, b = random.normal(size=6), random.normal(size=6)
    found, reference = paired_difference(a, b), stats.ttest_rel(a, b)
    assert found.p == pytest.approx(reference.pvalue)
    assert (found.low, found.high) == pytest.approx(tuple(reference.confidence_interval(0.95)))


def test_pairs_of_different_length_are_refused():
    with pytest.raises(ValueError, match="as many values"):
        paired_difference([1.0, 2.0], [1.0])


@pytest.mark.parametrize("n", [2, 3, 6])
@pytest.mark.parametrize("truth", [-0.1, 0.1])
def test_equivalence_test_keeps_its_size_at_the_margin(random, n, truth):
    # The margin is many standard errors wide, so the test is exact there, and not merely below 5 %.
    p = equivalence_p(random.normal(truth, 0.004, (STUDIES, n)), 0.1)
    assert within(np.mean(p < 0.05), 0.05)


def test_equivalence_is_found_where_it_holds_and_rarely_where_noise_hides_it(random):
    assert np.mean(equivalence_p(random.normal(0, 0.01, (STUDIES, 5)), 0.1) < 0.05) > 0.99
    assert np.mean(equivalence_p(random.normal(0, 1.0, (STUDIES, 5)), 0.1) < 0.05) < 0.05


def test_equivalence_p_is_the_larger_of_two_one_sided_tests(random):
    values = random.normal(0.02, 0.05, 5)
    above = stats.ttest_1samp(values, -0.1, alternative="greater").pvalue
    below = stats.ttest_1samp(values, 0.1, alternative="less").pvalue
    assert equivalence_p(values, 0.1) == pytest.approx(max(above, below))


def test_equivalence_needs_a_margin():
    with pytest.raises(ValueError, match="margin"):
        equivalence_p([0.0, 0.1], 0)


def test_identical_runs_are_no_difference_and_equal_shifts_are_one():
    assert t_test_p([0.0, 0.0]) == 1
    assert t_test_p([0.5, 0.5]) == 0
    assert equivalence_p([0.0, 0.0], 0.1) == 0
    assert equivalence_p([0.5, 0.5], 0.1) == 1


def test_holm_on_the_textbook_case():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == pytest.approx([1.0, 1.0])


def test_holm_leaves_untested_ones_out_of_the_family():
    adjusted = holm([0.01, np.nan, 0.04])
    assert adjusted[[0, 2]] == pytest.approx([0.02, 0.04]) and np.isnan(adjusted[1])
    assert len(holm([])) == 0


def test_holm_keeps_the_family_error_under_five_percent(random):
    p = t_test_p(random.normal(0, 1, (2000, 6, 3)))
    any_called = np.mean([holm(row).min() < 0.05 for row in p])
    assert any_called < 0.05 + 4 * np.sqrt(0.05 * 0.95 / 2000)


@pytest.mark.parametrize("n", [2, 3, 10])
def test_the_detectable_difference_is_found_as_often_as_promised(random, n):
    difference = minimum_detectable_difference(0.7, n, power=0.8)
    assert within(np.mean(t_test_p(random.normal(difference, 0.7, (STUDIES, n))) < 0.05), 0.8)


def test_pooled_noise_is_the_residual_of_a_two_way_table(random):
    losses = random.normal(size=(5, 3))
    effects = np.linalg.matrix_rank(design := _two_way(5, 3))
    residual = losses.ravel() - design @ np.linalg.lstsq(design, losses.ravel(), rcond=None)[0]
    found = pooled_noise(losses)
    assert found.degrees == losses.size - effects == 8
    assert found.sd == pytest.approx(np.sqrt(residual @ residual / 8))


def test_pooled_intervals_cover_and_are_narrower_than_those_of_one_pair(random):
    studies, covered, narrower = 3000, 0, 0
    for _ in range(studies):
        losses = random.normal(0, 1, (6, 2)) + random.normal(0, 5, 2) + np.arange(6)[:, None]
        half = pooled_noise(losses).half_width(2)
        pair = interval(losses[3] - losses[0])
        covered += abs(pair.mean - 3) <= half
        narrower += 2 * half < pair.high - pair.low
    assert within(covered / studies, 0.95, studies)
    assert narrower / studies > 0.6


def test_a_missing_run_costs_pooled_noise_one_degree_and_a_whole_table_agrees_with_the_closed_form(random):
    losses = random.normal(size=(5, 3))
    centred = losses - losses.mean(axis=1, keepdims=True) - losses.mean(axis=0) + losses.mean()
    assert pooled_noise(losses).sd == pytest.approx(np.sqrt((centred**2).sum() / 8))
    losses[2, 1] = np.nan
    assert pooled_noise(losses).degrees == 7


def test_pooled_p_agrees_with_its_interval(random):
    noise = pooled_noise(random.normal(size=(6, 2)))
    assert noise.p(noise.half_width(2, 0.9), 2) == pytest.approx(0.1)
    assert noise.p(0.0, 2) == 1


def test_nothing_is_pooled_from_one_seed():
    assert pooled_noise(np.ones((4, 1))).degrees == 0
    assert np.isnan(pooled_noise(np.ones((4, 1))).half_width(1))


def _two_way(points, seeds):
    point = np.repeat(np.arange(points), seeds)
    seed = np.tile(np.arange(seeds), points)
    return np.hstack([np.eye(points)[point], np.eye(seeds)[seed]])
