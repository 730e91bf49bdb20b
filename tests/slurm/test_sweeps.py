"""Sweeps on a real cluster: issued, joined, left, disturbed."""

import shutil
import signal
import subprocess
from collections import Counter

import pytest

from moe_study.cli import main
from moe_study.runs.folder import State
from moe_study.runs.job_records import read_submissions
from moe_study.runs.provenance import code_of
from tests.launch.driving import ROOT, wait_until
from tests.launch.driving import command as command_line
from tests.slurm.driving import (
    SMALL,
    Command,
    by_seed,
    job_of,
    jobs,
    slurm,
    states,
    steps_done,
    submissions,
    sweep,
)

pytestmark = pytest.mark.slurm


@pytest.fixture
def runs_dir(tmp_path):
    return tmp_path / "runs"


def test_runs_are_sent_once_and_a_finished_sweep_sends_nothing(cluster, runs_dir):
    said = sweep("quick", runs_dir, "run.seed=range(5)")
    assert "submitted 5 runs as job " in said
    assert set(states(runs_dir).values()) == {State.DONE}
    assert all("process" in folder.log_file.read_text() for folder in by_seed(runs_dir).values())
    again = sweep("unlucky", runs_dir, "run.seed=range(5)")
    assert "5 runs (5 done); 0 to train now" in again
    assert submissions(runs_dir) == 5


def test_a_failed_run_stops_no_other_and_slurm_says_so_too(cluster, runs_dir):
    said = sweep("unlucky", runs_dir, "run.seed=0,1,2,3,5", code=1)
    expected = {0: State.DONE, 1: State.FAILED, 2: State.FAILED, 3: State.STALE, 5: State.DIVERGED}
    assert states(runs_dir) == expected
    ends = {task.id: task.state for task in jobs(runs_dir)}
    assert {seed: ends[job_of(runs_dir, seed)] for seed in expected} == {
        0: "COMPLETED", 1: "FAILED", 2: "FAILED", 3: "FAILED", 5: "COMPLETED",
    }  # fmt: skip
    assert "one and one is three" in said
    assert f"stale: job {job_of(runs_dir, 3)} ended as FAILED" in said
    assert "Traceback" in by_seed(runs_dir)[1].log_file.read_text()
    (runs_dir / "luck").touch()
    again = sweep("unlucky", runs_dir, "run.seed=0,1,2,3,5", code=1)
    assert "1 to train now" in again  # what had died; the failed ones wait to be asked for
    assert states(runs_dir) == {**expected, 3: State.DONE}
    sweep("unlucky", runs_dir, "run.seed=0,1,2,3,5", "retry_failed=true")
    assert set(states(runs_dir).values()) == {State.DONE}


def test_a_killed_driver_and_a_second_one_join_the_jobs(cluster, runs_dir):
    seeds = "run.seed=range(4)"
    first = Command("patient", runs_dir, seeds)
    steps_done(runs_dir, range(4))
    first.process.kill()
    first.process.wait()
    both = [Command("patient", runs_dir, seeds) for _ in range(2)]
    joined = "4 runs (4 running); 0 to train now"
    wait_until(lambda: all(joined in command.said for command in both), "both to join the jobs")
    (runs_dir / "enough").touch()
    for command in both:
        command.end()
    assert submissions(runs_dir) == 4
    assert {folder.status().attempts for folder in by_seed(runs_dir).values()} == {1}


def test_two_commands_at_the_same_time_send_every_run_once(cluster, runs_dir):
    both = [Command("quick", runs_dir, "run.seed=range(4)") for _ in range(2)]
    for command in both:
        command.end()
    assert submissions(runs_dir) == 4
    assert {folder.status().attempts for folder in by_seed(runs_dir).values()} == {1}


def test_ctrl_c_leaves_the_jobs_running_and_says_so(cluster, runs_dir):
    command = Command("patient", runs_dir, "run.seed=0,1")
    steps_done(runs_dir, (0, 1))
    command.process.send_signal(signal.SIGINT)
    said = command.end(130)
    assert "2 jobs go on without this command: the same command joins them again" in said
    assert "scancel" in said
    assert {task.state for task in jobs(runs_dir) if task.lives} == {"RUNNING"}
    (runs_dir / "enough").touch()
    assert "2 to train now" not in sweep("patient", runs_dir, "run.seed=0,1")
    assert submissions(runs_dir) == 2


def test_fire_and_forget_returns_after_submission(cluster, runs_dir, capsys):
    said = sweep("patient", runs_dir, "run.seed=range(3)", "hydra.launcher.wait=false", "hydra.launcher.limit=1")
    assert "3 jobs go on without this command" in said
    wait_until(lambda: State.RUNNING in states(runs_dir).values(), "the first of them to run")
    assert main(["status", str(runs_dir)]) == 0
    assert capsys.readouterr().out.count(" waits (") == 2
    again = sweep("patient", runs_dir, "run.seed=range(3)", "hydra.launcher.wait=false")
    assert "0 to train now" in again
    assert sum(task.state == "RUNNING" for task in jobs(runs_dir) if task.lives) == 1  # the limit
    (runs_dir / "enough").touch()
    sweep("patient", runs_dir, "run.seed=range(3)")
    assert submissions(runs_dir) == 3


def test_cancelled_jobs_stay_cancelled_until_the_command_is_given_again(cluster, runs_dir):
    command = Command("patient", runs_dir, "run.seed=0,1")
    steps_done(runs_dir, (0, 1))
    slurm("scancel", job_of(runs_dir, 0))
    wait_until(lambda: states(runs_dir)[0] is State.PREEMPTED, "the cancelled run to save itself")
    (runs_dir / "enough").touch()
    said = command.end(1)
    assert f"job {job_of(runs_dir, 0)} ended as CANCELLED" in said
    assert "1 of 2 runs are unfinished; rerun the command to resume them" in said
    sweep("patient", runs_dir, "run.seed=0,1")
    assert by_seed(runs_dir)[0].result()["resumed_from"] > 0


@pytest.mark.parametrize("how", ["requeued by an operator", "warned", "its node is down"])
def test_a_job_that_is_told_to_stop_goes_on_by_itself(cluster, runs_dir, how):
    command = Command("patient", runs_dir, "run.seed=0,1")
    steps_done(runs_dir, (0, 1))
    last = 1 if how == "warned" else 0  # the last job of an array has the id of the array
    job = job_of(runs_dir, last)
    if how == "warned":  # as SLURM does before a time limit or a preemption
        slurm("scancel", "--batch", "--signal=USR2", job)
    elif how == "its node is down":
        slurm("scontrol", "update", "NodeName=ALL", "State=DOWN", "Reason=test")
        cluster.run("scontrol", "update", "NodeName=ALL", "State=RESUME", check=False)  # unless it is back by itself
    else:
        slurm("scontrol", "requeue", job)
    # A node that is down is cut off without a word to its jobs.
    wait_until(lambda: states(runs_dir)[last] in (State.PREEMPTED, State.STALE), "the run to stop")
    (runs_dir / "enough").touch()
    command.end()
    folder = by_seed(runs_dir)[last]
    assert (folder.status().attempts, folder.status().job) == (2, job)
    assert submissions(runs_dir) == 2
    if how != "its node is down":
        assert folder.result()["resumed_from"] > 0
        assert by_seed(runs_dir)[1 - last].status().attempts == 1


def test_jobs_of_several_runs_save_them_all_and_tell_failures(cluster, runs_dir):
    several = ("job.runs=3", "job.workers=3", "hydra.launcher.cpus=3")
    said = sweep("unlucky", runs_dir, "run.seed=0,1,2,3,6", *several, code=1)
    assert states(runs_dir) == {0: State.DONE, 1: State.FAILED, 2: State.FAILED, 3: State.FAILED, 6: State.DONE}
    assert "3 of 5 runs failed" in said
    assert [task.state for task in jobs(runs_dir)].count("FAILED") >= 1
    command = Command("careful", runs_dir, "run.seed=7,8,9", *several)
    steps_done(runs_dir, (7, 8, 9))
    (job,) = {job_of(runs_dir, seed) for seed in (7, 8, 9)}
    slurm("scancel", "--batch", "--signal=USR2", job)
    wait_until(lambda: {states(runs_dir)[seed] for seed in (7, 8, 9)} == {State.PREEMPTED}, "all to save themselves")
    command.end()
    assert min(by_seed(runs_dir)[seed].result()["resumed_from"] for seed in (7, 8, 9)) > 0


def test_jobs_of_several_runs_come_in_arrays_and_share_their_gpus(start_cluster, runs_dir):
    start_cluster(max_array_size=2)
    gpus = ("hydra.launcher.gpus_per_node=2", "job.runs_per_gpu=2", "hydra.launcher.cpus=4")
    sweep("traced", runs_dir, "run.seed=range(12)", "run.device=auto", "job.runs=4", *gpus)
    sizes = sorted(tuple(map(len, submission.tasks)) for submission in read_submissions(runs_dir))
    assert sizes == [(4,), (4, 4)]
    folders = {folder.key: folder for folder in by_seed(runs_dir).values()}
    assert {folder.state() for folder in folders.values()} == {State.DONE}
    assert all("process" in folder.log_file.read_text() for folder in folders.values())
    for submission in read_submissions(runs_dir):
        for keys in submission.tasks:
            used = Counter(folders[key].result()["given"]["CUDA_VISIBLE_DEVICES"] for key in keys)
            assert (len(used), set(used.values())) == (2, {2})


def test_code_that_is_edited_while_jobs_wait_changes_none_of_their_runs(cluster, runs_dir, tmp_path):
    clone = tmp_path / "clone"
    for part in ("moe_study", "conf", "hydra_plugins", "tests"):
        shutil.copytree(ROOT / part, clone / part, ignore=shutil.ignore_patterns("__pycache__"))
    arguments = ("-m", *SMALL, "run.seed=0,1", "hydra.launcher.limit=1", "hydra.launcher.wait=false")
    line, environment = command_line("patient", runs_dir, arguments)
    line[1] = str(clone / "tests" / "launch" / "train_toy.py")
    subprocess.run(line, env={**environment, "PYTHONPATH": str(clone)}, cwd=tmp_path, check=True, capture_output=True)
    with open(clone / "moe_study" / "launch" / "execute.py", "a") as source:
        source.write("raise RuntimeError('half an edit')\n")
    (runs_dir / "enough").touch()
    sweep("patient", runs_dir, "run.seed=0,1")
    code = [folder.provenance() for folder in by_seed(runs_dir).values()]
    assert code[0]["sources"] == code[1]["sources"] == code_of(ROOT / "moe_study")["sources"]
    assert not list((runs_dir / ".submissions" / ".code").iterdir())


def test_one_run_is_retried_and_another_one_cancelled_by_their_keys(cluster, runs_dir, capsys, monkeypatch):
    monkeypatch.chdir(runs_dir.parent)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # jobs take the environment along, and need the toy job's module
    sweep("unlucky", runs_dir, "run.seed=0,1,2", code=1)
    (runs_dir / "luck").touch()
    folders = by_seed(runs_dir)
    assert main(["retry", folders[1].key[:6], "--runs-dir", str(runs_dir)]) == 0
    wait_until(lambda: states(runs_dir)[1] is State.DONE, "the run to end")
    assert states(runs_dir)[2] is State.FAILED
    assert submissions(runs_dir) == 4
    sweep("patient", runs_dir, "run.seed=7,8", "hydra.launcher.wait=false")
    steps_done(runs_dir, (7, 8))
    job = job_of(runs_dir, 7)
    assert main(["cancel", by_seed(runs_dir)[7].key[:6], "--runs-dir", str(runs_dir)]) == 0
    assert f"cancelled 1 jobs: {job}" in capsys.readouterr().out
    wait_until(lambda: states(runs_dir)[7] is State.PREEMPTED, "the run to save itself")
    assert states(runs_dir)[8] is State.RUNNING
