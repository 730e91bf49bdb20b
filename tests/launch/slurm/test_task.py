"""What a job does with its run, and when it goes back into the queue."""

import pytest

from moe_study.guard import EXIT_PREEMPTED
from moe_study.launch.slurm.task import Task
from moe_study.runs.folder import State
from moe_study.runs.job_records import read_submissions
from tests.launch.slurm import scripted
from tests.launch.slurm.world import World


@pytest.fixture
def world(runs_dir):
    return World(runs_dir, 0, runs=1)


def first(world):
    """The only run, and its job."""
    (run,) = world.command().runs
    return run, world.scheduler.tasks[-1]


def test_a_warned_job_saves_its_run_and_waits_once_more(world):
    world.command().round()
    run, job = first(world)
    world.scheduler.start(job)
    world.scheduler.warn(job)
    assert (job.state, run.folder.state(), job.process.code) == ("PENDING", State.PREEMPTED, EXIT_PREEMPTED)
    world.scheduler.start(job)
    world.scheduler.finish(job)
    assert (job.state, run.folder.state(), run.folder.status().attempts) == ("COMPLETED", State.DONE, 2)


@pytest.mark.parametrize("state", ["CANCELLED", "COMPLETING", "TIMEOUT"])
def test_a_job_that_slurm_has_decided_about_is_not_requeued(world, state, monkeypatch):
    world.command().round()
    run, job = first(world)
    world.scheduler.start(job)
    monkeypatch.setattr(world.scheduler, "requeue", lambda job_id: pytest.fail("it was requeued"))
    world.scheduler.stop(job, state)
    assert (run.folder.state(), job.process.code) == (State.PREEMPTED, EXIT_PREEMPTED)


def test_a_job_does_not_requeue_itself_for_ever(world):
    world.command(attempts=3).round()
    _, job = first(world)
    for _ in range(3):
        assert job.state == "PENDING"
        world.scheduler.start(job)
        world.scheduler.warn(job)
    assert job.state == "FAILED"
    world.command(attempts=3).round()  # the command grants as many once more
    again = first(world)[1]
    assert again is not job
    world.scheduler.start(again)
    world.scheduler.warn(again)
    assert again.state == "PENDING"


def test_restarts_that_never_reach_the_run_are_counted_too(world, monkeypatch):
    world.command(attempts=3).round()
    _, job = first(world)
    (submission,) = read_submissions(world.runs_dir)
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", job.array)
    for restarts, state in ((0, "PENDING"), (1, "PENDING"), (2, "RUNNING")):  # the last one leaves the queue by itself
        job.state = "RUNNING"
        monkeypatch.setenv("SLURM_RESTART_COUNT", str(restarts))
        assert Task(str(submission.folder), 0, ["SIGUSR2"], world.scheduler).do() == EXIT_PREEMPTED
        assert job.state == state


def test_a_job_whose_scheduler_is_silent_leaves_its_run_saved(world):
    world.command().round()
    run, job = first(world)
    world.scheduler.start(job)
    world.scheduler.silent = True
    world.scheduler.warn(job)
    assert (job.state, run.folder.state()) == ("FAILED", State.PREEMPTED)


def test_a_signal_before_training_begins_sends_the_job_back_without_an_attempt(world, monkeypatch):
    world.command().round()
    run, job = first(world)
    job.state = "RUNNING"
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", job.array)
    (submission,) = read_submissions(world.runs_dir)
    code = Task(str(submission.folder), 0, ["SIGUSR2"], world.scheduler).do()
    assert (code, job.state, run.folder.state()) == (EXIT_PREEMPTED, "PENDING", State.MISSING)


def test_a_second_job_leaves_a_run_to_the_living_one_and_finds_nothing_to_do_when_that_has_ended(world):
    driver = world.command()
    driver.round()
    world.scheduler.tasks[0].state = "CANCELLED"  # as far as anybody can see
    world.command().round()
    one, other = world.scheduler.tasks
    world.scheduler.start(one)
    world.scheduler.start(other)
    assert (one.state, other.state) == ("RUNNING", "COMPLETED")
    world.scheduler.finish(one)
    other.state = "PENDING"
    world.scheduler.start(other)
    assert other.state == "COMPLETED"
    assert len(scripted.ended) == 1


def test_a_run_that_has_failed_since_it_was_sent_is_not_tried_again(world):
    world.command().round()
    run, job = first(world)
    with run.folder.claim(run.config):
        run.folder.start(10)
        run.folder.fail("somebody else's try")
    world.scheduler.start(job)
    assert (job.state, run.folder.status().attempts) == ("COMPLETED", 1)


def test_a_job_that_starts_once_more_after_its_run_has_failed_in_it_has_still_failed(world):
    """So does one of several runs, of which another one was stopped and goes on."""
    world.command().round()
    run, job = first(world)
    world.scheduler.start(job)
    world.scheduler.kill(job, "PENDING")  # an operator's requeue
    run.folder.fail("one and one is three")
    assert run.folder.state() is State.FAILED
    world.scheduler.start(job)
    assert (job.state, run.folder.status().attempts) == ("FAILED", 1)
