"""Starts train.py as a user does, or the same with a job of toy.py in place of the training."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from moe_study.design.config import LogConfig, RunConfig, RunSettings
from moe_study.launch.local.settings import PoolSettings
from moe_study.runs.folder import RunFolder
from moe_study.sweeps.plan import PlannedRun
from tests.launch import starter

ROOT = Path(__file__).resolve().parent.parent.parent


def command(
    job: str | None, runs_dir: Path, arguments: Sequence[str], steps: int = 900
) -> tuple[list[str], dict[str, str]]:
    """The command line and environment; the runs have `steps`. `job` is a function of toy.py; None: the training."""
    program = [str(ROOT / "train.py")] if job is None else [str(ROOT / "tests" / "launch" / "train_toy.py"), job]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return [sys.executable, *program, *arguments, *_settings(runs_dir, steps)], environment


def _settings(runs_dir: Path, steps: int = 900) -> list[str]:
    return [f"log.runs_dir={runs_dir}", f"run.steps={steps}", "run.tokens=null"]


def train(job: str | None, runs_dir: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run to the end; the output is kept."""
    folder = next(parent for parent in runs_dir.parents if parent.is_dir())
    line = [*arguments, *_settings(runs_dir)]
    started = starter.start(job, line, folder)
    output, errors = started.communicate(timeout=120)
    return subprocess.CompletedProcess(line, started.returncode, output, errors)


def train_from_a_shell(job: str | None, runs_dir: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The same by a Python of its own, which takes a second: for what depends on how a process begins."""
    line, environment = command(job, runs_dir, arguments)
    return subprocess.run(
        line, env=environment, cwd=runs_dir.parent, capture_output=True, text=True, timeout=120, check=False
    )


def start(job: str, runs_dir: Path, *arguments: str, session: bool = False) -> starter.Command:
    """Start and return at once; `session`: in a process group of its own."""
    return starter.start(job, [*arguments, *_settings(runs_dir)], runs_dir.parent, session=session)


def planned(runs_dir: Path, seeds: Sequence[int], **run: Any) -> list[PlannedRun]:
    """Runs as a plan would hold them, for a launcher."""
    runs = []
    for seed in seeds:
        config = RunConfig(run=RunSettings(seed=seed, steps=900, **run), log=LogConfig(runs_dir=str(runs_dir)))
        runs.append(PlannedRun(config.key, (f"run.seed={seed}",), config, RunFolder.of(config).state()))
    return runs


def pool_settings(**changes: Any) -> PoolSettings:
    """The committed defaults of the pool, with `changes`."""
    committed = yaml.safe_load((ROOT / "conf" / "config.yaml").read_text())["job"]
    return PoolSettings.of({**committed, **changes})


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 120.0) -> None:
    """Patience for a machine that does much else."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"waited {seconds} s for {what}")
        time.sleep(0.05)
