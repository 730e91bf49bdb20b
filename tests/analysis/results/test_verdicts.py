"""What was claimed of effects and at equal cost beside what was measured: one number, one verdict."""

import dataclasses

import pytest

from moe_study.analysis.comparison import Verdict
from moe_study.analysis.frame import load_frame
from moe_study.analysis.results.turned import turned
from moe_study.analysis.results.verdicts import FAILS, HOLDS, LACKING, NOT_COMPARED, findings
from moe_study.analysis.study import study_of
from moe_study.design.routing import Context, Routing, Selection, Unit
from moe_study.runs.members import Launch, Members, PlannedCell, PlannedComparison, PlannedEffect
from moe_study.sweeps.claims import Claim, Claims, Expected
from tests.analysis import planted

SEEDS = 4
UNITS = ((Unit.TOKEN, Context.OWN), (Unit.SEQUENCE, Context.FIRST_TOKEN))
GRID = [Routing(unit=unit, context=context, k=k) for unit, context in UNITS for k in (1, 2, 3)]
DENSE = [Routing(selection=Selection.DENSE, ffn_multiplier=m) for m in (1.0, 2.0)]
EFFECTS = [-0.05, -0.10, -0.15, -0.02, -0.07, -0.06, 0.0, -0.08]  # sequences lose 0.03, at K = 3 they lose 0.09
INTERACTION, MAIN = "effect of unit x k", "effect of k where routing.unit=token"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return planted.plant(tmp_path_factory.mktemp("runs"), [*GRID, *DENSE], EFFECTS, range(SEEDS), noise_sd=0.002)


def keys(folders, place):
    return tuple(folder.name for folder in folders[place * SEEDS : (place + 1) * SEEDS])


def interaction(folders):
    cells = tuple(PlannedCell("", (r.unit.value, str(r.k)), keys(folders, place)) for place, r in enumerate(GRID))
    levels = (("token", "sequence"), ("1", "2", "3"))
    return PlannedEffect(INTERACTION, ("routing.unit", "routing.k"), levels, cells)


def main_effect(folders, levels=("1", "2", "3"), text=MAIN):
    cells = tuple(PlannedCell("", (level,), keys(folders, int(level) - 1)) for level in levels)
    return PlannedEffect(text, ("routing.k",), (tuple(levels),), cells)


def study(folders, comparisons=(), effects=()):
    launch = Launch(comparisons=tuple(comparisons), effects=tuple(effects))
    return study_of(load_frame(folders), [Members((launch,))])


def claims(*made):
    return Claims("a paper", (), made)


def claim(text, expect=None):
    return Claim(text, "", "Why?", "yes" if expect else "", expect)


@pytest.fixture(scope="module")
def both(folders):
    return study(folders, effects=[interaction(folders), main_effect(folders)])


@pytest.mark.parametrize(
    ("expect", "verdicts"),
    [(Expected.LOWER, (HOLDS, HOLDS)), (Expected.HIGHER, (FAILS, FAILS)), (Expected.SAME, (FAILS, FAILS)),
     (Expected.NOT_HIGHER, (HOLDS, HOLDS)), (None, ("lower", "lower"))],
)  # fmt: skip
def test_each_number_of_an_effect_has_a_verdict_of_its_own(both, expect, verdicts):
    found = findings(both, claims(claim(MAIN, expect)))
    assert tuple(one.verdict for one in found) == verdicts
    assert [one.pair for one in found] == ["k 2 − k 1", "k 3 − k 1"]
    assert all(one.decided and one.seeds == SEEDS and one.hours > 0 for one in found)
    assert -0.06 < float(found[0].effect.split()[0]) < -0.04


def test_an_interaction_is_held_against_its_claim_within_the_margin(both):
    none, some = findings(both, claims(claim(INTERACTION, Expected.SAME)))
    assert some.verdict == FAILS and none.verdict != FAILS  # 0.06 apart, and nothing
    assert some.pair == "(unit sequence − unit token at k 3) − (unit sequence − unit token at k 1)"
    assert some.tested.interval.low < 0.06 < some.tested.interval.high
    wide = study_with_margin(both, 0.2)
    assert [one.verdict for one in findings(wide, claims(claim(INTERACTION, Expected.SAME)))] == [HOLDS, HOLDS]


def study_with_margin(study, margin):
    (part,) = study.parts
    effects = tuple(dataclasses.replace(one, margin=margin, p_same=0.0) for one in part.effects)
    return dataclasses.replace(study, parts=(dataclasses.replace(part, effects=effects),))


@pytest.mark.parametrize(("left", "right", "words"), [(1, 0, "k 2 − k 1"), (0, 1, "k 2 − k 1")])
def test_an_effect_that_is_a_pair_s_number_is_found_there_whichever_way_round(folders, left, right, words):
    pair = PlannedComparison("one", "other", keys(folders, left), keys(folders, right))
    found = study(folders, [pair], [main_effect(folders, ("1", "2"), "effect of k where it is 1 or 2")])
    assert found.family == 1  # it is tested once
    asked = claims(Claim("one", "other", ""), claim("effect of k where it is 1 or 2", Expected.LOWER))
    of_pair, of_effect = findings(found, asked)
    assert of_effect.verdict == HOLDS and of_effect.tested.difference.mean == pytest.approx(-0.05, abs=0.01)
    assert of_pair.tested.difference.mean == pytest.approx(-0.05 if left else 0.05, abs=0.01)
    assert of_effect.pair == "token top-2 − token top-1"


def test_two_pairs_of_the_same_points_are_one_test_and_two_findings(folders):
    pairs = [PlannedComparison(text, "other", keys(folders, 1), keys(folders, 0)) for text in ("one", "again")]
    found = findings(study(folders, pairs), claims(*(Claim(text, "other", "") for text in ("one", "again"))))
    assert [one.verdict for one in found] == ["lower", "lower"]


def test_a_verdict_says_whether_it_was_asked_when_the_runs_were_there(folders):
    pairs = [PlannedComparison("early", "other", keys(folders, 1), keys(folders, 0))]
    pairs.append(PlannedComparison("late", "other", keys(folders, 2), keys(folders, 0), late=True))
    pairs.append(PlannedComparison("lacking", "other", keys(folders, 2), ("no such run",), late=True))
    found = findings(study(folders, pairs), claims(*(Claim(pair.left, "other", "Why?") for pair in pairs)))
    assert [one.told_verdict for one in found] == ["lower", "lower, asked late", "not run"]
    assert found[1].told("Why?").startswith("**lower, asked late**: Why?")


def test_what_is_turned_twice_is_itself(both):
    (part,) = both.parts
    for one in part.tested:
        back = turned(turned(one))
        assert back == one and turned(one).difference.mean == -one.difference.mean and turned(one).p == one.p
        assert (turned(one).verdict is Verdict.LOWER) == (one.verdict is Verdict.HIGHER)


def test_a_point_at_equal_cost_is_held_against_its_claim_and_one_beyond_the_curve_is_not_compared(folders):
    curve = (*keys(folders, 6), *keys(folders, 7))
    at = [
        PlannedComparison("the two", "routing=dense", keys(folders, 1), curve, at="flops"),
        PlannedComparison("the three", "routing=dense", keys(folders, 2), curve, at="flops"),
    ]
    asked = [Claim(text, "routing=dense", "", "yes", Expected.LOWER, "flops") for text in ("the two", "the three")]
    near, beyond = findings(study(folders, at), claims(*asked))
    assert near.verdict == HOLDS and near.pair == "token top-2 − dense at equal executed training FLOPs"
    assert (beyond.verdict, beyond.effect, beyond.hours) == (NOT_COMPARED, "", 0)
    assert "no run" not in beyond.sentence and beyond.sentence.endswith(": nothing is extrapolated")


def test_a_finding_without_a_question_begins_with_its_verdict(both):
    found, *_ = findings(both, claims(Claim(MAIN, "", "")))
    assert found.sentence.startswith(f"**{found.verdict}**: ")
    (lacking,) = findings(both, claims(Claim("effect of depth", "", "Does depth matter?")))
    assert lacking.sentence == "Does depth matter? **not run**: effect of depth: no run"


def test_an_effect_that_nobody_planned_is_not_run(both):
    (found,) = findings(both, claims(claim("effect of depth", Expected.SAME)))
    assert (found.verdict, found.pair, found.effect) == (LACKING, "effect of depth", "")
