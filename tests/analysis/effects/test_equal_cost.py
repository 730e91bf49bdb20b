import numpy as np
import pytest

from moe_study.analysis.comparison import Verdict, as_one_family
from moe_study.analysis.effects.costs import DESCRIBED, Cost
from moe_study.analysis.effects.equal_cost import AskedAtCost, Refused, at_equal_cost, default_requests
from moe_study.analysis.effects.families import Family
from moe_study.analysis.effects.wording import equal_cost_sentence
from moe_study.analysis.statistics import interval
from tests.analysis.effects.studies import costs, losses

DENSE = ("d1", "d2", "d4")


def asked(point="m", points=DENSE, cost=Cost.FLOPS, **more):
    return AskedAtCost(cost, point, "dense", tuple(points), **more)


def only(request, loss, cost, **more):
    (found,) = at_equal_cost([request], loss, cost, **more)
    return found


def test_a_point_is_compared_seed_by_seed_with_the_line_over_the_logarithm_of_cost():
    random = np.random.default_rng(0)
    known = costs(d1=1e9, d2=2.2e9, d4=4.1e9, m=2.9e9)
    loss = losses({label: random.normal(4, 0.1, 5) for label in known.index})
    found = only(asked(), loss, known)
    by_hand = []
    for seed in loss:  # numpy's own interpolation is the reference
        line = np.interp(np.log(2.9e9), np.log([1e9, 2.2e9, 4.1e9]), loss.loc[list(DENSE), seed])
        by_hand.append(loss.at["m", seed] - line)
    reference = interval(by_hand)
    assert (found.difference.mean, found.difference.low) == pytest.approx((reference.mean, reference.low))
    assert found.ends == ("d2", "d4") and found.seeds == (0, 1, 2, 3, 4)
    assert 0 < found.weight < 1 and found.at == 2.9e9 and found.span == (1e9, 4.1e9)


def test_a_difference_from_losses_that_fall_by_a_power_of_cost_is_found_exactly():
    known = costs(d1=1e3, d2=1e4, d4=1e5, m=3e4)
    seeds = np.array([0.0, 0.3, -0.2, 0.1])
    law = {label: 5 - 0.3 * np.log(known.at[label, "flops"]) + seeds for label in known.index}
    law["m"] = law["m"] - 0.07
    found = only(asked(), losses(law), known)
    assert found.difference.mean == pytest.approx(-0.07) and found.difference.sd == pytest.approx(0, abs=1e-12)
    assert found.bend == pytest.approx(0, abs=1e-12)


def test_the_bend_of_a_parabola_is_found_in_closed_form():
    known = costs(d1=1e3, d2=1e4, d4=1e5, m=3e4)
    curve = {label: np.log(known.at[label, "flops"]) ** 2 * 0.01 + np.zeros(3) for label in known.index}
    found = only(asked(), losses(curve), known)
    assert abs(found.difference.mean) == pytest.approx(found.bend)  # the point lies on the parabola itself
    assert "which may bend by" in equal_cost_sentence(found)
    two = only(asked(points=("d2", "d4")), losses(curve), known)
    assert np.isnan(two.bend) and "whose bend two points do not tell" in equal_cost_sentence(two)


def test_nothing_is_extrapolated_but_a_twin_is_a_twin():
    rows = {"d1": [4.0, 4.1], "d2": [3.9, 4.0], "d4": [3.8, 3.9], "m": [3.7, 3.85]}
    beyond = only(asked(), losses(rows), costs(d1=1e6, d2=2e6, d4=4e6, m=5e6))
    assert beyond.refused is Refused.BEYOND and beyond.verdict is Verdict.NO_PAIR
    assert "nothing is extrapolated" in equal_cost_sentence(beyond) and "from 1M to 4M" in equal_cost_sentence(beyond)
    below = only(asked(), losses(rows), costs(d1=1e6, d2=2e6, d4=4e6, m=0.5e6))
    assert below.refused is Refused.BEYOND
    twin = only(asked(), losses(rows), costs(d1=1e6, d2=2e6, d4=4e6, m=4.1e6))
    assert twin.ends == ("d4",) and twin.difference.mean == pytest.approx(-0.075)
    assert "its twin there is d4, 2.5% beyond it" in equal_cost_sentence(twin)
    exactly = only(asked(), losses(rows), costs(d1=1e6, d2=2e6, d4=4e6, m=2e6))
    assert exactly.ends == ("d2",) and exactly.stretch == 0


def test_costs_that_nobody_knows_and_times_in_disorder_are_refused_with_their_reason():
    rows = {"d1": [4.0, 4.1], "d2": [3.9, 4.0], "m": [3.7, 3.85]}
    unknown = only(asked(points=("d1", "d2")), losses(rows), costs(d1=1e6, d2=2e6))
    assert unknown.refused is Refused.UNKNOWN and "not known" in equal_cost_sentence(unknown)
    known = costs(d1=(1e6, 20.0), d2=(2e6, 10.0), m=(1.5e6, 15.0))
    disorder = only(asked(points=("d1", "d2"), cost=Cost.SECONDS), losses(rows), known)
    assert disorder.refused is Refused.DISORDER and "tell about the machine" in equal_cost_sentence(disorder)
    assert only(asked(points=("d1", "d2")), losses(rows), known).refused is Refused.NOT


def test_experts_that_a_dense_model_does_not_have_are_why_it_is_not_compared_at_their_flops():
    rows = {"d1": [4.0, 4.1], "d2": [3.9, 4.0], "m": [3.7, 3.85]}
    known = costs(d1=1e6, d2=2e6, m=1.5e6).assign(expert_flops=[np.nan, np.nan, 1e6])
    found = only(asked(points=("d1", "d2"), cost=Cost.EXPERT_FLOPS), losses(rows), known)
    assert found.refused is Refused.UNKNOWN and equal_cost_sentence(found).endswith("(a dense model has no experts)")


def test_a_seed_that_one_end_of_the_line_lacks_has_no_value():
    rows = {"d1": [4.0, 4.1, 4.2], "d2": [3.9, np.nan, 4.1], "d4": [3.8, 3.9, np.nan], "m": [3.7, 3.8, 3.9]}
    known = costs(d1=1e6, d2=2e6, d4=4e6, m=1.5e6)
    assert only(asked(), losses(rows, seeds=(7, 8, 9)), known).seeds == (7, 9)
    without = only(asked(), losses({**rows, "m": [np.nan] * 3}), known)
    assert without.verdict is Verdict.NO_PAIR and "share no finished seed" in equal_cost_sentence(without)


def test_points_of_one_cost_stand_for_their_mean():
    rows = {"d1": [4.0, 4.2], "d2": [3.8, 4.0], "also": [3.6, 3.6], "m": [3.7, 3.7]}
    found = only(asked(points=("d1", "d2", "also")), losses(rows), costs(d1=1e6, d2=2e6, also=2.01e6, m=2e6))
    assert found.difference.mean == pytest.approx(np.mean([3.7 - 3.7, 3.7 - 3.8]))
    assert found.ends == ("d2 and also",)


def test_leaking_points_carry_their_mark_whichever_side_they_are_on():
    rows = {"d1": [4.0, 4.1], "d2": [3.9, 4.0], "m": [3.7, 3.85]}
    known = costs(d1=1e6, d2=2e6, m=1.5e6)
    found = only(asked(points=("d1", "d2")), losses(rows), known, leaking=frozenset({"d2"}))
    assert found.leaks and "dense †" in equal_cost_sentence(found, {"d2"})
    assert not only(asked(points=("d1", "d2")), losses(rows), known).leaks


def test_what_was_planned_is_tested_and_says_so():
    rows = {"d1": [4.0, 4.1, 4.2, 4.3], "d2": [3.9, 4.0, 4.1, 4.2], "m": [3.80, 3.901, 4.0, 4.101]}
    known = costs(d1=1e6, d2=2e6, m=1.5e6)
    request = asked(points=("d1", "d2"), margin=0.5)
    (tested,) = as_one_family(at_equal_cost([request], losses(rows), known))
    assert tested.verdict is Verdict.LOWER and tested.margin == 0.5
    assert equal_cost_sentence(tested).startswith(
        "m has lower loss than dense at equal executed training FLOPs (1.5M) by"
    )
    (described,) = at_equal_cost([request], losses(rows), known)
    assert "not planned, so not tested" in equal_cost_sentence(described)


def test_every_point_is_asked_against_every_family_with_a_curve_at_each_cost():
    found = [Family("dense", ("d1", "d2"), ("x",)), Family("flat", ("f1", "f2"), ("x",)), Family("m", ("m",), ())]
    known = costs(d1=1e6, d2=2e6, f1=1e6, f2=1.001e6, m=1.5e6)
    requests = list(default_requests(found, known))
    assert {(one.point, one.family) for one in requests} == {(p, "dense") for p in ("f1", "f2", "m")}
    assert {one.cost for one in requests} == set(DESCRIBED) and len(requests) == 3 * 4
