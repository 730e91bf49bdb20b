"""What is kept of a sweep's runs beside their losses: files, their texts, and answers read from them."""

from dataclasses import dataclass
from types import SimpleNamespace

import pandas as pd
import pytest

from moe_study.analysis.results import measures
from moe_study.analysis.results.measure import Measure, keep_measure, read_rows
from moe_study.analysis.results.measures import MEASURES, find_measure, kept_texts, read_answer
from moe_study.errors import DataError

ROWS = pd.DataFrame({"key": ["a", "b"], "label": ["x", "x"], "seed": [0, 1], "norm": [1.0, 3.0]})


@dataclass(frozen=True)
class OfRuns:
    """A study of finished runs with these keys."""

    keys: str = "ab"

    @property
    def parts(self):
        frame = pd.DataFrame({"key": list(self.keys), "state": "done", "label": "x", "seed": 0, "folder": "nowhere"})
        return [SimpleNamespace(name="", frame=frame)]

    def __str__(self):
        return f"{len(self.keys)} runs"


def one_measure(rows, **options):
    return Measure(
        "norms",
        "norms by part, of {of}",
        "type this for {sweep} and {of}{probe}",
        lambda study: rows,
        lambda kept: f"{kept.of}: {kept.rows['norm'].sum():g} over {kept.study}\n",
        {
            "": lambda kept: [f"mean {kept.rows['norm'].mean():g}"],
            "each": lambda kept: [f"{norm:g}" for norm in kept.rows["norm"]],
            "largest": lambda kept: [f"{kept.rows['norm'].max():g}"],
        },
        **options,
    )


@pytest.fixture
def with_norms(monkeypatch):
    """The list of measures with one more."""
    measure = one_measure({"probe": ROWS})
    monkeypatch.setattr(measures, "MEASURES", (*MEASURES, measure))
    return measure


def test_a_measure_is_kept_as_rows_and_text(tmp_path):
    paths = keep_measure(one_measure({"probe": ROWS, "": ROWS, "empty": ROWS[:0]}), tmp_path, OfRuns())
    assert [path.name for path in paths] == ["norms-probe.parquet", "norms-probe.md", "norms.parquet", "norms.md"]
    pd.testing.assert_frame_equal(read_rows(paths[0]), ROWS)
    assert paths[1].read_text() == "probe: 4 over 2 runs\n" and paths[3].read_text() == ": 4 over 2 runs\n"


def test_what_a_few_runs_have_because_other_sweeps_were_asked_is_not_kept(tmp_path):
    assert not keep_measure(one_measure({"": ROWS}), tmp_path, OfRuns("abcde"))
    assert keep_measure(one_measure({"": ROWS}), tmp_path, OfRuns("abcd"))


def test_runs_that_a_measure_cannot_be_made_of_do_not_count(tmp_path):
    of_two = one_measure({"": ROWS}, can=lambda row: row["key"] in "ab")
    assert keep_measure(of_two, tmp_path, OfRuns("abcdefgh"))


def test_what_was_kept_is_renewed_by_however_few_runs(tmp_path):
    keep_measure(one_measure({"": ROWS}), tmp_path, OfRuns())
    paths = keep_measure(one_measure({"": ROWS[:1]}), tmp_path, OfRuns("abcdefgh"))
    assert len(read_rows(paths[0])) == 1


def test_what_was_kept_stays_without_the_runs_and_its_text_is_that_of_the_study_now(tmp_path):
    keep_measure(one_measure({"": ROWS}), tmp_path, OfRuns())
    paths = keep_measure(one_measure({}), tmp_path, OfRuns("abcdef"))
    assert paths[1].read_text() == ": 4 over 6 runs\n"


def test_measures_whose_names_begin_alike_keep_files_of_their_own(tmp_path):
    keep_measure(one_measure({"": ROWS}), tmp_path, OfRuns())
    (tmp_path / "normsquared.parquet").write_bytes(b"another's")
    assert [path.name for _, path in one_measure({}).kept_in(tmp_path)] == ["norms.parquet"]


def test_an_answer_is_read_from_what_was_kept(tmp_path, with_norms):
    keep_measure(with_norms, tmp_path, OfRuns())
    link = "([norms by part, of probe](my/own@cpu/norms-probe.md))"
    assert list(read_answer("norms-probe", tmp_path, None, "my/own@cpu")) == [f"- mean 2 {link}"]
    assert list(read_answer("norms-probe/largest", tmp_path, None, "my/own@cpu")) == [f"- 3 {link}"]
    each = list(read_answer("norms-probe/each", tmp_path, None, "my/own@cpu"))
    assert each == [f"- {link[1:-1]}", "  - 1", "  - 3"]  # one link for all
    assert list(kept_texts(tmp_path, OfRuns("abcd"))) == [(tmp_path / "norms-probe.md", "probe: 4 over 4 runs\n")]


def test_where_nothing_was_kept_stands_what_to_type(tmp_path, with_norms):
    says = list(read_answer("norms-brown", tmp_path, None, "my/own@cpu"))
    assert says == ["- not measured yet: `type this for my/own@cpu and brown --probe brown`"]


@pytest.mark.parametrize(
    ("written", "says"),
    [
        ("norm", r"^norm names no measure; there are tokens"),
        ("", "names no measure; there are tokens"),
        ("norms/none", "norms is measured on a probe; say on which, as in norms-brown"),
        ("norms-probe/other", "norms-probe/other is no reading of norms; there are norms-probe, norms-probe/each"),
        ("lazy-brown", "lazy is not measured on a probe; write lazy"),
    ],
)
def test_an_answer_from_nowhere_is_one_sentence(written, says, with_norms):
    with pytest.raises(DataError, match=says):
        find_measure(written)


def test_damaged_rows_are_one_sentence(tmp_path):
    (tmp_path / "norms.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"norms\.parquet is damaged"):
        keep_measure(one_measure({}), tmp_path, None)


def test_committed_measures_have_names_of_their_own_and_a_plain_reading():
    assert len({one.name for one in MEASURES}) == len(MEASURES)
    for one in MEASURES:
        assert "" in one.sentences and "{sweep}" in one.command and "-" not in one.name
