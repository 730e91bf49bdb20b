"""What train.py and `moe-study train` do: one run, or (with -m, under a launcher of Hydra's) one run of a sweep."""

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import hydra
from hydra._internal.hydra import Hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from moe_study.design.config import RunConfig
from moe_study.errors import ConfigError, StudyError
from moe_study.guard import EXIT_FAILED, EXIT_PREEMPTED, guarded
from moe_study.launch import command_line
from moe_study.launch.data import check_data, check_finished
from moe_study.launch.execute import TRAINING, Job, execute
from moe_study.launch.local.settings import PoolSettings
from moe_study.launch.local.slots import threads_of_a_run
from moe_study.launch.untraced import about_untraced
from moe_study.runs.folder import RunFolder, State
from moe_study.runs.result import causality_of
from moe_study.sweeps.compose import HYDRA_VERSION_BASE, run_config, warning_of_unused
from moe_study.sweeps.conf import CONFIG_NAME, project_root
from moe_study.sweeps.hydra_errors import hydra_errors_as_sentences
from moe_study.sweeps.plan import flag
from moe_study.training.rank import rank_of_environment


class Task:
    """Hydra's task function, which also carries the job of a launch to the launcher that Hydra hands it to."""

    def __init__(self, job: Job) -> None:
        self.job = job
        # A single run, to be trained after Hydra's part: its configuration, and what the command line says of it.
        self.single: tuple[DictConfig, Sequence[str], PoolSettings] | None = None

    def __call__(self, composed: DictConfig) -> str | None:
        """A single run is only noted, so that it trains outside of Hydra's error handling."""
        settings = pool_settings(composed)
        if HydraConfig.get().mode is RunMode.RUN:
            self.single = composed, list(HydraConfig.get().overrides.task), settings
            return None
        config = run_config(composed)
        return str(execute(config, self.job, threads_of_a_run(settings, config.run.device)).state)


def main(job: Job = TRAINING, arguments: Sequence[str] | None = None) -> int:
    """Do what `arguments` say (None: those of the process), `job` with each run; the exit code."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # hand errors on instead of printing them

    def everything() -> int:
        task = Task(job)
        sys.argv[1:] = command_line.read(sys.argv[1:] if arguments is None else arguments)  # where Hydra reads them
        conf = str(project_root() / "conf")
        with hydra_errors_as_sentences(), composed_once(sys.argv[1:]):
            hydra.main(version_base=HYDRA_VERSION_BASE, config_path=conf, config_name=CONFIG_NAME)(task)()
        return train_one(*task.single, job) if task.single is not None else 0

    return guarded(everything)


@contextlib.contextmanager
def composed_once(arguments: Sequence[str]) -> Iterator[None]:
    """Keep Hydra from composing the whole configuration a second time, only to learn hydra.mode from it.

    That takes a tenth of a second of every command. The committed configuration leaves the mode to -m; where
    `arguments` may set it, or name other files that may, Hydra looks.
    """
    look = Hydra.get_mode
    if not any("hydra.mode" in word or "hydra=" in word or word.startswith(("-c", "--c")) for word in arguments):
        Hydra.get_mode = lambda *_, **__: None  # type: ignore[method-assign]
    try:
        yield
    finally:
        Hydra.get_mode = look  # type: ignore[method-assign]


def pool_settings(composed: DictConfig) -> PoolSettings:
    """What the launcher says, where it is the local one, and for all else the section `job`."""
    launcher: Any = HydraConfig.get().launcher
    return PoolSettings.of({name: launcher.get(name, value) for name, value in composed.job.items()})


def train_one(composed: DictConfig, overrides: Sequence[str], settings: PoolSettings, job: Job) -> int:
    """Train one run in the foreground unless it is done; prints where it lies, returns the exit code."""
    if composed.sweep is not None:
        scale = "" if composed.scale is None else f" scale={composed.scale}"
        raise ConfigError(f"a sweep has many runs: add -m, as in python train.py -m +sweep={composed.sweep}{scale}")
    if composed.scale is not None:
        raise ConfigError(f"scale={composed.scale} chooses the size of a sweep: add -m +sweep=NAME")
    retry_failed = flag({"retry_failed": composed.retry_failed}, "retry_failed")
    config = run_config(composed)
    if rank_of_environment() > 0:  # rank 0 decides and tells
        return _train_along(config, settings, job)
    if (warning := warning_of_unused(composed, overrides)) is not None:
        print(f"warning: {warning}", file=sys.stderr)
    folder = RunFolder.of(config)
    state = folder.state()
    check_finished([config], job)
    if state is State.DONE:
        print(f"{folder.path} is done already: {headline(folder)}")
        if (sentence := about_untraced([config])) is not None:
            print(sentence, file=sys.stderr)
        return 0
    if state is State.DIVERGED and not retry_failed:
        raise StudyError(f"{folder.path}: {folder.status().message}; retry_failed=true trains it from the start")
    check_data([config], job)
    threads = threads_of_a_run(settings, config.run.device)
    print(f"{folder.path}: {_opening(config, state, config.log.threads or threads)}")
    status = execute(config, job, threads)
    if status.state is State.DONE:
        print(f"{folder.path} is done: {headline(folder)}")
        return 0
    if status.state is State.PREEMPTED:
        print(f"{folder.path} is saved at step {status.step}; rerun the command to resume it")
        return EXIT_PREEMPTED
    print(f"{folder.path} ended as {status.state} at step {status.step}: {status.message}")
    return EXIT_FAILED


def _train_along(config: RunConfig, settings: PoolSettings, job: Job) -> int:
    """Train a run together with rank 0, which records it; says nothing but errors."""
    if RunFolder.of(config).result() is None:
        execute(config, job, threads_of_a_run(settings, config.run.device))
    return 0


def _opening(config: RunConfig, state: State, threads: int) -> str:
    verb = "training" if state is State.MISSING else "resuming; in all"
    return f"{verb} {config.total_steps} steps on {threads} CPU thread{'s' if threads > 1 else ''}"


def headline(folder: RunFolder) -> str:
    """The result in a few words."""
    result = folder.result() or {}
    if (accuracy := result.get("accuracy")) is not None:
        return f"validation accuracy {accuracy:.1%}"
    perplexity = result.get("validation_perplexity")
    if perplexity is None:
        return "its result has no perplexity"
    leaks = causality_of(result).leaks
    mark = " † (its routing reads later tokens, so this is not an autoregressive perplexity)" if leaks else ""
    return f"validation perplexity {perplexity:.2f}{mark}"
