"""Effects and comparisons at equal cost in whole studies of planted runs: one family, leaks apart, files and print."""

import dataclasses
import itertools

import numpy as np
import pandas as pd
import pytest

from moe_study.analysis import report, sections
from moe_study.analysis.comparison import Verdict
from moe_study.analysis.effects import grids
from moe_study.analysis.effects.costs import Cost
from moe_study.analysis.frame import load_frame
from moe_study.analysis.report import answers
from moe_study.analysis.statistics import holm
from moe_study.analysis.study import study_of
from moe_study.design.routing import Context, Routing, Selection, Unit
from moe_study.runs.members import Launch, Members, PlannedCell, PlannedComparison, PlannedEffect
from tests.analysis import planted

SEEDS = 4  # of each routing
DENSE = [Routing(selection=Selection.DENSE, ffn_multiplier=m) for m in (1.0, 2.0, 4.0)]
UNITS = {Unit.TOKEN: Context.OWN, Unit.SEQUENCE: Context.FIRST_TOKEN}
GRID = [Routing(unit=unit, context=UNITS[unit], k=k) for unit, k in itertools.product(UNITS, (1, 2, 3))]
LEAKING = [dataclasses.replace(r, context=Context.UNIT_MEAN) for r in GRID if r.unit is Unit.SEQUENCE]
ROUTINGS = [*DENSE, *GRID, *LEAKING]
EFFECTS = [0.0, -0.08, -0.14, -0.05, -0.10, -0.15, -0.02, -0.07, -0.06, -0.09, -0.14, -0.13]
# Sequences lose 0.03 at K = 1 and 2, and 0.09 at K = 3: an interaction of 0.06.


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return planted.plant(tmp_path_factory.mktemp("runs"), ROUTINGS, EFFECTS, range(SEEDS), noise_sd=0.002)


@pytest.fixture(scope="module")
def frame(folders):
    return load_frame(folders)


def keys(folders, place):
    return tuple(folder.name for folder in folders[place * SEEDS : (place + 1) * SEEDS])


def planned_effect(folders, **more):
    cells = tuple(
        PlannedCell("", (r.unit.value, str(r.k)), keys(folders, len(DENSE) + place)) for place, r in enumerate(GRID)
    )
    levels = (("token", "sequence"), ("1", "2", "3"))
    names = ("routing.unit", "routing.k")
    return PlannedEffect("effect of unit x k", names, levels, cells, ("routing.context",), **more)


def at_flops(folders, point, **more):
    dense = tuple(key for place in range(len(DENSE)) for key in keys(folders, place))
    return PlannedComparison("the point", "routing=dense", keys(folders, point), dense, at="flops", **more)


def pair(folders, left, right):
    return PlannedComparison(f"the {left}", f"the {right}", keys(folders, left), keys(folders, right))


def plan(comparisons=(), effects=()):
    return [Members((Launch(comparisons=tuple(comparisons), effects=tuple(effects)),))]


@pytest.fixture(scope="module")
def study(folders, frame):
    return study_of(frame, plan([pair(folders, 4, 3), at_flops(folders, 5)], [planned_effect(folders, why="Both?")]))


def test_planned_effects_and_equal_costs_join_the_one_family(study):
    (part,) = study.parts
    assert (len(part.comparisons), len(part.effects), len(part.equal_costs)) == (1, 2, 1)
    assert study.planned and study.family == 4 and len(study.tested) == 4
    alone = [one.difference.p for one in study.tested]
    assert [one.p for one in study.tested] == pytest.approx(holm(alone))
    assert [one.p_same for one in study.tested] != [one.difference.p for one in study.tested]


def test_known_interactions_and_costs_are_found_with_their_size(study):
    (part,) = study.parts
    none, some = part.effects
    assert none.contrast.changes[1].after == "k 2" and none.verdict is not Verdict.HIGHER
    assert some.verdict is Verdict.HIGHER and some.interval.low < 0.06 < some.interval.high
    (at_cost,) = part.equal_costs
    assert at_cost.ends == ("dense 2x", "dense 4x") and at_cost.cost is Cost.FLOPS
    costs = part.costs["flops"]
    point, low, high = (np.log(costs[label]) for label in (at_cost.point, *at_cost.ends))
    line = -0.08 + (-0.14 + 0.08) * (point - low) / (high - low)
    assert at_cost.interval.low < -0.15 - line < at_cost.interval.high


def test_answers_name_all_that_was_tested_with_their_questions(study):
    said = list(answers(study))
    assert said[0].startswith("Answers: ") and "planned hypotheses (1 of them comparisons)" in said[0]
    assert any("unit x k: the change from unit token to unit sequence is higher by 0.0" in line for line in said)
    assert any(line.endswith("| Both?") and "(with its cells go context)" in line for line in said)
    assert any(
        "against dense at equal" in line or "than dense at equal executed training FLOPs" in line for line in said
    )


def test_the_power_of_all_that_was_tested_stands_at_the_family_s_strictest_step(study):
    (part,) = study.parts
    assert [(power.point, power.against) for power in part.powers] == [
        ("token top-2", "token top-1"),
        ("unit sequence with k 2", "unit token with k 1"),
        ("unit sequence with k 3", "unit token with k 1"),
        ("token top-3", "dense at equal executed training FLOPs"),
        ("", ""),
    ]
    assert all(power.family == 4 and power.alpha == pytest.approx(0.05 / 4) for power in part.powers)
    assert part.powers[-1].sd == part.powers[0].sd  # of pairs alone


def test_what_was_planned_is_not_described_again(folders, frame, study):
    (part,) = study.parts
    described = {one.contrast.identity for one in part.other_effects}
    assert not described & {one.contrast.identity for one in part.effects} and described
    assert all((one.cost, one.point) != (Cost.FLOPS, part.equal_costs[0].point) or one.family_name != "dense"
               for one in part.other_equal_costs)  # fmt: skip
    assert all(one.verdict in (Verdict.NOT_PLANNED, Verdict.NO_PAIR) for one in part.other_equal_costs)
    (free,) = study_of(frame).parts
    assert len(free.other_effects) == len(part.other_effects) + 2 and not free.effects
    assert max(one.family for one in free.comparisons) == len(free.comparisons)  # descriptions cost nothing


def test_leaking_points_are_set_apart_everywhere(study):
    (part,) = study.parts
    assert len(part.leaking) == 3
    leaks = [effect.leaks for effect in part.other_effects]
    assert True in leaks and leaks == sorted(leaks)
    by_k = next(effect for effect in part.other_effects if effect.name == "k" and not effect.leaks)
    assert not set(by_k.points) & part.leaking
    assert all(point.label not in part.leaking or not point.on_front for front in part.fronts for point in front.points)
    assert {p.label for p in part.fronts[0].apart} == part.leaking
    assert all(one.leaks == bool({one.point, *one.asked.points} & part.leaking) for one in part.other_equal_costs)
    assert {price.leaking for price in part.leak_prices} == part.leaking


def test_one_margin_for_all_replaces_those_of_the_file(folders, frame):
    asked = plan([at_flops(folders, 5, margin=0.3)], [planned_effect(folders, margin=0.2)])
    (part,) = study_of(frame, asked).parts
    assert [one.margin for one in part.tested] == [0.2, 0.2, 0.3]
    (part,) = study_of(frame, asked, margin=0.5).parts
    assert [one.margin for one in part.tested] == [0.5] * 3


def test_an_effect_that_is_a_planned_pair_is_tested_once(folders, frame):
    cells = tuple(PlannedCell("", (str(k),), keys(folders, len(DENSE) + k - 1)) for k in (1, 2))
    effect = PlannedEffect("effect of k where routing.unit=token", ("routing.k",), (("1", "2"),), cells, why="Two?")
    both = study_of(frame, plan([pair(folders, 3, 4)], [effect]))
    assert both.family == 1 and [one.asked.question for one in both.comparisons] == ["Two?"]
    alone = study_of(frame, plan(effects=[effect, planned_effect(folders)]))
    assert alone.family == 3 and [len(one.points) for one in alone.parts[0].effects] == [2, 4, 4]


def test_an_effect_whose_runs_are_not_there_says_so_and_names_them(folders, frame):
    lost = frame[~frame["key"].isin(keys(folders, 8))]
    study = study_of(lost, plan(effects=[planned_effect(folders)]))
    assert [one.verdict for one in study.tested][1] is Verdict.NO_PAIR and study.family == 1
    assert any("no seed with a result of every point that it needs" in line for line in answers(study))
    failed = frame.copy()
    failed.loc[failed["key"] == keys(folders, 8)[0], "state"] = "failed"
    said = "\n".join(answers(study_of(failed, plan(effects=[planned_effect(folders)]))))
    assert "3 seeds" in said and "[without sequence top-3, first token: seed 0 failed]" in said


def test_that_effects_are_not_looked_for_among_many_points_is_said(frame, monkeypatch):
    monkeypatch.setattr(sections, "MOST_POINTS", 5)
    monkeypatch.setattr(grids, "MOST_POINTS", 5)
    study = study_of(frame)
    assert "  not looked for among more than 5 points; compare: in the sweep file may ask for effects" in answers(study)
    assert study.parts[0].other_effects == ()


def test_a_late_effect_says_so(folders, frame):
    said = list(answers(study_of(frame, plan(effects=[planned_effect(folders, late=True)]))))
    assert sum("(asked after results were there)" in line for line in said) == 2


def test_sets_of_different_text_answer_where_all_points_are(folders, tmp_path):
    other = planted.plant(tmp_path, GRID[:2], (0.0, 0.1), (8, 9), context=64)
    study = study_of(load_frame([*folders, *other]), plan(effects=[planned_effect(folders)]))
    assert [len(part.effects) for part in study.parts] in ([2, 0], [0, 2])


def test_files_hold_every_section_with_its_sentences(frame, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(report, "draw_all", lambda part, out: [])
    monkeypatch.setattr(report, "read_study", lambda *asked: study_of(frame))
    report.draw([], tmp_path)
    said = capsys.readouterr().out
    for name in ("effects", "equal_cost", "pareto", "power", "leak_price"):
        table = pd.read_csv(tmp_path / f"{name}.csv")
        assert len(table) and table["sentence"].notna().all()
    for heading in ("Effects of crossed settings", "At equal cost", "Pareto fronts", "The price of", "What this study"):
        assert heading in said
    assert "†" in (tmp_path / "leak_price.md").read_text()
    two = frame[frame["label"].isin(["token top-1", "token top-2"]) & frame["seed"].eq(0)]
    monkeypatch.setattr(report, "read_study", lambda *asked: study_of(two))
    report.draw([], tmp_path / "few")
    assert not (tmp_path / "few" / "effects.csv").exists() and not (tmp_path / "few" / "power.csv").exists()
