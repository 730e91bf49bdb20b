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
        from moe_study.launch.run_sweep import Launching, sweep

        launcher = self._launcher
        if not isinstance(launcher, SlurmLauncher) and self._config.job.runs != 1:
            raise ConfigError(
                f"job.runs={self._config.job.runs} is for hydra/launcher=slurm: add that, or leave it out and set"
                " job.workers for this machine"
            )
        given = [one for one in arguments if one.startswith(("cluster=", "cluster."))]
        if given and not isinstance(launcher, SlurmLauncher):
            raise ConfigError(f"{given[0]} is for hydra/launcher=slurm: add that, or leave it out")
        if isinstance(launcher, LocalLauncher | SlurmLauncher):
            launching = launcher.launching()
        else:
            launching = Launching(self._launch_as_hydra_does)
        return sweep(self._config, self._context.config_loader, arguments, launching, self._job)

    def _launch_as_hydra_does(self, plan: Any, runs: Sequence[Any]) -> None:
        """With a launcher that is not ours, which composes each run from its overrides."""
        threads = f"job.threads_per_run={self._config.job.threads_per_run}"
        try:
            self._launcher.launch([[*run.overrides, threads] for run in runs], initial_job_idx=0)
        except Exception as error:  # it raises the first run's error; the folders know more
            print(f"the launcher says: {error}", file=sys.stderr)


class SlurmLauncher(Launcher):
    """Arrays of jobs on a cluster; its settings are those of conf/hydra/launcher/slurm.yaml."""

    def __init__(self, **settings: Any) -> None:
        self._settings = settings

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self._config, self._job = config, task_function.job  # an entry.Task

    def launching(self) -> Any:
        """How it trains, for run_sweep."""
        from moe_study.launch.slurm.launcher import SlurmSweep
        from moe_study.sweeps.compose import as_plain

        cluster = as_plain(self._config.cluster)
        return SlurmSweep(self._settings, cluster, dict(self._config.job), self._job).launching()

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from moe_study.errors import ConfigError

        raise ConfigError("hydra/launcher=slurm needs to know the whole sweep: leave hydra/sweeper out")


class LocalLauncher(Launcher):
    """A bounded pool of processes on this machine; its settings are those of `job` in conf/config.yaml."""

    def __init__(self, **settings: Any) -> None:
        self._settings = settings

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self._config, self._context, self._job = config, hydra_context, task_function.job  # an entry.Task

    def launching(self) -> Any:
        """How it trains, for run_sweep."""
        from moe_study.launch.run_sweep import Launching

        return Launching(lambda plan, runs: self.train(runs))

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
