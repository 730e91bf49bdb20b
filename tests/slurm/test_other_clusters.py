"""Clusters that are small, away, or not the ones they were."""

import os

import pytest

from moe_study.cli import main
from moe_study.runs.folder import State
from moe_study.runs.job_records import read_submissions
from tests.launch.driving import wait_until
from tests.slurm.driving import Command, by_seed, job_of, jobs, states, steps_done, submissions, sweep

pytestmark = pytest.mark.slurm


@pytest.fixture
def runs_dir(tmp_path):
    return tmp_path / "runs"


def test_arrays_are_cut_to_the_limit_of_the_cluster(start_cluster, runs_dir):
    start_cluster(max_array_size=3)
    sweep("quick", runs_dir, "run.seed=range(7)", "hydra.launcher.limit=2")
    assert sorted(len(submission.tasks) for submission in read_submissions(runs_dir)) == [1, 3, 3]
    assert set(states(runs_dir).values()) == {State.DONE}


def test_a_cluster_that_is_full_gets_the_jobs_by_and_by(start_cluster, runs_dir):
    start_cluster(max_job_count=5, remembers=2)
    sweep("quick", runs_dir, "run.seed=range(9)")
    assert set(states(runs_dir).values()) == {State.DONE}
    assert max(len(submission.tasks) for submission in read_submissions(runs_dir)) <= 5
    assert submissions(runs_dir) == 9


def test_with_accounting_a_limit_on_a_users_jobs_is_kept_and_all_get_their_turn(start_cluster, runs_dir, capsys):
    cluster = start_cluster(accounting=True, max_submitted=4, remembers=10)
    said = sweep("unlucky", runs_dir, "run.seed=0,1,3,6,7,8,9,10,11", code=1)
    expected = dict.fromkeys((0, 6, 7, 8, 9, 10, 11), State.DONE) | {1: State.FAILED, 3: State.STALE}
    assert states(runs_dir) == expected
    assert "1 of 9 runs failed" in said and "1 of 9 runs are unfinished" in said
    assert submissions(runs_dir) == 9

    def accounted() -> list[str]:
        return sorted(cluster.run("sacct", "--noheader", "--parsable2", "--allocations", "--format=State").split())

    expected_states = ["COMPLETED"] * 7 + ["FAILED"] * 2
    wait_until(lambda: len(accounted()) == 9 and set(accounted()) <= {*expected_states}, "the last job to be accounted")
    assert accounted() == expected_states
    jobs_of = {seed: job_of(runs_dir, seed) for seed in expected}
    wait_until(lambda: jobs(runs_dir) == [], "SLURM to forget them")
    assert main(["status", str(runs_dir)]) == 0
    shown = capsys.readouterr().out
    assert f"job {jobs_of[3]} ended as FAILED" in shown  # so says accounting


def test_a_cluster_that_counts_its_jobs_anew_is_not_taken_for_the_old_one(start_cluster, runs_dir):
    start_cluster(first_job_id=7)
    sweep("patient", runs_dir, "run.seed=0,1", "hydra.launcher.wait=false")
    steps_done(runs_dir, (0, 1))
    start_cluster(first_job_id=7)  # stops the old one first, with its jobs
    assert jobs(runs_dir) == []
    (runs_dir / "enough").touch()
    sweep("patient", runs_dir, "run.seed=0,1")
    assert {job_of(runs_dir, seed) for seed in (0, 1)} == {"7_0", "7_1"}  # the old numbers
    assert {folder.status().attempts for folder in by_seed(runs_dir).values()} == {2}


def test_a_controller_that_is_away_for_a_while_disturbs_nobody(start_cluster, runs_dir, capsys):
    cluster = start_cluster()
    command = Command("patient", runs_dir, "run.seed=0,1")
    steps_done(runs_dir, (0, 1))
    cluster.stop_controller()
    wait_until(lambda: "the scheduler does not answer, and will be" in command.said, "the driver to notice", 60)
    assert main(["status", str(runs_dir)]) == 0
    assert "jobs count as alive, since the scheduler does not answer" in capsys.readouterr().out
    cluster.start_controller()
    (runs_dir / "enough").touch()
    command.end()
    assert {folder.status().attempts for folder in by_seed(runs_dir).values()} == {1}


def test_without_slurm_the_command_says_where_it_is_wanted(runs_dir, monkeypatch):
    there = [path for path in os.environ["PATH"].split(":") if not os.path.exists(f"{path}/squeue")]
    monkeypatch.setenv("PATH", ":".join(there))
    said = sweep("quick", runs_dir, "run.seed=0", code=1)
    assert "error: there is no SLURM on this machine (squeue is not found)" in said
