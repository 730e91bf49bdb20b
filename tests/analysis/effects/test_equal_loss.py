"""Cost at equal loss: closed forms of planted curves, sets against a fine grid of t intervals, words, coverage."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from moe_study.analysis.effects.costs import Cost
from moe_study.analysis.effects.equal_cost import Refused
from moe_study.analysis.effects.equal_loss import ABOVE, BELOW, SAME, AskedReach, Crossing, at_equal_loss, sides_of
from moe_study.analysis.effects.equal_loss_wording import equal_loss_frame, equal_loss_sentence, share_text
from moe_study.analysis.tables_out import cells_of
from tests.analysis.effects.studies import costs, losses

CURVE = ("c1", "c2", "c4")
COSTS = costs(c1=1e6, c2=2e6, c4=4e6, p=5e6)
SEEDS = np.array([0.3, -0.1, 0.0, 0.2])  # what a seed does to every run


def asked(points=CURVE, cost=Cost.FLOPS, **more):
    return AskedReach(cost, tuple(points), "p", **more)


def only(loss, known=COSTS, request=None, **more):
    (found,) = at_equal_loss([request or asked()], losses(loss), known, **more)
    return found


def planted(*means, noise=None):
    """Losses of CURVE and of p, whose loss is what each seed does to every run."""
    noise = np.zeros((len(means), len(SEEDS))) if noise is None else noise
    rows = {label: mean + own + SEEDS for label, mean, own in zip(CURVE, means, noise, strict=True)}
    return {**rows, "p": 0 + SEEDS}


# The estimate ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("crosses_at", [1.1e6, 1.9e6, 2.0e6, 3.3e6, 4.0e6])
def test_a_power_law_is_crossed_where_it_has_the_point_s_loss(crosses_at):
    gaps = [-0.2 * math.log(cost / crosses_at) for cost in (1e6, 2e6, 4e6)]
    found = only(planted(*gaps))
    assert found.crossing is Crossing.ON and found.share == pytest.approx(crosses_at / 5e6, rel=1e-6)
    assert (found.low, found.high) == pytest.approx((found.share, found.share), rel=1e-5) or crosses_at == 4.0e6
    assert found.falls and len(found.pieces) == 1
    assert found.bent == pytest.approx([found.share] * len(found.bent), rel=1e-6)  # a line is a parabola without a bend


def test_a_parabola_is_crossed_exactly_where_it_is_said_to_bend():
    x = np.log([1e6, 2e6, 4e6])
    root = np.log(3e6)  # gaps are (x - root)(x - further): a curve that falls ever less
    gaps = 0.1 * (x - root) * (x - (root + 2))
    found = only(planted(*gaps))
    assert found.bent == pytest.approx((3e6 / 5e6,)) and found.share > found.bent[0]
    assert [place.labels for place in found.between] == [("c2",), ("c4",)]


def test_the_place_is_a_share_of_the_point_s_own_cost_whatever_seeds_do_to_both():
    random = np.random.default_rng(1)
    loss = planted(0.3, 0.1, -0.1, noise=random.normal(0, 0.01, (3, 4)))
    shifted = {label: values + np.array([1.0, -2.0, 3.0, 0.5]) for label, values in loss.items()}
    one, other = only(loss), only(shifted)
    assert (one.share, one.low, one.high) == pytest.approx((other.share, other.low, other.high))
    twice = only(loss, costs(c1=1e6, c2=2e6, c4=4e6, p=10e6))
    assert twice.share == pytest.approx(one.share / 2) and twice.low == pytest.approx(one.low / 2)


@pytest.mark.parametrize(
    ("means", "crossing", "low", "high", "said"),
    [
        ((-0.1, -0.2, -0.3), Crossing.BEFORE, 0, 0.2, "takes less than 0.200 of the executed training FLOPs of p"),
        ((0.3, 0.2, 0.1), Crossing.BEYOND, 0.8, np.inf, "takes more than 0.800 of the executed training FLOPs of p"),
    ],
)
def test_nothing_is_extrapolated(means, crossing, low, high, said):
    found = only(planted(*means, noise=np.random.default_rng(0).normal(0, 1e-3, (3, 4))))
    assert found.crossing is crossing and math.isnan(found.share) and found.pieces == () and found.between == ()
    assert (found.low, found.high) == pytest.approx((low, high))
    assert said in equal_loss_sentence(found)
    assert ("at most 0.200" if high < 1 else "at least 0.800") in equal_loss_sentence(found)


# The confidence set ---------------------------------------------------------------------------------------------------


def on_a_grid(share_C, gap_CS, level, fine=20_001):
    """Which shares have an interval that includes 0, by scipy's t and numpy's interpolation."""
    grid = np.exp(np.linspace(np.log(share_C[0]), np.log(share_C[-1]), fine))
    gaps = np.stack([np.interp(np.log(grid), np.log(share_C), own) for own in gap_CS.T], axis=1)
    half = stats.t.ppf((1 + level) / 2, gaps.shape[1] - 1) * stats.sem(gaps, axis=1)
    return grid, np.where(np.abs(gaps.mean(1)) <= half, SAME, np.where(gaps.mean(1) > 0, ABOVE, BELOW))


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_the_set_is_every_share_whose_paired_interval_includes_zero(seeds):
    random = np.random.default_rng(seeds)
    for _ in range(60):
        places = int(random.integers(2, 6))
        share_C = np.exp(np.cumsum(random.uniform(0.1, 1.0, places)))
        gap_CS = random.normal(0, 0.05, (places, 1)) + random.normal(0, 0.02, (places, seeds))
        stretches = sides_of(np.log(share_C), gap_CS, 0.95)
        grid, side = on_a_grid(share_C, gap_CS, 0.95)
        assert (stretches[0][0], stretches[-1][1]) == pytest.approx((np.log(share_C[0]), np.log(share_C[-1])))
        assert all(one[1] == two[0] and one[2] != two[2] for one, two in itertools.pairwise(stretches))
        for low, high, own in stretches:
            inside = (np.log(grid) > low + 1e-6) & (np.log(grid) < high - 1e-6)
            assert (side[inside] == own).all()


def test_a_steep_curve_is_bounded_on_both_sides_and_the_interval_is_the_set_s():
    noise = np.random.default_rng(3).normal(0, 0.01, (3, 4))
    found = only(planted(0.3, 0.1, -0.1, noise=noise))
    grid, side = on_a_grid(np.array([0.2, 0.4, 0.8]), np.array([place.gaps for place in found.places]), 0.95)
    same = grid[side == SAME]
    assert (found.low, found.high) == pytest.approx((same[0], same[-1]), rel=1e-3)
    assert found.pieces == ((found.low, found.high),) and found.low < found.share < found.high
    assert share_text(found) == f"{found.share:.3f} ({found.low:.3f} to {found.high:.3f})"


@pytest.mark.parametrize(
    ("means", "low_is_open", "high_is_open", "said"),
    [
        ((0.3, 0.1, -0.002), False, True, "at least 0."),
        ((0.002, -0.1, -0.3), True, False, "at most 0."),
        ((0.002, 0.001, -0.001), True, True, "any: these seeds do not tell"),
    ],
)
def test_ends_that_the_seeds_do_not_bound_are_open(means, low_is_open, high_is_open, said):
    found = only(planted(*means, noise=np.random.default_rng(4).normal(0, 0.02, (3, 4))))
    assert (found.low == 0, math.isinf(found.high)) == (low_is_open, high_is_open)
    assert said in equal_loss_sentence(found)


def test_a_curve_that_turns_back_has_a_set_in_pieces_and_their_hull():
    noise = np.random.default_rng(5).normal(0, 0.002, (3, 4))
    found = only(planted(0.1, -0.1, 0.1, noise=noise))
    assert len(found.pieces) == 2 and not found.falls
    assert (found.low, found.high) == (found.pieces[0][0], found.pieces[1][1])
    assert found.share < 0.4 < found.pieces[1][0]  # the first crossing, where it first comes down
    sentence = equal_loss_sentence(found)
    assert "its loss does not fall all along: the interval joins" in sentence and sentence.count(" to 0.") >= 3


def test_a_dip_that_may_not_reach_is_open_at_the_dear_end():
    noise = np.random.default_rng(6).normal(0, 0.01, (3, 4))
    found = only(planted(0.2, 0.0, 0.2, noise=noise - noise.mean(axis=1, keepdims=True) - 0.001))
    assert 0 < found.low < 0.4 and math.isinf(found.high)


# What is lacking ------------------------------------------------------------------------------------------------------


def test_only_seeds_that_every_place_and_the_point_have_count():
    loss = planted(0.3, 0.1, -0.1, noise=np.random.default_rng(7).normal(0, 0.01, (3, 4)))
    loss["c1"][1] = np.nan
    loss["p"] = np.array([*loss["p"][:3], np.nan])
    found = only(loss)
    assert found.seeds == (0, 2) and {place.difference.n for place in found.places} == {2}
    one = only({label: np.where([True, False, False, False], values, np.nan) for label, values in loss.items()})
    assert one.seeds == (0,) and math.isnan(one.low) and 0 < one.share < 1
    assert "at one seed, so this may be chance" in equal_loss_sentence(one) and share_text(one) == f"{one.share:.3f}"
    none = only({**loss, "c4": np.full(4, np.nan)})
    assert none.seeds == () and math.isnan(none.share) and share_text(none) == ""
    assert "no finished seed in common" in equal_loss_sentence(none)


def test_points_whose_cost_nobody_knows_are_off_the_curve_by_name():
    loss = planted(0.3, 0.1, -0.1)
    found = only(loss, costs(c1=1e6, c4=4e6, p=5e6))
    assert [place.labels for place in found.places] == [("c1",), ("c4",)] and found.off_curve == ("c2",)
    assert "[not on the curve, since its cost is not known: c2]" in equal_loss_sentence(found)
    assert "whose bend two points do not tell" in equal_loss_sentence(found)


@pytest.mark.parametrize(
    ("known", "cost", "refused", "said"),
    [
        (costs(c1=1e6, c2=2e6, c4=4e6), Cost.FLOPS, Refused.UNKNOWN, "is not known: that needs those of p"),
        (costs(c1=1e6, c2=1.001e6, c4=1e6, p=5e6), Cost.FLOPS, Refused.UNKNOWN, "two points that differ in them"),
        (COSTS.assign(expert_flops=np.nan), Cost.EXPERT_FLOPS, Refused.UNKNOWN, "a dense model has no experts"),
        (costs(c1=(1e6, 9.0), c2=(2e6, 5.0), c4=(4e6, 7.0), p=(5e6, 6.0)), Cost.SECONDS, Refused.DISORDER, "machine"),
    ],
)
def test_what_cannot_be_known_says_why(known, cost, refused, said):
    found = only(planted(0.3, 0.1, -0.1), known, asked(cost=cost))
    assert found.refused is refused and math.isnan(found.share) and found.places == () and found.seeds == ()
    assert said in equal_loss_sentence(found) and share_text(found) == ""


def test_points_of_one_cost_stand_for_their_mean():
    loss = {**planted(0.3, 0.1, -0.1), "also": -0.1 + 0.02 + SEEDS}
    found = only(loss, costs(c1=1e6, c2=2e6, c4=4e6, also=4.01e6, p=5e6), asked(points=(*CURVE, "also")))
    assert found.places[-1].labels == ("c4", "also") and found.places[-1].difference.mean == pytest.approx(-0.09)


# In words and rows ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("at_most", "said"),
    [(0.3, "more than the 0.3 that is claimed"), (0.55, "the 0.55 that is claimed is not excluded"),
     (0.9, "within the 0.9 that is claimed"), (None, "seeds); on the line from c2 to c4")],
)  # fmt: skip
def test_the_interval_is_set_beside_what_is_claimed(at_most, said):
    noise = np.random.default_rng(8).normal(0, 0.01, (3, 4))
    found = only(planted(0.3, 0.1, -0.1, noise=noise), request=asked(at_most=at_most))
    assert 0.45 < found.low < 0.55 < found.high < 0.75
    assert said in equal_loss_sentence(found)


def test_a_claimed_share_is_outside_of_the_set_exactly_where_the_test_at_it_finds_a_difference():
    random = np.random.default_rng(9)
    found_outside = 0
    for _ in range(40):
        found = only(planted(0.2, 0.03, -0.1, noise=random.normal(0, 0.03, (3, 4))))
        p = stats.ttest_1samp(found.places[1].gaps, 0).pvalue
        outside = not any(low <= found.places[1].share <= high for low, high in found.pieces)
        assert outside == (p < 0.05)
        found_outside += outside
    assert 0 < found_outside < 40


def test_leaking_and_late_ones_carry_their_marks_and_rows_have_all():
    request = asked(question="How much?", at_most=0.5, late=True)
    found = only(planted(0.3, 0.1, -0.1), request=request, leaking=frozenset({"c2"}))
    sentence = equal_loss_sentence(found, {"c2"})
    assert found.leaks and "c1 to c4 † takes" in sentence and sentence.endswith("(asked after results were there)")
    (row,) = equal_loss_frame([found], frozenset({"c2"})).to_dict("records")
    assert row["to_reach"] == "p" and row["at"] == 5e6 and row["n"] == 4 and row["asked_late"]
    assert row["along"].split("; ")[0] == "0.2: 0.3" and row["sentence"] == sentence
    open_ended = equal_loss_frame([only(planted(0.3, 0.2, 0.1))])
    assert cells_of(open_ended, columns=["low", "high"]).rows == [["0.8", "inf"]]


def test_several_points_are_not_called_by_another_point_s_name():
    rows = {"t 0.9, budget 2": 0.2 + SEEDS, "t 0.9, budget 4": -0.2 + SEEDS, "t 0.9": SEEDS, "p": 0 * SEEDS}
    known = costs(**{"t 0.9, budget 2": 1.0, "t 0.9, budget 4": 2.0, "t 0.9": 3.0, "p": 2.0})
    budgets = asked(points=("t 0.9, budget 4", "t 0.9, budget 2"))
    assert only(rows, known, budgets).name == "t 0.9, budget 2 to t 0.9, budget 4"  # cheapest first
    del rows["t 0.9"]
    assert only(rows, known, budgets).name == "t 0.9"


# How often the set holds the truth ------------------------------------------------------------------------------------

STUDIES = 1500
SHAPES = {  # true differences at shares of 1/4, 1/2, 1 and 2, in units of the noise of one seed's difference
    "steep": (20.0, 6.0, -3.0, -8.0),
    "like XMoE": (7.0, 2.0, -0.6, -0.8),
    "flat": (0.4, 0.2, -0.1, -0.3),
    "turns": (3.0, -2.0, -1.0, 4.0),
    "crosses at a place": (2.0, 0.0, -2.0, -3.0),
}


def coverage(shape, seeds, studies, random):
    """Shares of studies: whose set holds the true share, whose interval does, and whose interval is open at an end."""
    shares = np.array([0.25, 0.5, 1.0, 2.0])
    truth = np.array(SHAPES[shape])
    after = int(np.flatnonzero(truth <= 0)[0])
    weight = truth[after - 1] / (truth[after - 1] - truth[after])
    true_share = shares[after - 1] * (shares[after] / shares[after - 1]) ** weight
    labels = ("a", "b", "c", "d")
    known = costs(**dict(zip(labels, shares, strict=True)), p=1.0)
    request = AskedReach(Cost.FLOPS, labels, "p")
    in_set = held = is_open = 0
    for _ in range(studies):
        noise = random.normal(0, np.array([1.5, 1.0, 0.7, 1.0])[:, None] / math.sqrt(2), (4, seeds))
        point = random.normal(0, 1 / math.sqrt(2), seeds)
        shared = random.normal(0, 10, seeds)
        rows = {label: truth[place] + noise[place] + shared for place, label in enumerate(labels)}
        (found,) = at_equal_loss([request], losses({**rows, "p": point + shared}), known)
        in_set += any(low <= true_share * (1 + 1e-9) and true_share * (1 - 1e-9) <= high for low, high in found.pieces)
        held += found.low <= true_share * (1 + 1e-9) and true_share * (1 - 1e-9) <= found.high
        is_open += found.low == 0 or math.isinf(found.high)
    return in_set / studies, held / studies, is_open / studies


@pytest.mark.parametrize("shape", ["like XMoE", "flat"])
def test_the_interval_holds_the_truth_in_most_of_a_few_studies(shape):
    in_set, held, is_open = coverage(shape, 4, 150, np.random.default_rng(10))
    assert 0.88 < in_set <= held and (is_open > 0.9 if shape == "flat" else is_open < 0.9)


@pytest.mark.simulation
@pytest.mark.parametrize("seeds", [2, 5])
@pytest.mark.parametrize("shape", sorted(SHAPES))
def test_the_interval_holds_the_truth_as_often_as_it_says(shape, seeds, capsys):
    in_set, held, is_open = coverage(shape, seeds, STUDIES, np.random.default_rng(20 + seeds))
    with capsys.disabled():
        rates = f"sets hold the truth in {in_set:.4f}, intervals in {held:.4f}, open at an end in {is_open:.3f}"
        print(f"\n{shape}, {seeds} seeds: 95% {rates}")
    assert abs(in_set - 0.95) < 3 * math.sqrt(0.95 * 0.05 / STUDIES)  # exact whatever the slope
    assert held >= in_set  # a hull or an open end holds more
