"""Hydra accepts plugin classes in this namespace only; the work is done in moe_study/launch, imported when needed."""

import sys
from collections.abc import Sequence
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class PlanSweeper(Sweeper):
    """Plans the whole grid before anything starts, and hands what is missing of it to the launcher at once."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        from hydra.core.plugins import Plugins

        self._config, self._context, self._job = config, hydra_context, task_function.job  # an entry.Task
        self._launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> list[str]:
        from moe_study.errors import ConfigError
        from moe_study.launch.run_sweep import sweep

        if isinstance(self._launcher, LocalLauncher) and self._config.job.runs != 1:
            raise ConfigError(
                f"job.runs={self._config.job.runs} is for a launcher that submits jobs: add"
                " hydra/launcher=submitit_slurm, or set job.workers for this machine"
            )
        return sweep(self._config, self._context.config_loader, arguments, self._launch, self._job)

    def _launch(self, runs: list[Any]) -> None:
        if isinstance(self._launcher, LocalLauncher):
            self._launcher.train(runs)
            return
        from moe_study.launch.packed_jobs import job_overrides

        jobs = job_overrides(runs, dict(self._config.job))
        try:
            self._launcher.launch(jobs, initial_job_idx=0)
        except Exception as error:  # it raises the first run's error, or that of a job that died; the folders know more
            print(f"the launcher says: {error}", file=sys.stderr)


class LocalLauncher(Launcher):
    """A bounded pool of processes on this machine; its settings are those of `job` in conf/config.yaml."""

    def __init__(self, **settings: Any) -> None:
        self._settings = settings

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self._config, self._context, self._job = config, hydra_context, task_function.job  # an entry.Task

    def train(self, runs: Sequence[Any]) -> dict[str, Any]:
        """Train planned runs; how each ended, by key."""
        from moe_study.launch.local.pool import run_pool
        from moe_study.launch.local.settings import PoolSettings

        return run_pool(runs, PoolSettings.of(self._settings, "hydra.launcher."), self._job)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Train points that another sweeper chose (hydra/sweeper=basic and others)."""
        from moe_study.runs.folder import State
        from moe_study.sweeps.compose import Composer
        from moe_study.sweeps.plan import plan_point

        composer = Composer(self._context.config_loader, list(self._config.hydra.overrides.hydra))
        plans = [plan_point(composer, overrides) for overrides in job_overrides]
        self.train(list({run.key: run for plan in plans for run in plan.to_start(self._config.retry_failed)}.values()))
        returns = []
        for plan in plans:
            folder = plan.runs[0].folder
            returned = JobReturn(overrides=plan.runs[0].overrides)
            failed = folder.state() is State.FAILED
            returned.status = JobStatus.FAILED if failed else JobStatus.COMPLETED
            returned.return_value = RuntimeError(folder.status().message) if failed else folder.result()
            returns.append(returned)
        return returns
