"""Single runs sent once more."""

import pytest

from moe_study.errors import StudyError
from moe_study.launch.slurm.again import send_again
from moe_study.launch.slurm.driver import Watch
from moe_study.runs.folder import State
from moe_study.runs.job_records import read_submissions
from tests.launch.slurm.world import World


@pytest.fixture
def world(runs_dir):
    """Three runs: the first one failed, the second one is done, the third one waits."""
    world = World(runs_dir, 0, runs=3)
    world.command(minutes=90).round()
    failed, done, _ = world.scheduler.tasks
    world.scheduler.start(failed)
    world.scheduler.kill(failed)
    folder = world.command().runs[0].folder
    folder.fail("one and one is three")
    world.scheduler.start(done)
    world.scheduler.finish(done)
    return world


def again(world, *numbers):
    keys = [world.command().runs[number].key for number in numbers]
    return send_again(world.runs_dir, keys, world.scheduler, Watch())


def test_a_failed_run_is_sent_by_itself_with_the_settings_of_its_last_job(world):
    assert again(world, 0) == 1
    first, second = read_submissions(world.runs_dir)
    assert second.tasks == ((world.command().runs[0].key,),)
    assert second.settings == {**first.settings, "wait": False}
    job = world.scheduler.tasks[-1]
    world.scheduler.start(job)
    world.scheduler.finish(job)
    assert world.command().runs[0].folder.state() is State.DONE


@pytest.mark.parametrize(("number", "state"), [(1, "done"), (2, "queued")])
def test_what_needs_no_job_is_not_sent(world, number, state):
    sent = world.scheduler.sent
    with pytest.raises(StudyError, match=f"is {state}: there is nothing to send again"):
        again(world, 0, number)
    assert world.scheduler.sent == sent


def test_a_run_that_was_never_sent_has_no_settings(world):
    world.runs = 4
    with pytest.raises(StudyError, match="was never sent to SLURM"):
        again(world, 3)
