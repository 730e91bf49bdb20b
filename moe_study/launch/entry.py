"""What train.py does: one run, or (with -m) inside a launcher's job one run of a sweep, or some of them."""

import os
from collections.abc import Callable

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from moe_study.errors import ConfigError, StudyError
from moe_study.guard import EXIT_FAILED, EXIT_PREEMPTED, guarded
from moe_study.launch.execute import check_data, execute, planted_job
from moe_study.runs.folder import RunFolder, State
from moe_study.sweeps.compose import run_config
from moe_study.sweeps.hydra_errors import hydra_errors_as_sentences

_single: list[DictConfig] = []


def task(composed: DictConfig) -> str | None:
    """Hydra's task function: a single run is only noted, so that it trains outside of Hydra's error handling."""
    if HydraConfig.get().mode is RunMode.RUN:
        _single.append(composed)
        return None
    if composed.job.members is not None:
        from moe_study.launch.packed_jobs import train_job

        train_job(composed.job.members)
        return None
    return str(execute(run_config(composed), planted_job()).state)


def start(main: Callable[[], None]) -> int:
    """Run Hydra's `main` and then the single run it noted, if any; the exit code."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # hand errors on instead of printing them

    def everything() -> int:
        with hydra_errors_as_sentences():
            main()
        return train_one(_single.pop()) if _single else 0

    return guarded(everything)


def train_one(composed: DictConfig) -> int:
    """Train one run in the foreground unless it is done; prints where it lies, returns the exit code."""
    if composed.sweep is not None:
        raise ConfigError(f"a sweep has many runs: add -m, as in python train.py -m +sweep={composed.sweep}")
    config = run_config(composed)
    folder = RunFolder.of(config)
    state = folder.state()
    if state is State.DONE:
        print(f"{folder.path} is done already: {headline(folder)}")
        return 0
    if state is State.DIVERGED and not composed.retry_failed:
        raise StudyError(f"{folder.path}: {folder.status().message}; retry_failed=true trains it from the start")
    check_data([config])
    print(f"{folder.path}: {'training' if state is State.MISSING else 'going on with'} {config.total_steps} steps")
    status = execute(config, planted_job())
    if status.state is State.DONE:
        print(f"{folder.path} is done: {headline(folder)}")
        return 0
    if status.state is State.PREEMPTED:
        print(f"{folder.path} saved itself at step {status.step}; the same command goes on from there")
        return EXIT_PREEMPTED
    print(f"{folder.path} ended as {status.state} at step {status.step}: {status.message}")
    return EXIT_FAILED


def headline(folder: RunFolder) -> str:
    """The result in a few words."""
    result = folder.result() or {}
    if (accuracy := result.get("accuracy")) is not None:
        return f"validation accuracy {accuracy:.1%}"
    perplexity = result.get("validation_perplexity")
    if perplexity is None:
        return "its result has no perplexity"
    verdicts = (result.get(name) or {} for name in ("causality", "causality_measured"))
    leaks = any(verdict.get("own_future") or verdict.get("others_future") for verdict in verdicts)
    mark = " † (its routing reads later tokens, so this is no autoregressive perplexity)" if leaks else ""
    return f"validation perplexity {perplexity:.2f}{mark}"
