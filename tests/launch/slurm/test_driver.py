"""The command's side: arrays within the limits of a cluster, and when it ends."""

import pytest

from moe_study.errors import ConfigError, StudyError
from moe_study.launch.slurm import survey
from moe_study.launch.slurm.driver import deal
from moe_study.launch.slurm.scheduler import NoRoom
from moe_study.runs.folder import State
from moe_study.runs.job_records import read_submissions
from tests.launch.slurm.world import World, slurm_settings


def arrays(world):
    return [len(submission.tasks) for submission in read_submissions(world.runs_dir)]


def test_arrays_are_cut_to_the_limit_of_the_cluster(runs_dir):
    world = World(runs_dir, 0, runs=12, max_array_size=5)
    driver = world.command()
    driver.round()
    assert sorted(arrays(world)) == [2, 5, 5]
    assert len(driver.sent) == 3


def test_where_there_is_no_room_the_driver_waits_for_some(runs_dir):
    world = World(runs_dir, 0, runs=12, max_array_size=5, room=4)
    driver = world.command()
    driver.sleep = lambda seconds: world.work()
    driver.round()
    assert world.scheduler.living() == 4
    driver.drive()
    assert {run.folder.state() for run in driver.runs} == {State.DONE}
    assert world.scheduler.sent == 12


def test_without_waiting_it_says_what_could_not_be_sent(runs_dir):
    world = World(runs_dir, 0, runs=6, room=4)
    with pytest.raises(StudyError, match="2 jobs are not sent, since the cluster takes no more now"):
        world.command(wait=False).drive()
    assert world.scheduler.sent == 4


def test_a_cluster_that_takes_no_job_at_all_is_believed(runs_dir):
    world = World(runs_dir, 0, room=0)
    with pytest.raises(NoRoom, match="job submit limit"):
        world.command().drive()
    assert arrays(world) == []


def test_patience_with_a_silent_scheduler_ends(runs_dir):
    world = World(runs_dir, 0)
    driver = world.command(patience=0.001)
    world.scheduler.silent = True
    with pytest.raises(StudyError, match=r"the scheduler does not answer for .* minutes"):
        driver.drive()
    assert world.scheduler.sent == 0


def test_patience_with_a_scheduler_that_only_takes_no_jobs_ends_too(runs_dir, monkeypatch):
    monkeypatch.setattr(survey, "IN_FLIGHT", 0.0)
    world = World(runs_dir, 0)
    driver = world.command(patience=0.001)
    driver.sleep = lambda seconds: setattr(world.scheduler, "on_submit", "lost")
    world.scheduler.on_submit = "lost"
    with pytest.raises(StudyError, match=r"the scheduler takes no jobs for .* minutes"):
        driver.drive()


def test_patience_with_others_who_take_all_the_room_ends(runs_dir):
    world = World(runs_dir, 0, room=2)
    driver = world.command(patience=0.001)
    driver.sleep = lambda seconds: world.work()
    driver.round()
    world.scheduler.room = 0
    with pytest.raises(StudyError, match=r"the scheduler has no room for jobs for .* minutes"):
        driver.drive()
    assert world.scheduler.sent == 2


def test_a_dead_job_ends_the_wait_and_is_told_of(runs_dir):
    world = World(runs_dir, 0, runs=2)
    driver = world.command()
    driver.round()
    one, other = world.scheduler.tasks
    world.scheduler.start(one)
    world.scheduler.start(other)
    world.scheduler.kill(one, "OUT_OF_MEMORY")
    driver.sleep = lambda seconds: world.work()
    driver.drive()  # waits for the other one
    assert [driver.survey.state_of(run.folder) for run in driver.runs] == [State.STALE, State.DONE]
    assert driver.ended[driver.runs[0].key].state == "OUT_OF_MEMORY"
    assert world.scheduler.sent == 2


def test_runs_are_dealt_out_to_jobs(runs_dir):
    runs = World(runs_dir, 0, runs=5).command().runs
    assert deal(runs, 2) == [[runs[0], runs[3]], [runs[1], runs[4]], [runs[2]]]
    assert deal(runs, 1) == [[run] for run in runs]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"limit": 0}, "hydra.launcher.limit=0 must be at least 1"),
        ({"poll": 0}, "must be more than 0"),
        ({"gpus_per_node": "two"}, "hydra.launcher.gpus_per_node=two must be auto, 0 or more"),
        ({"options": ["exclude=n1"]}, "exclude=n1 is not an option of sbatch"),
        ({"options": ["--array=0-3"]}, "is set by the launcher itself"),
        ({"minutes": "long"}, "hydra.launcher.minutes"),
    ],
)
def test_settings_that_no_cluster_could_take_are_refused(changes, said):
    with pytest.raises(ConfigError, match=said):
        slurm_settings(**changes)


def test_jobs_ask_for_a_gpu_unless_all_runs_are_for_the_cpu():
    settings = slurm_settings(minutes=90, partition="long")
    assert "--gres=gpu:1" in settings.sbatch_options(["cpu", "auto"])
    options = settings.sbatch_options(["cpu"])
    assert not any(option.startswith("--gres") for option in options)
    assert {"--time=90", "--partition=long", "--signal=B:USR2@60", "--requeue"} <= set(options)
