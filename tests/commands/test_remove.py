"""`moe-study remove`: what goes, what stays, and what it takes to say yes."""

import errno
import io
import shutil
import sys

import pytest

from moe_study.cli import main
from moe_study.design.config import LogConfig, RunConfig, RunSettings
from moe_study.runs.folder import RunFolder, State, list_runs
from moe_study.runs.members import Launch, read_members, record_launch
from moe_study.runs.overview import state_of
from moe_study.runs.removal import plan_removal, remove

STATES = ("done", "failed", "preempted", "diverged", "stale")


def make(runs_dir, seed, state):
    """A run in `state` with a checkpoint of 2,000 bytes."""
    config = RunConfig(run=RunSettings(seed=seed, steps=10), log=LogConfig(runs_dir=str(runs_dir)))
    folder = RunFolder.of(config)
    with folder.claim(config):
        folder.start(10)
        folder.append_metrics({"kind": "train", "step": 1, "loss": 1.0})
        folder.checkpoint_folder.mkdir()
        (folder.checkpoint_folder / "final.pt").write_bytes(bytes(2000))
        if state == "done":
            folder.finish({"validation_loss": 1.0})
        elif state == "failed":
            folder.fail("the reason")
        elif state == "preempted":
            folder.preempt(4)
        elif state == "diverged":
            folder.diverge("not finite", 3)
    return folder


@pytest.fixture
def runs_dir(tmp_path):
    return tmp_path / "runs"


@pytest.fixture
def runs(runs_dir):
    """A run in each state, by state."""
    return {state: make(runs_dir, seed, state) for seed, state in enumerate(STATES)}


def states(runs_dir):
    return sorted(folder.state().value for folder in list_runs(runs_dir))


def call(runs_dir, *arguments):
    return main(["remove", *arguments, "--runs-dir", str(runs_dir)])


def test_nothing_goes_until_somebody_says_yes(runs_dir, runs, capsys):
    assert call(runs_dir, "--failed") == 1
    out = capsys.readouterr().out
    assert f"{runs['failed'].path}  failed" in out and "the whole run" in out
    assert "1 to remove: 4." in out and " kB" in out  # a checkpoint of 4 kB, and all else, with the folder's name
    assert "nothing was removed; add --yes" in out
    assert states(runs_dir) == sorted(STATES)


@pytest.mark.parametrize(("answer", "goes"), [("y\n", True), ("yes\n", True), ("n\n", False), ("\n", False)])
def test_on_a_terminal_it_asks(runs_dir, runs, monkeypatch, answer, goes):
    terminal = io.StringIO(answer)
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stdin", terminal)
    assert call(runs_dir, "--failed") == (0 if goes else 1)
    assert runs["failed"].path.exists() is not goes


def test_failed_runs_go_as_a_whole_and_others_stay(runs_dir, runs):
    assert call(runs_dir, "--failed", "--yes") == 0
    assert states(runs_dir) == ["diverged", "done", "preempted", "stale"]
    assert sorted(path.name for path in runs_dir.iterdir()) == sorted(folder.key for folder in list_runs(runs_dir))


def test_checkpoints_of_finished_runs_go_and_every_result_stays(runs_dir, runs, capsys):
    assert call(runs_dir, "--checkpoints", "--yes") == 0
    assert "2 to remove: 4 kB" in capsys.readouterr().out
    assert states(runs_dir) == sorted(STATES)
    assert runs["done"].result() == {"validation_loss": 1.0}
    assert {state for state in STATES if runs[state].checkpoint_folder.exists()} == {"failed", "preempted", "stale"}
    assert call(runs_dir, "--checkpoints", "--yes") == 0
    assert "there is nothing to remove" in capsys.readouterr().out


def test_a_key_leaves_a_result_unless_results_are_asked_for(runs_dir, runs):
    done, diverged, preempted = (runs[state] for state in ("done", "diverged", "preempted"))
    assert call(runs_dir, done.key, diverged.key[:7], str(preempted.path), "--yes") == 0
    assert states(runs_dir) == ["diverged", "done", "failed", "stale"]
    assert not done.checkpoint_folder.exists() and not diverged.checkpoint_folder.exists()
    assert call(runs_dir, done.key, diverged.key, "--results", "--yes") == 0
    assert states(runs_dir) == ["failed", "stale"]


def test_checkpoints_of_an_unfinished_run_go_only_by_its_key(runs_dir, runs):
    assert call(runs_dir, runs["preempted"].key, "--checkpoints", "--yes") == 0
    assert not runs["preempted"].checkpoint_folder.exists()
    assert states(runs_dir) == sorted(STATES)


def test_a_running_run_always_stays(runs_dir, runs, capsys):
    config = RunConfig(run=RunSettings(seed=9, steps=10), log=LogConfig(runs_dir=str(runs_dir)))
    folder = RunFolder.of(config)
    with folder.claim(config):
        folder.start(10)
        assert call(runs_dir, folder.key, "--results", "--yes") == 0
        assert f"{folder.path}  running    stays" in capsys.readouterr().out
        assert folder.state() is State.RUNNING


def test_a_run_that_was_started_or_ended_while_one_was_asked_stays(runs_dir, runs):
    chosen = plan_removal([state_of(runs["failed"]), state_of(runs["preempted"])]).chosen
    for state in ("failed", "preempted"):
        config = runs[state].read_config()
        with RunFolder.of(config).claim(config) as folder:
            folder.start(10)
            if state == "preempted":
                (problem,) = remove(chosen[1:])
                assert str(problem) == f"{folder.path} was started meanwhile and stays"
            folder.finish({"validation_loss": 2.0})
    assert len(remove(chosen)) == 2
    assert runs["failed"].result() == runs["preempted"].result() == {"validation_loss": 2.0}


def test_among_a_sweep_and_out_of_its_members(runs_dir, runs, capsys):
    own, added = runs["failed"], make(runs_dir, 7, "failed")
    record_launch(runs_dir, "mine", Launch(runs=(own.key, "0" * 16)))
    record_launch(runs_dir, "mine", Launch(("run.seed=7",), (added.key,)))
    other = make(runs_dir, 8, "failed")
    assert call(runs_dir, "--failed", "--sweep", "mine", "--yes") == 0
    assert other.path.exists() and not own.path.exists() and not added.path.exists()
    assert read_members(runs_dir, "mine").runs == [own.key, "0" * 16]  # the sweep file still names them


def test_a_list_of_members_that_is_damaged_keeps_no_run_from_going(runs_dir, runs, capsys):
    added = make(runs_dir, 7, "failed")
    record_launch(runs_dir, "mine", Launch(("run.seed=7",), (added.key,)))
    (runs_dir / ".sweeps" / "damaged.json").write_text('{"launches": 3}')
    assert call(runs_dir, added.key, "--yes") == 0
    assert not added.path.exists() and read_members(runs_dir, "mine").runs == []


def test_files_that_stay_behind_are_told_and_the_run_is_gone(runs_dir, runs, capsys, monkeypatch):
    added = make(runs_dir, 7, "failed")
    record_launch(runs_dir, "mine", Launch(("run.seed=7",), (added.key,)))

    def denied(path, ignore_errors=False):
        if not ignore_errors:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(shutil, "rmtree", denied)
    assert call(runs_dir, added.key, "--yes") == 1
    (aside,) = runs_dir.glob(".removed-*")
    said = f"error: {added.path} is gone, but not all of its files are: Permission denied; delete {aside}\n"
    assert capsys.readouterr().err == said
    assert not added.path.exists() and read_members(runs_dir, "mine").runs == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "say what to remove"),
        (["zz"], "no run in"),
        ([""], "no run in"),
        (["--checkpoints", "--results"], "give one of the two"),
        (["--sweep", "yours"], "no sweep yours"),
    ],
)
def test_mistakes_are_one_sentence(runs_dir, runs, capsys, arguments, said):
    assert call(runs_dir, *arguments) == 1
    error = capsys.readouterr().err
    assert said in error and error.startswith("error: ") and error.count("\n") == 1
    assert states(runs_dir) == sorted(STATES)


@pytest.mark.parametrize("which", ["--failed", "--checkpoints"])
def test_a_mistyped_folder_is_not_one_with_nothing_to_remove(tmp_path, capsys, which):
    assert call(tmp_path / "rnus", which) == 1
    assert "rnus; name the folder that holds the runs" in capsys.readouterr().err


def test_a_beginning_that_several_keys_share_is_refused(runs_dir, runs, capsys):
    seed = 100
    while len(list_runs(runs_dir)) < 17:  # more runs than digits
        make(runs_dir, seed, "failed")
        seed += 1
    keys = [folder.key for folder in list_runs(runs_dir)]
    shared = next(key[0] for key in keys if sum(other[0] == key[0] for other in keys) > 1)
    assert call(runs_dir, shared, "--yes") == 1
    assert f"{shared} can mean" in capsys.readouterr().err
    assert len(list_runs(runs_dir)) == 17
