"""A sweep's commands on a scripted scheduler."""

import random

import yaml

from moe_study.launch.slurm.driver import Driver, Watch
from moe_study.launch.slurm.settings import SlurmSettings
from moe_study.launch.slurm.submit import Sender
from moe_study.launch.slurm.survey import look
from moe_study.runs.folder import State
from moe_study.runs.job_records import read_submissions
from moe_study.sweeps.conf import command_settings
from moe_study.sweeps.plan import TO_START
from tests.launch.driving import ROOT, planned, pool_settings
from tests.launch.slurm import scripted
from tests.launch.slurm.scripted import DriverKilled, ScriptedScheduler


def slurm_settings(runs_per_job=1, **changes):
    """The committed defaults, with `changes`."""
    committed = yaml.safe_load((ROOT / "conf" / "hydra" / "launcher" / "slurm.yaml").read_text())
    plain = {name: value for name, value in committed.items() if not name.startswith("_")}
    plain |= {"warning": 60, "poll": 0.001, **changes}
    return SlurmSettings.of(plain, command_settings()["cluster"], runs_per_job)


class World:
    """Some people with their commands, and a cluster."""

    def __init__(self, runs_dir, seed, runs=4, **scheduler):
        self.draw = random.Random(seed)
        self.runs_dir, self.runs = runs_dir, runs
        self.scheduler = ScriptedScheduler(**scheduler)
        self.drivers = []

    def command(self, **settings):
        """A new command of the sweep, up to before its first round."""
        runs = planned(self.runs_dir, range(self.runs))
        now = look(read_submissions(self.runs_dir), self.scheduler, "scripted")
        missing = [run for run in runs if now.state_of(run.folder) in TO_START]
        sender = Sender(
            self.scheduler, self.scheduler.limits(), slurm_settings(**settings), pool_settings(), scripted.JOB
        )
        return Driver(runs, missing, sender, Watch(), sleep=lambda seconds: None)

    def act(self):
        """One thing, any of those that can happen now."""
        scheduler, draw = self.scheduler, self.draw
        running, waiting = scheduler.in_state("RUNNING"), scheduler.in_state("PENDING")
        events = []
        if waiting:
            events += [(4, lambda: scheduler.start(draw.choice(waiting)))]
            events += [(1, lambda: scheduler.stop(draw.choice(waiting), "CANCELLED"))]
        if running:
            one = draw.choice(running)
            events += [
                (3, lambda: scheduler.finish(one)),
                (1, lambda: scheduler.kill(one)),
                (1, lambda: scheduler.kill(one, "PENDING")),
                (1, lambda: scheduler.stop(one, draw.choice(["CANCELLED", "PENDING"]))),
            ]
            events += [(1, lambda: scheduler.warn(one))] if not scheduler.silent else []
        if len(self.drivers) < 2:
            events += [(2, lambda: self.drivers.append(self.command()))]
        if self.drivers:
            events += [(4, self.round), (1, lambda: self.drivers.pop(0))]
        events += [
            (1, lambda: setattr(scheduler, "silent", not scheduler.silent)),
            (1, lambda: setattr(scheduler, "on_submit", draw.choice(["killed before", "killed after", "answer lost"]))),
            (0.3, scheduler.rebuild),
        ]
        weights, what = zip(*events, strict=True)
        draw.choices(what, weights)[0]()

    def round(self):
        driver = self.draw.choice(self.drivers)
        try:
            driver.round()
        except DriverKilled:
            self.drivers.remove(driver)

    def heal(self):
        """From here on nothing bad happens; commands until one ends well."""
        self.scheduler.silent, self.scheduler.on_submit = False, ""
        for _ in range(3):
            driver = self.command()
            driver.sleep = lambda seconds: self.work()
            driver.drive()
            if all(run.folder.state() is State.DONE for run in driver.runs):
                return
        raise AssertionError("three commands in a row have not brought every run to its end")

    def work(self):
        """Let the cluster do one thing."""
        if running := self.scheduler.in_state("RUNNING"):
            self.scheduler.finish(self.draw.choice(running))
        elif waiting := self.scheduler.in_state("PENDING"):
            self.scheduler.start(self.draw.choice(waiting))
