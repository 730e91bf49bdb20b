"""Whatever becomes of drivers, jobs and the scheduler, in whatever order: no run trains twice, and none is lost."""

import pytest

from moe_study.launch.slurm import survey
from moe_study.runs import folder
from moe_study.runs.folder import State, list_runs
from tests.launch.driving import planned
from tests.launch.slurm import scripted
from tests.launch.slurm.world import World

ACTIONS = 40
SEEDS = [*range(4), *(pytest.param(seed, marks=pytest.mark.long) for seed in range(4, 30))]


@pytest.mark.parametrize("seed", SEEDS)
def test_no_run_trains_twice_and_none_is_lost(runs_dir, monkeypatch, seed):
    world = World(runs_dir, seed, max_array_size=2 + seed % 4, room=3 + seed % 5)
    for _ in range(ACTIONS):
        world.act()
    monkeypatch.setattr(survey, "IN_FLIGHT", 0.0)  # a killed driver's submission is not on its way for ever,
    monkeypatch.setattr(folder, "STALE_AFTER", 0.0)  # and a job that nobody knows of has given no sign of life for long
    world.heal()
    runs = {run.key: run.state() for run in list_runs(runs_dir)}
    assert runs == {run.key: State.DONE for run in planned(runs_dir, range(world.runs))}
    assert sorted(scripted.ended) == sorted(runs)  # each once
    sent = world.scheduler.sent
    world.command().drive()
    assert world.scheduler.sent == sent


@pytest.mark.parametrize("seed", range(3))
def test_without_trouble_every_run_is_sent_once_whoever_sends_it(runs_dir, seed):
    world = World(runs_dir, seed, max_array_size=4, room=100)
    drivers = [world.command() for _ in range(3)]
    for _ in range(10):
        world.draw.choice(drivers).round()
        world.work()
    world.heal()
    assert world.scheduler.sent == world.runs
    assert all(run.status().attempts == 1 for run in list_runs(runs_dir))
