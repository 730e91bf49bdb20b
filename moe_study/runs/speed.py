"""How fast the finished runs of a folder trained, for estimates of what others will take."""

import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moe_study.errors import StudyError
from moe_study.runs.folder import RunFolder, list_runs

UNKNOWN_DEVICE = "an unknown device"


@dataclass(frozen=True)
class Speed:
    """Of one kind of device; evaluation is left out."""

    flops_per_second: float  # median over runs, forward and backward
    runs: int
    device: str  # as provenance.json names it: a GPU, or cpu with its threads


def measured_speeds(runs_dir: str | Path) -> list[Speed]:
    """By device, that of the most runs first; none where no run is finished."""
    by_device: dict[str, list[float]] = {}
    for folder in list_runs(runs_dir):
        for device, speed in _speed_of(folder):
            by_device.setdefault(device, []).append(speed)
    speeds = [Speed(statistics.median(values), len(values), device) for device, values in by_device.items()]
    return sorted(speeds, key=lambda speed: -speed.runs)


def _speed_of(folder: RunFolder) -> Iterator[tuple[str, float]]:
    """Device and FLOPs per second, where the run has both a result and a time."""
    try:
        result, provenance = folder.result() or {}, folder.provenance() or {}
    except StudyError:
        return
    numbers: list[Any] = [result.get(name) for name in ("train_seconds", "flops_per_token", "tokens")]
    if all(isinstance(number, int | float) and number > 0 for number in numbers):
        seconds, flops, tokens = map(float, numbers)
        yield str(provenance.get("device") or UNKNOWN_DEVICE), 3 * flops * tokens / seconds
