"""results/: what is committed is what its runs give, computed anew."""

import functools
import io
from pathlib import Path

import pandas as pd
import pytest

from moe_study.analysis.results.archive import MANIFEST, Archive, archives, read_archive
from moe_study.analysis.results.overview import overview_texts
from moe_study.analysis.results.questions import QUESTIONS, read_readers_questions
from moe_study.analysis.results.replication import FOLDER, TEXT, replication_text
from moe_study.analysis.sections import section_tables
from moe_study.analysis.tables_out import to_csv
from moe_study.sweeps.conf import project_root
from moe_study.sweeps.sweep_file import claims_of, sweep_names
from tests.analysis.results.launched import comparisons_csv
from tests.part import every

ROOT = project_root()
RESULTS = ROOT / "results"
COMMITTED = sorted(path.parent for path in RESULTS.rglob(MANIFEST) if path.parent.name != FOLDER)


@functools.cache
def committed() -> list[Archive]:
    """With their studies, which are computed once."""
    return archives(RESULTS)


@pytest.fixture
def archive(request) -> Archive:
    (one,) = (one for one in committed() if one.folder == request.param)
    return one


NAMES = [path.relative_to(RESULTS).as_posix() for path in COMMITTED]


def test_every_committed_folder_holds_an_archive():
    assert sorted(one.folder for one in committed()) == COMMITTED != []


@pytest.mark.parametrize("archive", every(3, COMMITTED), indirect=True, ids=NAMES)
def test_committed_tables_and_verdicts_are_those_of_the_committed_runs(archive):
    study = archive.study()
    assert archive.folder == RESULTS / archive.name
    for part in study.parts:
        folder = archive.folder / part.name if part.name else archive.folder
        texts = {"table": to_csv(part.table).decode(), "comparisons": comparisons_csv(part)}
        asked = {"effects": part.effects, "trends": part.trends}
        asked |= {"equal_cost": part.equal_costs, "equal_loss": part.reaches}
        for name, frame, _ in section_tables(part):
            if asked.get(name):
                texts[name] = to_csv(frame).decode()
        assert {path.stem for path in folder.glob("*.csv")} == texts.keys()
        for name, text in texts.items():
            held, now = (pd.read_csv(io.StringIO(t)) for t in ((folder / f"{name}.csv").read_text(), text))
            pd.testing.assert_frame_equal(held, now, rtol=1e-6, check_dtype=False)


def test_committed_questions_are_answered_from_committed_sweeps():
    questions = read_readers_questions(ROOT / "results" / QUESTIONS)
    assert [one.number for one in questions] == list(range(1, 14))
    for question in questions:
        assert question.read and set(question.read) <= set(sweep_names(ROOT)), question.number


@pytest.mark.parametrize("archive", COMMITTED, indirect=True, ids=NAMES)
def test_committed_replications_are_computed_from_both_sets_of_committed_runs(archive):
    if (archive.folder / FOLDER).exists():
        text = replication_text(archive, read_archive(archive.folder / FOLDER), claims_of(archive.name, ROOT))
        assert text == (archive.folder / FOLDER / TEXT).read_text(encoding="utf-8")


@pytest.mark.long
def test_the_committed_overview_its_pictures_the_texts_of_measures_and_the_readme_are_those_of_the_committed_runs(
    monkeypatch,
):
    monkeypatch.setattr("moe_study.analysis.results.overview.archives", lambda root: committed())
    texts = overview_texts(ROOT / "results", ROOT)
    kept = {path.with_suffix(".md") for folder in COMMITTED for path in folder.glob("*.parquet")}
    assert {path.relative_to(ROOT).as_posix() for path in set(texts) - kept} == {
        *("README.md", "results/README.md", "results/claims.svg", "results/against.svg"),
    }
    assert {path.with_name("runs.md") for path in kept} | set(texts) >= kept
    for path, text in texts.items():
        assert text == path.read_text(encoding="utf-8"), f"{path} is not up to date: run moe-study results"


def test_what_is_committed_names_no_path_of_a_machine():
    for path in Path(ROOT / "results").rglob("*"):
        if path.suffix in (".json", ".md", ".csv", ".yaml", ".svg"):
            text = path.read_text(encoding="utf-8")
            assert "/work/" not in text and "/tmp/" not in text and "/root" not in text, path
