"""How many runs this machine takes at a time, and which GPU each of them sees."""

import glob
import os
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from moe_study.errors import ConfigError


@dataclass(frozen=True)
class Slot:
    """A place for one run; `gpu` is what its CUDA_VISIBLE_DEVICES becomes (None: leave it alone)."""

    gpu: str | None = None


def make_slots(workers: int | str, threads_per_run: int, runs_per_gpu: int, devices: Iterable[str]) -> list[Slot]:
    """One slot for each run at a time. `devices` are the run.device values of the runs that are to start."""
    if workers != "auto" and (not isinstance(workers, int) or isinstance(workers, bool) or workers < 1):
        raise ConfigError(f"hydra.launcher.workers={workers} must be auto or at least 1")
    for name, value in (("threads_per_run", threads_per_run), ("runs_per_gpu", runs_per_gpu)):
        if not isinstance(value, int) or value < 1:
            raise ConfigError(f"hydra.launcher.{name}={value} must be at least 1")
    wanted = set(devices)
    gpus = visible_gpus() if wanted & {"cuda", "auto"} else []
    if "cuda" in wanted and not gpus:
        raise ConfigError("run.device=cuda, but this machine shows no GPU; use run.device=cpu or another machine")
    if gpus:
        number = len(gpus) * runs_per_gpu if workers == "auto" else int(workers)
        return [Slot(gpus[i % len(gpus)]) for i in range(number)]
    number = max(1, available_cores() // threads_per_run) if workers == "auto" else int(workers)
    return [Slot()] * number


def available_cores() -> int:
    """Cores that this process may use, by affinity and by the container's quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, min(cores, int(quota) // int(period)))
    except (OSError, ValueError):  # no such file, or no limit ("max")
        return cores


def visible_gpus() -> list[str]:
    """Names of the GPUs as CUDA_VISIBLE_DEVICES lists them, found without importing torch."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [name.strip() for name in chosen.split(",") if name.strip() not in ("", "-1")]
    try:
        command = ("nvidia-smi", "--query-gpu=index", "--format=csv,noheader")
        listed = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
        return [line.strip() for line in listed.splitlines() if line.strip().isdigit()]
    except (OSError, subprocess.SubprocessError):
        return [str(i) for i in range(len(glob.glob("/dev/nvidia[0-9]*")))]
