"""Starts train.py as a user does, with a job of toy.py in place of the training."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent


def command(job: str, runs_dir: Path, arguments: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """The command line and environment; the runs have 900 steps."""
    settings = [f"log.runs_dir={runs_dir}", "run.steps=900", "run.tokens=null"]
    environment = {**os.environ, "MOE_STUDY_JOB": f"tests.sweeps.toy:{job}", "PYTHONPATH": str(ROOT)}
    return [sys.executable, str(ROOT / "train.py"), *arguments, *settings], environment


def train(job: str, runs_dir: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run to the end; the output is kept."""
    line, environment = command(job, runs_dir, arguments)
    folder = runs_dir.parent
    return subprocess.run(line, env=environment, cwd=folder, capture_output=True, text=True, timeout=120, check=False)


def start(job: str, runs_dir: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start and return at once."""
    line, environment = command(job, runs_dir, arguments)
    return subprocess.Popen(
        line, env=environment, cwd=runs_dir.parent, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"waited {seconds} s for {what}")
        time.sleep(0.05)
