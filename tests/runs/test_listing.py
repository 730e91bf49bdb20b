"""Finding runs in folders and by the beginning of a key."""

import errno
from pathlib import Path

import pytest

from moe_study.errors import DataError, StudyError
from moe_study.runs.folder import list_runs
from moe_study.runs.listing import find_run, find_runs, runs_of_sweep
from moe_study.runs.members import Launch, record_launch
from moe_study.runs.overview import find_states, state_of
from moe_study.runs.status import State

KEYS = ("aaaa000000000000", "aaab000000000000", "bbbb000000000000")


@pytest.fixture
def runs_dir(tmp_path):
    for key in KEYS:
        (tmp_path / "runs" / key).mkdir(parents=True)
        (tmp_path / "runs" / key / "config.yaml").touch()
    return tmp_path / "runs"


@pytest.mark.parametrize("name", ["bbbb000000000000", "bbbb", "b"])
def test_a_key_or_a_beginning_of_one_alone_is_enough(runs_dir, name):
    assert find_run(runs_dir, name).path == runs_dir / KEYS[2]


def test_a_folder_is_taken_wherever_it_lies_and_whatever_its_name(runs_dir, tmp_path):
    (tmp_path / "copied").mkdir()
    (tmp_path / "copied" / "config.yaml").touch()
    assert find_run(runs_dir, str(tmp_path / "copied")).path == tmp_path / "copied"
    assert find_run("elsewhere", f"{runs_dir / KEYS[0]}/").key == KEYS[0]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("aaa", r"aaa can mean 2 runs in .*\(aaaa0+, aaab0+\); write more"),
        ("c", "has a key that begins so"),
        ("", "begins so"),
    ],
)
def test_a_name_of_several_runs_or_of_none_is_one_sentence(runs_dir, name, said):
    with pytest.raises(StudyError, match=said):
        find_run(runs_dir, name)


def test_runs_are_found_in_a_folder_and_as_folders_each_once(runs_dir):
    assert [folder.key for folder in find_runs([runs_dir, runs_dir / KEYS[0]])] == list(KEYS)
    assert [folder.key for folder in find_runs([runs_dir / KEYS[1]])] == [KEYS[1]]


def test_members_of_a_sweep_are_found_also_where_they_never_started(runs_dir):
    record_launch(runs_dir, "mine", Launch(runs=(KEYS[2], "0" * 16)))
    assert [folder.key for folder in find_runs([runs_dir], "mine")] == [KEYS[2], "0" * 16]
    assert [folder.path.exists() for folder in runs_of_sweep(runs_dir, "mine")] == [True, False]


def test_a_folder_that_nobody_may_look_into_is_still_a_run(runs_dir, monkeypatch):
    def exists(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "exists", exists)
    assert [folder.key for folder in list_runs(runs_dir)] == list(KEYS)
    (found,) = (run for run in map(state_of, list_runs(runs_dir)) if run.folder.key == KEYS[0])
    assert found.state is State.MISSING or "cannot be read: Permission denied" in found.status.message


def test_the_state_of_a_run_can_be_asked_by_its_own_folder(runs_dir):
    assert [run.folder.key for run in find_states(runs_dir / KEYS[1])] == [KEYS[1]]
    with pytest.raises(DataError, match=r"there is no folder .*nowhere"):
        find_states(runs_dir / "nowhere")


def test_a_folder_that_is_missing_or_empty_is_one_sentence(tmp_path):
    with pytest.raises(DataError, match="there is no folder"):
        find_runs([tmp_path / "nowhere"])
    with pytest.raises(DataError, match="no runs in"):
        find_runs([tmp_path])
