"""Sending single runs once more, with the settings that they were last sent with."""

import dataclasses
import pickle
from collections.abc import Sequence
from pathlib import Path

from moe_study.errors import StudyError
from moe_study.launch.local.settings import PoolSettings
from moe_study.launch.slurm.driver import Driver, Watch
from moe_study.launch.slurm.scheduler import Scheduler
from moe_study.launch.slurm.settings import SlurmSettings
from moe_study.launch.slurm.submit import Sender
from moe_study.launch.slurm.survey import ask
from moe_study.launch.slurm.train import JOB_FILE
from moe_study.runs.job_records import Submission, read_submissions
from moe_study.runs.status import State
from moe_study.sweeps.plan import PlannedRun

BUSY = (State.QUEUED, State.RUNNING, State.DONE)


def send_again(runs_dir: str | Path, keys: Sequence[str], scheduler: Scheduler, watch: Watch) -> int:
    """Submit these runs, failed and diverged ones too, and return; how many were sent.

    StudyError where one of them needs no job, or was never sent to SLURM.
    """
    submissions = read_submissions(runs_dir)
    survey = ask(runs_dir, scheduler)
    groups: dict[str, tuple[Submission, list[PlannedRun]]] = {}
    for key in keys:
        last = next((one for one in reversed(submissions) if key in one.keys), None)
        if last is None:
            raise StudyError(
                f"{key} was never sent to SLURM from {runs_dir}: give its sweep's command again, with retry_failed=true"
                " if it has failed"
            )
        config = next(config for config in last.configs(_index(last, key)) if config.key == key)
        run = PlannedRun(key, (), config, State.MISSING)
        run = dataclasses.replace(run, state=survey.state_of(run.folder))
        if run.state in BUSY:
            raise StudyError(f"{run.folder.path} is {run.state}: there is nothing to send again")
        groups.setdefault(last.name, (last, []))[1].append(run)
    for last, runs in groups.values():
        settings = dataclasses.replace(SlurmSettings.recorded(last.settings), wait=False)
        job = pickle.loads((last.folder / JOB_FILE).read_bytes())
        sender = Sender(scheduler, scheduler.limits(), settings, PoolSettings.of(last.pool), job)
        Driver(runs, runs, sender, watch).drive()
    return sum(len(runs) for _, runs in groups.values())


def _index(submission: Submission, key: str) -> int:
    return next(index for index, task in enumerate(submission.tasks) if key in task)
