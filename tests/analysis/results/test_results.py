"""results/: what is kept of a sweep says again what its runs said."""

import dataclasses
import json
import shutil

import pandas as pd
import pytest

from moe_study.analysis.comparison import Verdict
from moe_study.analysis.report import answers
from moe_study.analysis.results.answered import answered
from moe_study.analysis.results.archive import MANIFEST, RUNS, archives, read_archive, write_archive
from moe_study.analysis.results.headlines import HEADLINES
from moe_study.analysis.results.keep import keep, sweeps_to_keep
from moe_study.analysis.results.overview import overview, overview_texts
from moe_study.analysis.results.questions import QUESTIONS
from moe_study.analysis.results.verdicts import FAILS, HOLDS, LACKING, OPEN, findings, verdict_of
from moe_study.analysis.study import read_study
from moe_study.analysis.tables_out import to_csv
from moe_study.cli import main
from moe_study.design.identity import ABSENT
from moe_study.design.routing import Context, Routing
from moe_study.errors import DataError, StudyError
from moe_study.runs.members import Launch, PlannedComparison, record_launch
from moe_study.sweeps.claims import Claim, Claims, Expected
from moe_study.sweeps.conf import project_root
from tests.analysis import planted
from tests.analysis.results.launched import comparisons_csv
from tests.part import every

ROOT = project_root()
CLAIMS = Claims(
    "a paper, Table 1",
    (1,),
    (
        Claim("the two", "the dense", "Are two better?", "yes, 9 against 10", Expected.LOWER),
        Claim("the sequence", "the two", "Which unit?"),
        Claim("the lost", "the two", "Never trained?", "yes", Expected.SAME),
    ),
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Planted runs of a sweep with three comparisons, one of them of a point that no run has, and an unfinished run."""
    root = tmp_path_factory.mktemp("kept") / "runs"
    keys = [folder.name for folder in planted.plant(root, seeds=range(4))]
    dense, two, sequence = keys[:4], keys[12:16], keys[20:24]
    comparisons = (
        PlannedComparison("the two", "the dense", tuple(two), tuple(dense), "Are two better?"),
        PlannedComparison("the sequence", "the two", tuple(sequence), tuple(two), "Which unit?", 0.03),
        PlannedComparison("the lost", "the two", ("0" * 16,), tuple(two)),
    )
    names = {key: f"number {place}" for place, key in enumerate([*keys, "0" * 16])}
    record_launch(root, "mine/own@cpu", Launch((), tuple(names), comparisons, names))
    return root


@pytest.fixture(scope="module")
def out(runs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    keep(runs, "mine/own@cpu", folder, CLAIMS)
    return folder


@pytest.fixture(scope="module")
def todays(out):
    return read_archive(out / "mine/own@cpu")


def test_what_is_kept_gives_the_tables_and_verdicts_of_the_runs(runs, out):
    before, after = read_study([runs], "mine/own@cpu"), read_archive(out / "mine/own@cpu").study()
    assert after.planned and len(after.comparisons) == len(before.comparisons) == 3
    for one, again in zip(before.parts, after.parts, strict=True):
        assert to_csv(again.table) == to_csv(one.table)
        assert comparisons_csv(again) == comparisons_csv(one)
        assert [run.sentence for run in again.absent] == [run.sentence for run in one.absent]
        assert again.leaking == one.leaking and again.leaking


@pytest.mark.long
def test_what_is_kept_of_points_from_two_machines_answers_as_their_runs_do(tmp_path):
    twin = dataclasses.replace(planted.SEQUENCE_2, context=Context.FIRST_TOKEN)
    grid = [Routing(k=k, num_experts=n) for k in (1, 2) for n in (2, 4)]
    routings = [planted.DENSE_1X, planted.DENSE_2X, planted.SEQUENCE_2, twin, *grid]
    folders = planted.plant(tmp_path / "runs", routings, [0.1 * place for place in range(8)], seeds=range(3))
    for place, folder in enumerate(folders):
        (folder / "provenance.json").write_text(json.dumps({"commit": "c", "cpu": "old" if place < 6 else "new"}))
    record_launch(tmp_path / "runs", "mine", Launch((), tuple(folder.name for folder in folders)))
    keep(tmp_path / "runs", "mine", tmp_path / "kept", Claims())
    before, after = read_study([tmp_path / "runs"], "mine"), read_archive(tmp_path / "kept" / "mine").study()
    assert list(answers(after)) == list(answers(before))
    (part,) = after.parts
    assert part.leak_prices and part.other_effects and part.other_equal_costs and part.families[0].varies


@pytest.mark.parametrize("added", every(2, sorted(set(ABSENT) - {"model.init_std"})))
def test_a_setting_that_was_added_since_has_the_value_it_had_before(todays, tmp_path, added):
    write_archive(tmp_path, todays.frame.drop(columns=[added, "folder"]), todays.members, todays.manifest)
    older = read_archive(tmp_path)
    finished = todays.frame["state"] == "done"
    assert older.frame[added][finished].astype(object).equals(todays.frame[added][finished].astype(object))
    assert list(answers(older.study())) == list(answers(todays.study()))


def test_files_beside_the_archive_are_those_of_the_study(out):
    folder = out / "mine/own@cpu"
    (part,) = read_archive(folder).study().parts
    assert (folder / "table.csv").read_bytes() == to_csv(part.table)
    assert (folder / "comparisons.csv").read_text() == comparisons_csv(part)
    assert {path.name for path in folder.iterdir()} == {
        *("answers.md", "comparisons.csv", "comparisons.md", "differences.png", MANIFEST, "perplexity.png", RUNS),
        *("load.md", "load.parquet", "load.png", "table.csv", "table.md"),
    }


def test_there_is_one_row_for_each_run_and_no_path_of_the_machine(runs, out):
    frame = pd.read_parquet(out / "mine/own@cpu" / RUNS)
    assert len(frame) == 25 and frame["key"].is_unique
    assert "folder" not in frame and not [name for name in frame if name.startswith("log.")]
    manifest = (out / "mine/own@cpu" / MANIFEST).read_text()
    assert str(runs) not in manifest + frame.to_csv()


def test_a_manifest_says_how_it_came_about(out):
    manifest = json.loads((out / "mine/own@cpu" / MANIFEST).read_text())
    assert manifest["command"] == "python train.py -m +sweep=mine/own scale=cpu"
    assert (manifest["sweep"], manifest["runs"], manifest["done"]) == ("mine/own@cpu", 25, 24)
    assert manifest["hours_by_the_clock"] > 0 and manifest["source"] == "a paper, Table 1"


@pytest.mark.long
def test_the_same_runs_give_the_same_bytes(runs, out, tmp_path):
    keep(runs, "mine/own@cpu", tmp_path, CLAIMS)
    for path in (out / "mine/own@cpu").iterdir():
        assert (tmp_path / "mine/own@cpu" / path.name).read_bytes() == path.read_bytes(), path.name


def test_findings_stand_beside_what_was_claimed(out):
    found = findings(read_archive(out / "mine/own@cpu").study(), CLAIMS)
    assert [one.verdict for one in found] == [HOLDS, "higher", LACKING]
    assert found[0].pair == "token top-2 − dense 1x" and found[1].pair == "sequence top-2 † − token top-2"
    low, high = found[0].effect.partition("[")[2].rstrip("]").split(", ")
    assert float(low) < float(found[0].effect.partition(" ")[0]) < float(high) < 0
    assert found[0].hours > 0 and found[2].hours == 0


def test_the_overview_has_claims_questions_and_what_was_not_run(out, tmp_path):
    questions = tmp_path / QUESTIONS
    questions.write_text('1: {asks: "Why?"}\n12: {asks: "How?"}')
    kept = [answered(archive, CLAIMS) for archive in archives(out)]
    text = overview(kept, questions, {"mine/own": CLAIMS, "other": Claims("", (12,))})
    assert "1 of 2 hold, 0 fail, 1 are undecided or lack runs." in text
    assert "### other sources" in text and "1 of 1 decided." in text
    assert "| A paper, Table 1 | Are two better? (yes, 9 against 10) | [mine/own@cpu](mine/own@cpu/answers.md)" in text
    assert "1. **Why?**" in text and "12. **How?**" in text
    assert "| 24 of 25 | 2 of 3 |" in text and "Not run yet: other." in text


@pytest.fixture(scope="module")
def comparison(out):
    return read_archive(out / "mine/own@cpu").study().comparisons[0]


@pytest.mark.parametrize(
    ("measured", "small", "expect", "verdict"),
    [
        (Verdict.LOWER, False, Expected.LOWER, HOLDS),
        (Verdict.LOWER, False, Expected.HIGHER, FAILS),
        (Verdict.LOWER, False, Expected.SAME, FAILS),
        (Verdict.LOWER, True, Expected.SAME, HOLDS),
        (Verdict.LOWER, False, Expected.NOT_HIGHER, HOLDS),
        (Verdict.HIGHER, False, Expected.NOT_HIGHER, FAILS),
        (Verdict.HIGHER, True, Expected.NOT_HIGHER, HOLDS),
        (Verdict.HIGHER, False, Expected.HIGHER, HOLDS),
        (Verdict.SAME, True, Expected.SAME, HOLDS),
        (Verdict.SAME, True, Expected.LOWER, FAILS),
        (Verdict.SAME, True, Expected.NOT_HIGHER, HOLDS),
        (Verdict.UNCLEAR, False, Expected.LOWER, OPEN),
        (Verdict.UNCLEAR, True, Expected.SAME, OPEN),
        (Verdict.ONE_PAIR, False, Expected.LOWER, OPEN),
    ],
)
def test_a_claim_holds_or_fails_only_where_the_test_decided(comparison, measured, small, expect, verdict):
    mean = {Verdict.LOWER: -0.1, Verdict.HIGHER: 0.1}.get(measured, 0.0)
    p, p_same = (0.5 if measured is not Verdict.SAME else 0.6), (0.001 if measured is Verdict.SAME else 0.5)
    if measured in (Verdict.LOWER, Verdict.HIGHER):
        p = 0.001
    n = 1 if measured is Verdict.ONE_PAIR else 4
    interval = dataclasses.replace(comparison.interval, low=mean - 0.01, high=mean + 0.01)
    margin = 0.2 if small else 0.02
    difference = dataclasses.replace(comparison.difference, mean=mean, n=n)
    made = dataclasses.replace(
        comparison, difference=difference, interval=interval, margin=margin, p=p, p_same=p_same, family=1
    )
    assert made.verdict is measured
    assert verdict_of(expect, made) == verdict


def test_all_committed_sweeps_are_kept_or_those_that_are_asked_for():
    launched = ["first_look", "mine", "open/leak@cpu", "open/leak@gpu"]
    assert sweeps_to_keep(launched, ["first_look", "open/leak"], []) == ["first_look", "open/leak@cpu", "open/leak@gpu"]
    assert sweeps_to_keep(launched, [], ["open/leak", "mine"]) == ["open/leak@cpu", "open/leak@gpu", "mine"]
    assert sweeps_to_keep(launched, [], ["open/leak@gpu"]) == ["open/leak@gpu"]
    with pytest.raises(StudyError, match="no sweep open/gate was launched; there are first_look"):
        sweeps_to_keep(launched, [], ["open/gate"])
    with pytest.raises(StudyError, match="no committed sweep to keep: there are mine; name"):
        sweeps_to_keep(["mine"], ["first_look"], [])


@pytest.mark.parametrize("runs_dir", ["empty", "missing"])
def test_a_folder_without_a_sweep_is_one_sentence_and_writes_nothing(tmp_path, capsys, runs_dir):
    (tmp_path / "empty").mkdir()
    assert main(["results", str(tmp_path / runs_dir), "--out", str(tmp_path / "out")]) != 0
    assert "error: no committed sweep to keep: none was launched there; name" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("asked", [["--probe", "nosuch"], ["--probe", "brown", "--tokens", "0"]])
def test_a_probe_that_cannot_be_is_one_sentence_and_not_one_for_every_run(runs, tmp_path, capsys, asked):
    assert main(["results", str(runs), "--sweep", "mine/own", "--out", str(tmp_path), *asked]) != 0
    said = capsys.readouterr()
    assert said.err.count("\n") == 1 and not said.out


@pytest.mark.long
def test_a_sweep_whose_file_lies_elsewhere_is_kept_by_the_path_to_it(runs, tmp_path, capsys):
    keys = json.loads((runs / ".sweeps/mine/own@cpu.json").read_text())["launches"][0]["runs"][:8]
    pair = PlannedComparison("routing=token_top1", "routing=dense", tuple(keys[4:]), tuple(keys[:4]))
    for name in ("elsewhere", "scaled@small"):
        record_launch(runs, name, Launch((), tuple(keys), (pair,), dict.fromkeys(keys, "a")))
    text = "source: a paper\ncompare:\n  - pair: [{routing: token_top1}, {routing: dense}]\n"
    text += "    why: Which?\n    claim: the first\n    expect: lower\n"
    (tmp_path / "elsewhere.yaml").write_text(text)
    (tmp_path / "scaled.yaml").write_text(f"{text}scale: large\nscales: {{small: {{}}, large: {{}}}}\n")
    out = tmp_path / "out"
    for asked in ("elsewhere.yaml", "scaled.yaml"):
        assert main(["results", str(runs), "--out", str(out), "--sweep", str(tmp_path / asked)]) == 0
    assert {archive.name for archive in archives(out)} == {"elsewhere", "scaled@small"}
    (tmp_path / "elsewhere.yaml").unlink()
    assert main(["results", "--only-overview", "--out", str(out)]) == 0
    assert (out / "README.md").read_text().count("Which? (the first)") == 2
    assert main(["results", str(runs), "--out", str(out), "--sweep", "elsewhere"]) != 0
    assert "a file elsewhere is meant by its path" in capsys.readouterr().err


def test_an_overview_alone_reads_no_runs_and_says_so(tmp_path, capsys):
    command = ["results", "--only-overview", "--out", str(tmp_path), "--sweep", "open/gate@cpu", "--lazy"]
    assert main(command) != 0
    assert "leave out --sweep, --lazy, or it" in capsys.readouterr().err


@pytest.mark.parametrize("file", [QUESTIONS, HEADLINES])
def test_a_sweep_that_there_is_not_is_not_called_one_that_was_not_run(tmp_path, file):
    text = (
        "1: {asks: a, read: {%s: [comparisons]}}"
        if file == QUESTIONS
        else "against: {sweep: %s, reference: a, title: b}"
    )
    (tmp_path / file).write_text(text % "open/gate")
    overview_texts(tmp_path, ROOT)
    for wrong in ("open/gat", "open/gate@cpu"):
        (tmp_path / file).write_text(text % wrong)
        with pytest.raises(DataError, match=f"{file} names {wrong}, which is no sweep; did you mean open/gate"):
            overview_texts(tmp_path, ROOT)


def test_an_archive_in_a_folder_of_another_name_is_one_sentence(out, tmp_path):
    shutil.copytree(out / "mine/own@cpu", tmp_path / "mine/renamed@cpu")
    with pytest.raises(DataError, match=r"renamed@cpu holds what was kept of mine/own@cpu; move it to"):
        archives(tmp_path)


def test_results_of_a_later_version_are_not_known_of_older_rows(out, tmp_path):
    archive = read_archive(out / "mine/own@cpu")
    rows = archive.frame.drop(columns=["folder", "peak_memory_bytes", "executed_active_params"])
    manifest = {name: value for name, value in archive.manifest.items() if name != "members"}
    write_archive(tmp_path, rows, archive.members, manifest)
    again = read_archive(tmp_path)
    assert again.frame["peak_memory_bytes"].isna().all()
    found, known = ([repr(c.difference) for c in one.study().comparisons] for one in (again, archive))
    assert found == known  # as texts: no NaN equals another


DAMAGE = ["no manifest", "no runs", "runs of another kind", "members", "list", "no hardware", "no loss", "text as loss"]


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_archive_is_one_sentence(out, tmp_path, damage):
    for name in (MANIFEST, RUNS):
        (tmp_path / name).write_bytes((out / "mine/own@cpu" / name).read_bytes())
    if damage == "no manifest":
        (tmp_path / MANIFEST).unlink()
    elif damage == "no runs":
        (tmp_path / RUNS).unlink()
    elif damage in ("members", "list", "no hardware"):
        manifest = json.loads((tmp_path / MANIFEST).read_text())
        told = {name: value for name, value in manifest.items() if name != "hardware"}
        written = {"members": manifest | {"members": {"launch": 3}}, "list": [], "no hardware": told}
        (tmp_path / MANIFEST).write_text(json.dumps(written[damage]))
    elif damage in ("no loss", "text as loss"):
        archive = read_archive(tmp_path)
        rows = archive.frame.drop(columns="validation_loss")
        if damage == "text as loss":
            rows["validation_loss"] = "low"
        write_archive(tmp_path, rows, archive.members, dict(archive.manifest))
    else:
        pd.DataFrame({"a": [1]}).to_parquet(tmp_path / RUNS)
    with pytest.raises(DataError) as caught:
        read_archive(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_a_sweep_without_a_finished_run_is_not_kept(tmp_path):
    record_launch(tmp_path / "runs", "first_look", Launch((), ("0" * 16,), (), {"0" * 16: "a"}))
    assert main(["results", str(tmp_path / "runs"), "--sweep", "first_look", "--out", str(tmp_path / "out")]) != 0
    assert not (tmp_path / "out").exists()
