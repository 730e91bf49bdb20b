"""What a scheduler's answer says of a run, and what its silence does not."""

import json

import pytest

from moe_study.launch.slurm import survey as survey_module
from moe_study.launch.slurm.scheduler import QueuedTask
from moe_study.launch.slurm.survey import look
from moe_study.runs.folder import State
from moe_study.runs.job_records import read_submissions
from moe_study.runs.status import Status
from tests.launch.slurm.scripted import ScriptedTask
from tests.launch.slurm.world import World


@pytest.fixture
def world(runs_dir):
    """Four runs sent as the array 1, of which the first one trains."""
    world = World(runs_dir, 0)
    world.command().round()
    world.scheduler.start(world.scheduler.tasks[0])
    yield world
    for task in world.scheduler.in_state("RUNNING"):
        if task.process is not None:
            world.scheduler.finish(task)


def survey_of(world):
    return look(read_submissions(world.runs_dir), world.scheduler, "scripted")


def elsewhere(run, job):
    """Let the run's status say that it trains on another host, and said so a moment ago."""
    with run.folder.claim(run.config):
        run.folder.start(10)
    said = json.loads(run.folder.status_file.read_text())
    run.folder.status_file.write_text(json.dumps({**said, "job": job, "host": "node9"}))


def states(world):
    now = survey_of(world)
    return [now.state_of(run.folder) for run in world.command().runs]


def test_jobs_that_wait_are_queued_and_those_that_train_run(world):
    assert states(world) == [State.RUNNING, State.QUEUED, State.QUEUED, State.QUEUED]
    world.scheduler.stop(world.scheduler.tasks[1], "CANCELLED")
    assert states(world)[1] is State.MISSING
    world.scheduler.finish(world.scheduler.tasks[0])
    assert states(world)[0] is State.DONE


@pytest.mark.parametrize("state", ["REQUEUE_HOLD", "CONFIGURING", "A_STATE_OF_NEXT_YEAR", "COMPLETING"])
def test_a_state_that_nobody_listed_is_not_the_end(world, state):
    world.scheduler.unlisted = state
    assert State.MISSING not in states(world)
    assert not survey_of(world).news  # nothing is over


def test_silence_is_not_the_end_either(world):
    world.scheduler.silent = True
    assert states(world)[1:] == [State.QUEUED] * 3
    assert "Unable to contact" in survey_of(world).silence
    assert survey_of(world).lives(world.command().runs[1].key, Status(State.RUNNING, job="1_1")) is None


def test_a_run_on_another_host_lives_as_long_as_its_job(world):
    run = world.command().runs[1]
    elsewhere(run, "1_1")
    assert run.folder.state() is State.RUNNING  # for its last sign of life is fresh
    world.scheduler.tasks[1].state = "RUNNING"
    assert states(world)[1] is State.RUNNING
    world.scheduler.tasks[1].state = "NODE_FAIL"
    assert states(world)[1] is State.STALE


def test_of_a_job_that_nobody_recorded_nothing_is_known(world):
    run = world.command().runs[1]
    world.scheduler.tasks[1].state = "CANCELLED"
    elsewhere(run, "77_1")
    assert survey_of(world).lives(run.key, run.folder.status()) is None
    assert states(world)[1] is State.RUNNING


def test_a_job_of_the_same_number_on_a_cluster_that_was_set_up_anew_is_another_one(world):
    run = world.command().runs[1]
    elsewhere(run, "1_1")
    world.scheduler.rebuild()
    foreign = ScriptedTask("1", 1, "moe-study-of-somebody-else", world.runs_dir, "RUNNING")
    world.scheduler.tasks.append(foreign)
    assert states(world)[1] is State.STALE
    world.scheduler.tasks.clear()


def test_a_submission_without_an_answer_is_confirmed_by_its_name(runs_dir, monkeypatch):
    world = World(runs_dir, 0)
    world.scheduler.on_submit = "answer lost"
    driver = world.command()
    driver.round()
    assert read_submissions(runs_dir)[0].job_id is None
    assert world.scheduler.sent == 4
    _, states, left = driver.round()
    assert read_submissions(runs_dir)[0].job_id == "1"
    assert (set(states.values()), left, world.scheduler.sent) == ({State.QUEUED}, False, 4)


def test_a_submission_that_never_arrived_is_made_again(runs_dir, monkeypatch):
    world = World(runs_dir, 0)
    world.scheduler.on_submit = "answer lost"
    driver = world.command()
    driver.round()
    world.scheduler.tasks.clear()
    _, states, left = driver.round()
    assert (set(states.values()), left, world.scheduler.sent) == ({State.QUEUED}, True, 4)  # it may be on its way
    monkeypatch.setattr(survey_module, "IN_FLIGHT", 0.0)
    driver.round()
    assert world.scheduler.sent == 8


def test_a_job_by_its_states():
    for state in ("PENDING", "RUNNING", "SUSPENDED", "COMPLETING", "REQUEUED", "RESV_DEL_HOLD"):
        assert QueuedTask("1", 0, state, "x").lives
    for state in ("COMPLETED", "CANCELLED", "FAILED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "BOOT_FAIL"):
        assert not QueuedTask("1", 0, state, "x").lives


def test_where_there_is_accounting_it_says_how_a_forgotten_job_ended(world):
    run = world.command().runs[1]
    (submission,) = read_submissions(world.runs_dir)
    world.scheduler.tasks.pop(1)
    assert survey_of(world).note(run.key) == ""
    world.scheduler.accounted = [QueuedTask("1", 1, "OUT_OF_MEMORY", "of another cluster, which counted from 1, too")]
    assert survey_of(world).note(run.key) == ""
    world.scheduler.accounted.append(QueuedTask("1", 1, "OUT_OF_MEMORY", submission.name))
    assert survey_of(world).note(run.key) == "job 1_1 ended as OUT_OF_MEMORY"
    submission.shell_output(1).write_text("a line\nslurmstepd: error: Detected 1 oom_kill event\n")
    assert survey_of(world).note(run.key).endswith("1.txt: slurmstepd: error: Detected 1 oom_kill event)")
