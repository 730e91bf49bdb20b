"""How many runs this machine takes at a time, and which part of it each of them gets."""

import contextlib
import glob
import os
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from moe_study.errors import ConfigError
from moe_study.launch.local.settings import PoolSettings

CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")


@dataclass(frozen=True)
class Slot:
    """A place for one run at a time: its share of the machine."""

    gpu: str | None = None  # as CUDA_VISIBLE_DEVICES names it; None: no GPU of its own
    threads: int = 1
    environment: Mapping[str, str] = field(default_factory=dict)  # of the processes that train here


def make_slots(settings: PoolSettings, devices: Iterable[str]) -> list[Slot]:
    """One slot for each run at a time. `devices` are the run.device values of the runs that are to start."""
    _check("workers", settings.workers, auto=True)
    _check("threads_per_run", settings.threads_per_run, auto=True)
    _check("runs_per_gpu", settings.runs_per_gpu)
    gpus = _gpus_for(set(devices))
    threads = 1 if settings.threads_per_run == "auto" and not gpus else settings.threads_per_run
    if settings.workers != "auto":
        number = int(settings.workers)
    else:
        number = len(gpus) * settings.runs_per_gpu if gpus else max(1, available_cores() // int(threads))
    if threads == "auto":
        threads = max(1, available_cores() // number)
    if not gpus:
        return [Slot(threads=int(threads))] * number
    chosen = [gpus[i % len(gpus)] for i in range(number)]
    return [Slot(gpu, int(threads), {"CUDA_VISIBLE_DEVICES": gpu}) for gpu in chosen]


def threads_of_a_run(settings: PoolSettings, device: str) -> int:
    """CPU threads of one run by itself: as many as the pool would give it, so that both end with the same bits.

    OMP_NUM_THREADS does not count: it differs from shell to shell.
    """
    return make_slots(settings, {device})[0].threads


def _check(name: str, value: object, auto: bool = False) -> None:
    whole = isinstance(value, int) and not isinstance(value, bool) and value >= 1
    if not whole and not (auto and value == "auto"):
        raise ConfigError(
            f"{name}={value} must be {'auto or ' if auto else ''}at least 1; it is set by hydra.launcher.{name} on this"
            f" machine and by job.{name} everywhere"
        )


def _gpus_for(wanted: set[str]) -> list[str]:
    gpus = visible_gpus() if wanted & {"cuda", "auto"} else []
    if "cuda" in wanted and not gpus:
        raise ConfigError("run.device=cuda, but this machine shows no GPU; use run.device=cpu or another machine")
    return gpus


def available_cores() -> int:
    """Cores that this process may use: by affinity, by the container's quota, and in a job of SLURM by its share."""
    limits = [len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1]
    with contextlib.suppress(OSError, ValueError):  # no such file, or no limit ("max")
        quota, period = CPU_QUOTA.read_text(encoding="utf-8").split()
        limits.append(int(quota) // int(period))
    # SLURM may be set up not to bind processes. Where it was not asked for cores by task, it says those of the node.
    for name in ("SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE"):
        if (share := os.environ.get(name, "")).isdecimal():
            limits.append(int(share))
            break
    return max(1, min(limits))


def visible_gpus() -> list[str]:
    """Names of the GPUs as CUDA_VISIBLE_DEVICES lists them, found without importing torch."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [name.strip() for name in chosen.split(",") if name.strip() not in ("", "-1")]
    try:
        command = ("nvidia-smi", "--query-gpu=index", "--format=csv,noheader")
        listed = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=60, check=True).stdout
        return [line.strip() for line in listed.splitlines() if line.strip().isdigit()]
    except (OSError, subprocess.SubprocessError):
        return [str(i) for i in range(len(glob.glob("/dev/nvidia[0-9]*")))]
