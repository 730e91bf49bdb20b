"""Costs at equal loss in whole studies of planted runs: described beside the tests, in files, results and pictures."""

import math

import numpy as np
import pandas as pd
import pytest

from moe_study.analysis import report
from moe_study.analysis.effects.equal_loss import Crossing
from moe_study.analysis.effects.equal_loss_wording import equal_loss_frame
from moe_study.analysis.frame import load_frame
from moe_study.analysis.page.answers import described
from moe_study.analysis.page.tables import tables_of
from moe_study.analysis.plots.equal_loss import costs_at_equal_loss
from moe_study.analysis.report import answers
from moe_study.analysis.results.answered import answered
from moe_study.analysis.results.archive import archives
from moe_study.analysis.results.keep import keep
from moe_study.analysis.results.overview import overview
from moe_study.analysis.results.questions import QUESTIONS
from moe_study.analysis.results.verdicts import findings
from moe_study.analysis.study import read_study, study_of
from moe_study.analysis.tables_out import to_csv
from moe_study.design.routing import Context, Routing, Selection, Unit
from moe_study.runs.members import Launch, Members, PlannedComparison, record_launch
from moe_study.runs.reaches import PlannedReach
from moe_study.sweeps.claims import Claim, Claims, Expected
from tests.analysis import planted

SEEDS = 4
LADDER = [Routing(k=k) for k in (1, 2, 3)]
SEQUENCE = Routing(unit=Unit.SEQUENCE, context=Context.FIRST_TOKEN, k=2)
DENSE = Routing(selection=Selection.DENSE)
EFFECTS = [-0.05, -0.10, -0.15, -0.07, 0.0]  # tokens reach the sequence's loss between their first and second place
TRUE_SHARE = 0.5 * 2**0.4  # of the sequence's two rows: 0.4 of the way from one to two, on a logarithmic scale
TEXT, LOST, DENSE_TEXT = "the cost to reach the sequence", "the cost to reach what is lost", "the cost to reach dense"
CLAIMS = Claims(
    "2403.18926, abstract",
    (1,),
    (Claim("two", "one", "Better?", "yes", Expected.LOWER),),
    (Claim(TEXT, "", "Half of it?", "half"), Claim(LOST, "", "Nobody knows?"), Claim("not asked", "", "New?", "it is")),
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    routings = [*LADDER, SEQUENCE, DENSE]
    return planted.plant(tmp_path_factory.mktemp("runs"), routings, EFFECTS, range(SEEDS), noise_sd=0.002)


def keys(folders, place):
    return tuple(folder.name for folder in folders[place * SEEDS : (place + 1) * SEEDS])


def launch(folders, **more):
    curve = tuple(key for place in range(3) for key in keys(folders, place))
    reaches = (
        PlannedReach(TEXT, "expert_flops", curve, keys(folders, 3), "Half of it?", 0.5, **more),
        PlannedReach(LOST, "flops", curve, ("0" * 16,), "Nobody knows?"),
        PlannedReach(DENSE_TEXT, "expert_flops", curve, keys(folders, 4)),
    )
    pair = PlannedComparison("two", "one", keys(folders, 1), keys(folders, 0), "Better?")
    runs = tuple(folder.name for folder in folders)
    return Launch(runs=runs, comparisons=(pair,), names={key: key for key in runs}, reaches=reaches)


@pytest.fixture(scope="module")
def frame(folders):
    return load_frame(folders)


@pytest.fixture(scope="module")
def study(folders, frame):
    return study_of(frame, [Members((launch(folders),))])


@pytest.fixture(scope="module")
def part(study):
    return study.parts[0]


def test_the_share_of_the_experts_flops_is_found_with_an_interval_that_holds_it(part):
    known, lost, dense = part.reaches
    assert known.crossing is Crossing.ON and known.low < TRUE_SHARE < known.high
    assert known.share == pytest.approx(TRUE_SHARE, rel=0.1) and len(known.seeds) == SEEDS
    assert [place.share for place in known.places] == pytest.approx([0.5, 1.0, 1.5])
    assert (known.name, known.asked.point) == ("token top-1 to token top-3", "sequence top-2")
    assert math.isnan(lost.share) and math.isnan(dense.share)


def test_no_test_pays_for_it(folders, frame, study, part):
    without = study_of(frame, [Members((Launch(comparisons=launch(folders).comparisons),))])
    assert study.family == without.family == 1 and study.tested == without.tested
    assert without.parts[0].reaches == () and len(part.reaches) == 3


def test_reports_say_it_under_a_heading_of_its_own(study, folders, frame):
    said = list(answers(study))
    place = said.index("Cost at equal loss, described with intervals of 95%, each alone, and not tested:")
    assert said[place + 1].startswith("  token top-1 to token top-3 takes 0.")
    assert said[place + 1].endswith("| Half of it?") and "not excluded" not in said[place + 1]
    assert "more than the 0.5 that is claimed" in said[place + 1]
    assert "is not known" in said[place + 2] and "a dense model has no experts" in said[place + 3]
    plain = list(answers(study_of(frame, [Members((Launch(comparisons=launch(folders).comparisons),))])))
    assert [line for line in said if line not in plain] == said[place : place + 4]  # nothing else has changed
    late = list(answers(study_of(frame, [Members((launch(folders, late=True),))])))
    assert "(asked after results were there)" in late[place + 1] and "asked after" not in late[place + 2]


def test_runs_without_a_result_are_named(folders, frame):
    failed = frame.copy()
    failed.loc[failed["key"] == keys(folders, 1)[0], "state"] = "failed"
    said = "\n".join(answers(study_of(failed, [Members((launch(folders),))])))
    assert "3 seeds)" in said and "[without token top-2: seed 0 failed] | Half of it?" in said


def test_tables_files_and_pages_have_it(study, part, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(report, "draw_all", lambda part, out: [])
    monkeypatch.setattr(report, "read_study", lambda *asked: study)
    report.draw([], tmp_path)
    table = pd.read_csv(tmp_path / "equal_loss.csv")
    assert list(table["cost"]) == ["expert_flops", "flops", "expert_flops"] and table["sentence"].notna().all()
    assert table.at[0, "share"] == part.reaches[0].share and table.at[0, "at_most"] == 0.5
    assert "Cost at equal loss" in capsys.readouterr().out
    (of_page,) = (table for table in tables_of(part, "p0-") if table.title == "Cost at equal loss")
    assert len(of_page.rows) == 3 and of_page.rows[0][0].text == "executed expert FLOPs"
    assert any(one.heading.startswith("Cost at equal loss") for one in described(part))


def test_the_picture_has_a_panel_for_each_share_that_is_known(part):
    figure = costs_at_equal_loss(part.reaches)
    (axes,) = figure.axes
    known = part.reaches[0]
    lines = {tuple(np.round(line.get_xdata(), 6)): line for line in axes.lines}
    ends = tuple(np.round((known.low, known.high), 6))
    assert ends in lines and set(lines[ends].get_ydata()) == {0}
    assert (round(known.share, 6),) in lines
    drawn = lines[tuple(np.round([place.share for place in known.places], 6))]
    np.testing.assert_allclose(drawn.get_ydata(), [place.difference.mean for place in known.places])
    assert "share of its executed expert FLOPs" in axes.get_xlabel()
    assert costs_at_equal_loss(part.reaches[1:]) is None and costs_at_equal_loss(()) is None


@pytest.fixture(scope="module")
def out(folders, tmp_path_factory):
    root, out = folders[0].parent, tmp_path_factory.mktemp("results")
    record_launch(root, "mine@cpu", launch(folders))
    keep(root, "mine@cpu", out, CLAIMS)
    return out


def test_results_keep_it_beside_its_claim_and_compute_it_again(folders, out):
    folder = out / "mine@cpu"
    assert {"equal_loss.csv", "equal_loss.md", "equal-loss.png"} <= {path.name for path in folder.iterdir()}
    said = (folder / "answers.md").read_text().splitlines()
    assert any(line.startswith("- Half of it? Claimed: half. **described**: token top-1 to token") for line in said)
    assert any(line.startswith("- Nobody knows? **described**: what share") for line in said)
    assert any(line.startswith("- New? Claimed: it is. not asked of the runs that were kept") for line in said)
    (archive,) = archives(out)
    before, after = read_study([folders[0].parent], "mine@cpu"), archive.study()
    rows, again = (equal_loss_frame(one.parts[0].reaches) for one in (before, after))
    pd.testing.assert_frame_equal(again, rows)
    assert to_csv(rows) == (folder / "equal_loss.csv").read_bytes() and rows.at[0, "at_most"] == 0.5
    assert len(findings(after, CLAIMS)) == 1  # no verdict, and no count of claims, has it


def test_the_overview_has_it_under_the_paper_s_claims_and_where_questions_read_it(out, tmp_path):
    (tmp_path / QUESTIONS).write_text('1: {asks: "Why?", read: {mine: [equal_loss]}}')
    kept = [answered(archive, CLAIMS) for archive in archives(out)]
    text = overview(kept, tmp_path / QUESTIONS, {"mine": CLAIMS})
    paper = text.partition("### 2403.18926")[2].partition("## What readers")[0]
    assert "1 of 1 hold" in paper and "At equal loss, with intervals that stand alone" in paper
    assert "- [mine@cpu](mine@cpu/answers.md): Half of it? Claimed: half. **described**: token top-1 to" in paper
    assert "Nobody knows?" not in paper  # nobody claims it
    question = text.partition("1. **Why?**")[2].partition("## Sweeps")[0]
    assert "Half of it? 0." in question and "of the executed expert FLOPs of sequence top-2: " in question
    assert "Nobody knows? **described**: what share" in question
