import numpy as np
import pytest
from scipy import stats

from moe_study.analysis.comparison import Asked, measure
from moe_study.analysis.effects.power import detectable_difference, powers
from moe_study.analysis.effects.rows import power_frame
from moe_study.analysis.effects.wording import power_sentence
from moe_study.analysis.statistics import POWER, equivalence_p, power_of_difference, t_test_p
from tests.analysis.test_comparison import seeds, small_frame

STUDIES = 20_000


@pytest.mark.parametrize(("n", "alpha"), [(4, 0.05), (5, 0.05 / 7), (20, 0.01)])
def test_a_detectable_difference_has_the_wanted_power_by_the_noncentral_t(n, alpha):
    found = detectable_difference(0.02, n, alpha)
    assert power_of_difference(found, 0.02, n, alpha) == pytest.approx(POWER, abs=1e-3)
    reach, shift = stats.t.ppf(1 - alpha / 2, n - 1), found * np.sqrt(n) / 0.02
    assert stats.nct.sf(reach, n - 1, shift) + stats.nct.cdf(-reach, n - 1, shift) == pytest.approx(POWER, abs=3e-3)


def test_detectable_differences_scale_with_the_noise_and_are_not_there_for_one_seed():
    assert detectable_difference(0.02, 5, 0.01) == pytest.approx(2 * detectable_difference(0.01, 5, 0.01), rel=1e-3)
    assert np.isnan(detectable_difference(0.02, 1, 0.05)) and np.isnan(detectable_difference(np.nan, 5, 0.05))
    assert detectable_difference(0.0, 5, 0.05) == 0


def test_as_many_seeds_as_said_find_a_margin_and_sameness_within_it_four_times_in_five():
    rows = {"a": seeds(1.0, 1.13, 1.21, 1.28), "b": seeds(1.02, 1.11, 1.22, 1.33)}
    (power, _) = powers(measure(small_frame(rows), [Asked("a", "b", margin=0.05)]), family=3)
    random = np.random.default_rng(0)
    for n, enough in ((power.seeds_to_find, True), (power.seeds_to_find - 1, False)):
        found = np.mean(t_test_p(random.normal(0.05, power.sd, (STUDIES, n))) < 0.05 / 3)
        assert (found > POWER - 0.012) if enough else (found < POWER + 0.012)
    for n, enough in ((power.seeds_for_sameness, True), (power.seeds_for_sameness - 1, False)):
        found = np.mean(equivalence_p(random.normal(0, power.sd, (STUDIES, n)), 0.05) < 0.05 / 3)
        assert (found > POWER - 0.012) if enough else (found < POWER + 0.012)


def test_the_typical_pair_has_the_pooled_noise_and_the_usual_number_of_seeds():
    rows = {"a": seeds(1.0, 1.1, 1.2), "b": seeds(1.0, 1.12, 1.19), "c": seeds(1.3, 1.1, 1.2), "d": seeds(2.0)}
    found = powers(measure(small_frame(rows), [Asked("b", "a"), Asked("c", "a"), Asked("d", "a")]), family=2)
    assert [power.is_typical for power in found] == [False, False, True]  # one pair has no noise
    assert found[-1].sd == pytest.approx(np.sqrt((found[0].sd ** 2 + found[1].sd ** 2) / 2))
    assert found[-1].n == 3 and found[-1].alpha == pytest.approx(0.025)
    said = power_sentence(found[-1])
    assert said.startswith("a typical pair (one of 2 hypotheses, 3 seeds, noise 0.") and "chance of 80%" in said
    frame = power_frame(found)
    assert list(frame["point"]) == ["b", "c", "typical pair"] and frame["detectable"].gt(0).all()
    assert powers(measure(small_frame(rows), [Asked("d", "a")]), family=0) == ()
