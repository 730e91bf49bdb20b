import numpy as np
import pytest
from scipy import stats

from moe_study.analysis.statistics import (
    MOST_SEEDS,
    at_level,
    equivalence_p,
    holm,
    holm_steps,
    interval,
    paired_difference,
    power_of_difference,
    power_of_sameness,
    seeds_needed,
    t_above,
    t_interval,
    t_quantile,
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


@pytest.mark.parametrize("freedom", [1, 2, 3.7, 40])
def test_quantiles_and_tails_are_those_of_scipy_stats_to_the_last_bit(random, freedom):
    t = np.concatenate([random.normal(0, 3, 50), [0.0, np.inf, -np.inf, 300.0]])
    assert np.array_equal(t_above(t, freedom), stats.t.sf(t, freedom))
    for p in (0.5, 0.9, 0.975, 1 - 0.05 / 7, 1 - 1e-9):
        assert t_quantile(p, freedom) == stats.t.ppf(p, freedom)


def test_two_seeds_have_the_wide_interval_of_one_degree_of_freedom():
    found = interval([1.0, 1.2])
    assert found.high - found.mean == pytest.approx(np.tan(0.95 * np.pi / 2) * 0.1)  # Cauchy quantile in closed form


def test_one_value_has_a_mean_and_no_interval():
    found = paired_difference([1.0], [3.0])
    assert found.mean == -2.0 and found.n == 1
    assert all(np.isnan([found.sd, found.low, found.high, found.p]))
    assert np.isnan(equivalence_p([0.0], 1.0))


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


def test_intervals_at_the_levels_of_holm_s_steps_never_contradict_its_verdicts(random):
    called = 0
    for _ in range(300):
        differences = random.normal(random.choice([0, 0.5, 2.0], (7, 1)), 1, (7, 4))
        p = t_test_p(differences)
        adjusted, steps = holm(p), holm_steps(p, 0.05)
        for row, p_adjusted, step in zip(differences, adjusted, steps, strict=True):
            ends = at_level(interval(row), 1 - 0.05 / step)
            assert (p_adjusted < 0.05) == (ends.low * ends.high > 0)
            called += p_adjusted < 0.05
    assert 100 < called < 1500  # both kinds were seen


def test_equivalence_intervals_at_the_levels_of_holm_s_steps_lie_within_the_margin_where_the_same_is_said(random):
    called = 0
    for _ in range(300):
        differences = random.normal(random.choice([0, 0.5], (5, 1)), 0.3, (5, 6))
        p = equivalence_p(differences, 0.8)
        for row, p_adjusted, step in zip(differences, holm(p), holm_steps(p, 0.05), strict=True):
            ends = at_level(interval(row), 1 - 2 * 0.05 / step)
            assert (p_adjusted < 0.05) == (ends.low > -0.8 and ends.high < 0.8)
            called += p_adjusted < 0.05
    assert 100 < called < 1400


def test_holm_s_steps_count_the_hypotheses_that_stood_when_each_was_decided():
    assert holm_steps([0.01, 0.04, 0.03, 0.005], 0.05).tolist() == [3, 2, 2, 4]  # the second two stand
    assert holm_steps([0.5, np.nan, 0.6], 0.05).tolist() == [2, 0, 2]
    assert holm_steps([0.001, 0.002], 0.05).tolist() == [2, 1]
    assert holm_steps([], 0.05).tolist() == []


def test_an_interval_at_another_level_agrees_with_scipy(random):
    values = random.normal(size=5)
    found, reference = at_level(interval(values), 0.994), stats.ttest_1samp(values, 0).confidence_interval(0.994)
    assert (found.low, found.high) == pytest.approx(tuple(reference)) and found.level == 0.994


@pytest.mark.parametrize(("n", "mean"), [(2, 0.7), (4, 0.5), (30, 0.2)])
def test_the_power_to_find_a_difference_is_that_of_simulated_studies_and_of_the_noncentral_t(random, n, mean):
    found = power_of_difference(mean, 0.6, n, 0.05)
    assert within(np.mean(t_test_p(random.normal(mean, 0.6, (STUDIES, n))) < 0.05), found)
    reach, shift = stats.t.ppf(0.975, n - 1), mean * np.sqrt(n) / 0.6
    noncentral = stats.nct.sf(reach, n - 1, shift) + stats.nct.cdf(-reach, n - 1, shift)
    assert found == pytest.approx(noncentral, abs=2e-3)


@pytest.mark.parametrize(("n", "mean"), [(3, 0.0), (5, 0.3), (12, -0.4)])
def test_the_power_to_find_sameness_is_that_of_simulated_studies(random, n, mean):
    found = power_of_sameness(mean, 0.5, n, 1.0, 0.05)
    assert within(np.mean(equivalence_p(random.normal(mean, 0.5, (STUDIES, n)), 1.0) < 0.05), found)


@pytest.mark.parametrize(("mean", "margin"), [(0.5, 0.01), (0.02, 0.6)])
def test_as_many_seeds_as_needed_decide_four_studies_in_five_and_one_fewer_does_not(random, mean, margin):
    n = seeds_needed(mean, 0.6, margin, 0.05 / 6, 0.05 / 3)
    assert 5 < n < 100

    def decided(seeds):
        studies = random.normal(mean, 0.6, (STUDIES, seeds))
        return np.mean((t_test_p(studies) < 0.05 / 6) | (equivalence_p(studies, margin) < 0.05 / 3))

    assert decided(n) > 0.8 - 0.012 and decided(n - 1) < 0.8 + 0.012


def test_what_no_number_of_seeds_decides_is_said_to_be_out_of_reach():
    assert seeds_needed(0.001, 5.0, 0.01, 0.05, 0.05) is None
    assert seeds_needed(np.nan, np.nan, 0.01, 0.05, 0.05) is None
    assert seeds_needed(0.1, 0.0, 0.01, 0.05, 0.05) == 2
    assert seeds_needed(0.0, 0.045, 0.01, 0.05, 0.05) <= MOST_SEEDS


def test_noise_pooled_over_points_covers_too_rarely_where_noises_differ_threefold(random):
    """Why no verdict stands on pooled noise: two of seven points three times as noisy (docs/LOG.md, 2026-11-25)."""
    sd = np.array([3, 3, 1, 1, 1, 1, 1])
    losses = random.normal(0, 1, (STUDIES, 7, 4)) * sd[:, None]
    centred = losses - losses.mean(2, keepdims=True)
    residual = centred - centred.mean(1, keepdims=True)
    pooled = np.sqrt((residual**2).sum((1, 2)) / 18)  # degrees of freedom of points and seeds crossed
    noisy = losses[:, 0] - losses[:, 1]
    covered = np.abs(noisy.mean(1)) < stats.t.ppf(0.975, 18) * pooled * np.sqrt(2 / 4)
    assert np.mean(covered) < 0.85  # the bar is 0.94
    _, _, low, high = t_interval(noisy)
    assert within(np.mean((low < 0) & (high > 0)), 0.95)
