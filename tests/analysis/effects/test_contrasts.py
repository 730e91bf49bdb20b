import itertools
import warnings

import numpy as np
import pandas as pd
import pytest

from moe_study.analysis.comparison import Verdict, as_one_family
from moe_study.analysis.effects.contrasts import contrasts_of, distinct_contrasts, effects
from moe_study.analysis.effects.grids import Factor, Grid, find_grids
from moe_study.analysis.effects.rows import effects_frame
from moe_study.analysis.effects.wording import effect_sentence
from moe_study.analysis.statistics import interval
from tests.analysis.effects.studies import PLAIN, losses, product

KS, NS = ["1", "2", "3"], ["4", "8"]


def grid_of(levels=(KS, NS), names=("routing.k", "routing.num_experts"), blocks=("",), without=()):
    """A grid whose labels are levels, joined by _."""
    factors = tuple(Factor((name,), tuple(own)) for name, own in zip(names, levels, strict=True))
    cells = {
        (block, *cell): "_".join([*cell, block]).strip("_") for block in blocks for cell in itertools.product(*levels)
    }
    return Grid(factors, {cell: label for cell, label in cells.items() if label not in without})


def random_losses(labels, seeds=5, rng=0):
    return losses({label: np.random.default_rng(rng + i).normal(4, 0.1, seeds) for i, label in enumerate(labels)})


def by_change(found):
    return {tuple((c.before, c.after) for c in effect.contrast.changes): effect for effect in found}


def test_main_effects_are_means_of_differences_seed_by_seed():
    blocks = ("a", "b")
    grid = Grid(
        (Factor(("routing.k",), ("1", "2")),),
        {(block, k): f"{k}_{block}" for block in blocks for k in ("1", "2")},
    )
    loss = random_losses(grid.points)
    (found,) = effects(contrasts_of(grid), loss)
    by_hand = [np.mean([loss.at[f"2_{b}", s] - loss.at[f"1_{b}", s] for b in blocks]) for s in loss]
    reference = interval(by_hand)
    assert (found.difference.mean, found.difference.low, found.difference.n) == pytest.approx(
        (reference.mean, reference.low, 5)
    )
    assert found.contrast.over == 2 and found.seeds == (0, 1, 2, 3, 4) and not found.is_interaction


def test_interactions_are_differences_of_differences_seed_by_seed():
    grid = grid_of()
    loss = random_losses(grid.points)
    found = by_change(effects(contrasts_of(grid), loss))
    assert len(found) == 2
    effect = found[("k 1", "k 3"), ("num_experts 4", "num_experts 8")]
    by_hand = [(loss.at["3_8", s] - loss.at["1_8", s]) - (loss.at["3_4", s] - loss.at["1_4", s]) for s in loss]
    assert effect.difference.mean == pytest.approx(np.mean(by_hand))
    assert effect.difference.sd == pytest.approx(np.std(by_hand, ddof=1))


@pytest.fixture(scope="module")
def mixed_model():
    """Point estimates of a mixed model with seeds as random intercepts: the oracle for balanced studies."""
    smf = pytest.importorskip("statsmodels.formula.api")

    def fit(loss, formula):
        rows = [
            {"k": label.split("_")[0], "n": label.split("_")[1], "seed": seed, "loss": loss.at[label, seed]}
            for label in loss.index
            for seed in loss
        ]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a variance of seeds that is estimated as 0
            return smf.mixedlm(formula, pd.DataFrame(rows), groups="seed").fit()

    return fit


def test_estimates_agree_with_a_mixed_model_with_seeds_as_blocks(mixed_model):
    settings = product(k=[1, 2], num_experts=[4, 8])
    seed_effect = np.random.default_rng(5).normal(0, 0.05, 5)
    loss = random_losses(settings, rng=3) + seed_effect
    loss.loc["2_8"] -= 0.3
    found = {e.name: e for e in effects(distinct_contrasts(find_grids(settings, PLAIN)), loss)}
    whole = mixed_model(loss, "loss ~ C(k) * C(n)").fe_params
    assert found["k x num_experts"].difference.mean == pytest.approx(whole["C(k)[T.2]:C(n)[T.8]"], abs=1e-6)
    sums = mixed_model(loss, "loss ~ C(k, Sum) * C(n, Sum)").fe_params  # half of each effect
    assert found["k"].difference.mean == pytest.approx(-2 * sums["C(k, Sum)[S.1]"], abs=1e-6)
    assert found["num_experts"].difference.mean == pytest.approx(-2 * sums["C(n, Sum)[S.4]"], abs=1e-6)


def test_t_intervals_of_effects_are_wider_than_the_z_intervals_of_a_mixed_model(mixed_model):
    settings = product(k=[1, 2], num_experts=[4, 8])
    loss = random_losses(settings, seeds=4, rng=11)
    (found,) = (e for e in effects(distinct_contrasts(find_grids(settings, PLAIN)), loss) if e.is_interaction)
    half = 1.96 * found.difference.sd / 2  # the normal quantile with the same standard error
    assert found.difference.high - found.difference.mean > 1.5 * half
    assert mixed_model(loss, "loss ~ C(k) * C(n)").fe_params is not None


def test_what_seeds_share_cancels():
    grid = grid_of()
    loss = random_losses(grid.points)
    shifted = loss + np.array([0, 1, -2, 3, 5.0])
    for one, other in zip(effects(contrasts_of(grid), loss), effects(contrasts_of(grid), shifted), strict=True):
        assert one.difference.mean == pytest.approx(other.difference.mean)
        assert one.difference.sd == pytest.approx(other.difference.sd)


def test_missing_cells_are_named_and_never_filled_in():
    grid = grid_of(blocks=("x", "y"), without=("3_8_y",))
    found = by_change(effects(contrasts_of(grid), random_losses(grid.points)))
    whole = found[("k 1", "k 2"), ("num_experts 4", "num_experts 8")]
    part = found[("k 1", "k 3"), ("num_experts 4", "num_experts 8")]
    assert (whole.contrast.over, part.contrast.over) == (2, 1)
    assert set(part.points) == {"3_8_x", "1_8_x", "3_4_x", "1_4_x"}
    assert part.missing == ("k 3 with num_experts 8 (y)",)
    assert effect_sentence(part).endswith("[no point has k 3 with num_experts 8 (y)]")


def test_a_level_that_never_meets_the_first_is_compared_with_the_first_that_it_meets():
    cells = {("x", "a"): "ax", ("x", "b"): "bx", ("y", "c"): "cy", ("y", "d"): "dy"}
    grid = Grid((Factor(("routing.gate",), ("a", "b", "c", "d")),), cells)
    changes = [(c.changes[0].before, c.changes[0].after) for c in contrasts_of(grid)]
    assert changes == [("gate a", "gate b"), ("gate c", "gate d")]


def test_a_seed_that_lacks_a_run_has_no_value_and_points_without_runs_have_none():
    grid = grid_of(levels=(["1", "2"], NS))
    loss = random_losses(grid.points)
    loss.loc["2_4", 3] = np.nan
    (found,) = effects(contrasts_of(grid), loss)
    assert found.seeds == (0, 1, 2, 4)
    (absent,) = effects(contrasts_of(grid), loss.drop("2_4"))
    assert absent.verdict is Verdict.NO_PAIR and "no seed with a result of every point" in effect_sentence(absent)


def test_effects_of_leaking_points_are_marked():
    grid = grid_of(levels=(["1", "2"], NS))
    (found,) = effects(contrasts_of(grid), random_losses(grid.points), frozenset({"2_8"}))
    assert found.leaks and effect_sentence(found).startswith("k x num_experts †: ")


def test_sentences_say_what_the_tests_carry():
    grid = grid_of(levels=(["1", "2"], NS))
    noise = {"1_4": [0, 1, 2, 3.0], "1_8": [0, 1.001, 2, 3], "2_4": [0, 1, 2.001, 3], "2_8": [0, 1, 2, 3.001]}
    contrasts = list(contrasts_of(grid))
    (same,) = as_one_family(effects(contrasts, losses(noise), margin=0.01))
    assert same.verdict is Verdict.SAME
    assert "the change from k 1 to k 2 is the same within 0.01 nats per token at num_experts 8 and" in effect_sentence(
        same
    )
    apart = {**noise, "2_8": [-0.5, 0.501, 1.5, 2.499]}
    (found,) = as_one_family(effects(contrasts, losses(apart), margin=0.01))
    assert found.verdict is Verdict.LOWER
    assert "is lower by 0.5" in effect_sentence(found) and "than at num_experts 4" in effect_sentence(found)
    (unclear,) = as_one_family(effects(contrasts, random_losses(grid.points, seeds=3), margin=0.01))
    assert unclear.verdict is Verdict.UNCLEAR and "seeds" in effect_sentence(unclear)
    (one,) = effects(contrasts, random_losses(grid.points, seeds=1))
    assert one.verdict is Verdict.ONE_PAIR and "at one seed, so this may be chance" in effect_sentence(one)
    (described,) = effects(contrasts, losses(noise))
    assert "not planned, so not tested" in effect_sentence(described)


def test_the_smaller_of_two_grids_says_nothing_twice():
    settings = product(k=[1, 2], num_experts=[4, 8], gate=["softmax_then_pick", "sigmoid"])
    found = distinct_contrasts(find_grids(settings, PLAIN))
    names = {frozenset(c.name.split(" x ")) for c in found}
    crossed = ("k", "num_experts", "gate")
    assert len(found) == len(names) == 6 and names == {frozenset((a, b)) for a in crossed for b in crossed}
    assert all(c.over == (2 if c.is_interaction else 4) for c in found)


def test_rows_hold_levels_counts_and_sentences():
    grid = grid_of(levels=(["1", "2"], NS))
    frame = effects_frame(effects(contrasts_of(grid), random_losses(grid.points)))
    row = frame.iloc[0]
    assert (row["kind"], row["before"], row["after"]) == ("interaction", "k 1", "k 2")
    assert (row["at_before"], row["at_after"], row["n"], row["over"]) == ("num_experts 4", "num_experts 8", 5, 1)
    assert row["sentence"] and set(row["points"].split("; ")) == set(grid.points)
