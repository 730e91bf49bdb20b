"""Which runs of a table came about by other code, torch or data than the rest."""

import json

import pytest

from moe_study.errors import DataError
from moe_study.runs.folder import RunFolder
from moe_study.runs.mixed import mixed

CODE = {"commit": "a" * 40, "diff": None}
CLEAN = {**CODE, "versions": {"torch": "2.13.0"}, "data_fingerprint": "d" * 64, "first_step": 0}


@pytest.fixture
def made(tmp_path):
    """A function from records to run folders that hold them."""

    def make(*records):
        folders = []
        for number, record in enumerate(records):
            folder = tmp_path / f"{number:016x}"
            folder.mkdir()
            if record is not None:
                (folder / "provenance.json").write_text(record if isinstance(record, str) else json.dumps(record))
            folders.append(RunFolder(folder))
        return folders

    return make


def sentences(folders, **names):
    return [mixture.sentence(names) for mixture in mixed(folders)]


def test_runs_of_one_make_are_not_mixed(made):
    assert mixed(made(CLEAN, CLEAN, {**CLEAN, "host": "elsewhere", "time": 3.0})) == ()
    assert mixed([]) == ()


def test_a_dirty_diff_is_other_code_and_the_smaller_group_is_named(made):
    folders = made(CLEAN, CLEAN, {**CLEAN, "diff": "f" * 64})
    (said,) = sentences(folders, **{folders[2].key: "dense 1x, seed 4"})
    assert said.startswith("these runs differ in their code: 2 have aaaaaaaaa, 1 aaaaaaaaa with changes fffffffff ")
    assert said.endswith("(dense 1x, seed 4)")


@pytest.mark.parametrize(
    ("what", "other"),
    [
        ("code", {"commit": "b" * 40}),
        ("code", {"diff": "f" * 64}),
        ("code", {"commit": None, "version": "0.3", "sources": "c" * 64}),
        ("torch", {"versions": {"torch": "2.12.1"}}),
        ("data", {"data_fingerprint": "e" * 64}),
    ],
)
def test_each_respect_is_seen_alone(made, what, other):
    (mixture,) = mixed(made(CLEAN, {**CLEAN, **other}, CLEAN))
    assert mixture.what == what
    assert [len(keys) for _, keys in mixture.groups] == [2, 1]


def test_installed_packages_differ_by_their_sources(made):
    installed = {**CLEAN, "commit": None, "version": "0.3", "sources": "c" * 64}
    (mixture,) = mixed(made(installed, installed, {**installed, "sources": "9" * 64}))
    assert mixture.what == "code" and [len(keys) for _, keys in mixture.groups] == [2, 1]


def test_a_commit_that_leaves_the_modules_as_they_are_is_the_same_code(made):
    """Such as one of a sweep file or of a text."""
    old = {**CLEAN, "sources": "c" * 64}
    later = {**old, "commit": "b" * 40}
    folders = made(old, {**later, "diff": "f" * 64}, {**later, "sources": "9" * 64})
    assert mixed(folders[:2]) == ()
    (said,) = sentences(folders)
    assert said.startswith("these runs differ in their code: 2 have aaaaaaaaa, 1 bbbbbbbbb (")


@pytest.mark.parametrize(("first_step", "is_mixed"), [(0, False), (40, True)])
def test_an_earlier_attempt_counts_where_the_run_was_resumed_from_it(made, first_step, is_mixed):
    run = {**CLEAN, "first_step": first_step, "earlier": [{**CLEAN, "commit": "b" * 40}]}
    said = sentences(made(CLEAN, CLEAN, run))
    assert len(said) == is_mixed
    assert not is_mixed or "aaaaaaaaa, resumed from bbbbbbbbb" in said[0]


def test_what_was_never_recorded_or_is_damaged_is_a_value_of_its_own(made):
    said = sentences(made(CLEAN, CLEAN, None, "{"))
    assert len(said) == 3 and all("2 not recorded" in one for one in said)


@pytest.mark.parametrize(
    "wrong",
    [
        *({"commit": 7}, {"diff": ["x"]}, {"versions": "2.13"}, {"versions": {"torch": 2.13}}, {"data_fingerprint": 3}),
        *({"earlier": {"commit": "b" * 40}}, {"earlier": [None], "first_step": 3}, {"time": "noon"}, {"time": 1e300}),
        *({"earlier": [{"commit": 7}], "first_step": 3}, {"device": {"name": "cpu"}}),
    ],
)
def test_a_record_with_fields_of_other_types_counts_as_not_recorded_and_its_reader_names_it(made, wrong):
    damaged = made(CLEAN, CLEAN, {**CLEAN, **wrong})
    assert all("1 not recorded" in one for one in sentences(damaged)) and len(sentences(damaged)) == 3
    with pytest.raises(DataError, match=r"provenance\.json is damaged: its? .*; restore it, or delete it"):
        damaged[-1].provenance()


def test_many_runs_are_counted_after_the_first_few(made):
    (said,) = sentences(made(*[CLEAN] * 9, *[{**CLEAN, "commit": "b" * 40}] * 6))
    assert "and 2 more" in said
