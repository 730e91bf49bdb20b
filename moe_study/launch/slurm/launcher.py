"""hydra/launcher=slurm: what a sweep's command does with SLURM, from the first look at the queue to the last word."""

import functools
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from moe_study.design.ranks import sharing_of
from moe_study.errors import ConfigError, StudyError
from moe_study.launch.execute import Job
from moe_study.launch.local.settings import PoolSettings
from moe_study.launch.run_sweep import Launching
from moe_study.launch.slurm.driver import Driver
from moe_study.launch.slurm.profile import check_profile
from moe_study.launch.slurm.scheduler import Limits, Scheduler, Slurm
from moe_study.launch.slurm.settings import SlurmSettings
from moe_study.launch.slurm.submit import Sender
from moe_study.launch.slurm.survey import Survey, ask
from moe_study.launch.slurm.table import Table
from moe_study.runs.folder import RunFolder
from moe_study.runs.job_records import Submission, read_submissions
from moe_study.runs.status import State
from moe_study.sweeps.plan import Plan, PlannedRun


class SlurmSweep:
    """A sweep's command. `plain` are the launcher's settings, `cluster` and `pool` the sections cluster and job."""

    def __init__(
        self,
        plain: Mapping[str, Any],
        cluster: Mapping[str, Any],
        pool: Mapping[str, Any],
        job: Job,
        scheduler: Scheduler | None = None,
    ) -> None:
        self._pool, self._runs_per_job = PoolSettings.of(pool), pool["runs"]
        if not isinstance(self._runs_per_job, int) or isinstance(self._runs_per_job, bool) or self._runs_per_job < 1:
            raise ConfigError(f"job.runs={self._runs_per_job} must be at least 1")
        check_profile(cluster)
        self._settings = SlurmSettings.of(plain, cluster, self._runs_per_job)
        self._job = job
        self._scheduler = scheduler or Slurm()
        self._surveys: dict[Path, Survey] = {}  # by folder of runs; the last look
        self._how_it_ended: Callable[[str], str] = lambda key: ""  # the last job of a run, while this command waited

    def launching(self) -> Launching:
        """As run_sweep wants it."""
        return Launching(self.train, joins=True, leaves=not self._settings.wait, state=self.state, reason=self.reason)

    def state(self, folder: RunFolder) -> State:
        """What has become of a run; the scheduler is asked, once for all runs, where some are not done."""
        if (state := folder.state()) is State.DONE:
            return state
        return self._survey(folder.path.parent).state_of(folder)

    def reason(self, key: str) -> str:
        """How the last job of an unfinished run ended."""
        return self._how_it_ended(key)

    def train(self, plan: Plan, missing: Sequence[PlannedRun]) -> None:
        """Submit, join and wait; or with wait=false submit. Ctrl-C leaves the jobs alone."""
        runs_dir = plan.runs[0].folder.path.parent
        states = {run.key: run.state for run in plan.runs}
        if not missing and not {State.QUEUED, State.RUNNING} & set(states.values()):
            return
        for run in missing:
            sharing_of(run.config, self._settings.processes)  # ConfigError where so many cannot share its steps
        self._check_cluster(read_submissions(runs_dir), states)
        with Table(plan) as table:
            sender = Sender(self._scheduler, self._limits, self._settings, self._pool, self._job)
            driver = Driver(plan.runs, missing, sender, table, self._runs_per_job)
            try:
                driver.drive()
            except KeyboardInterrupt:
                table.close()
                print(leaving(driver.live, plan), file=sys.stderr, flush=True)
                raise
            finally:
                self._surveys.clear()
                self._how_it_ended = driver.how_it_ended
        if not self._settings.wait:
            print(leaving(driver.live, plan), file=sys.stderr, flush=True)

    @functools.cached_property
    def _limits(self) -> Limits:
        return self._scheduler.limits()

    def _survey(self, runs_dir: Path) -> Survey:
        if runs_dir not in self._surveys:
            self._surveys[runs_dir] = ask(runs_dir, self._scheduler)
        return self._surveys[runs_dir]

    def _check_cluster(self, submissions: Sequence[Submission], states: Mapping[str, State]) -> None:
        """StudyError where runs may have jobs on another cluster, which cannot be asked from here."""
        here = self._limits.cluster
        for submission in submissions:
            waiting = [key for key in submission.keys if states.get(key) in (State.QUEUED, State.RUNNING)]
            if waiting and not submission.over and submission.cluster != here:
                raise StudyError(
                    f"{len(waiting)} runs have jobs on the cluster {submission.cluster}, and this one is {here}: rerun"
                    f" the command there, or remove {submission.folder} if those jobs are gone for ever"
                )


def leaving(live: int, plan: Plan) -> str:
    """What to know when the command ends before its jobs do."""
    runs_dir = plan.runs[0].config.log.runs_dir
    sweep = f"--sweep {plan.name} " if plan.name else ""
    stop = f"moe-study cancel {sweep}--runs-dir {runs_dir}" if plan.name else "squeue --me, then scancel ID"
    return (
        f"{live} jobs go on without this command: the same command joins them again, and moe-study status {sweep}"
        f"{runs_dir} shows how far they are; to stop them: {stop}"
    )
