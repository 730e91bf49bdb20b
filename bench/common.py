"""Timing side by side on a machine that is never quiet.

Other processes move every figure here by tens of per cent, so nothing absolute is compared: the sides take
turns, step by step, in an order that alternates, and a ratio is the median over rounds of the ratio within a
round, with its quartiles beside it. One thread is timed in its own CPU seconds, the steadiest figure there is;
more threads by the clock on the wall.
"""

import ctypes
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml

from moe_study.config import ModelConfig, from_plain
from moe_study.files import write_json_atomic

ROOT = Path(__file__).resolve().parent.parent


def model_config(name: str) -> ModelConfig:
    """The committed size conf/model/NAME.yaml."""
    return from_plain(ModelConfig, yaml.safe_load((ROOT / "conf" / "model" / f"{name}.yaml").read_text()), "model.")


def prepare_process() -> None:
    """For all sides alike: no denormals, and no pages returned to the system and faulted in again at every step."""
    torch.set_flush_denormal(True)
    if platform.system() == "Linux":
        trim_threshold, mmap_max = -1, -4  # numbers of glibc's malloc.h
        libc = ctypes.CDLL(None)
        libc.mallopt(mmap_max, 0)
        libc.mallopt(trim_threshold, (1 << 31) - 1)


def take_turns(sides: dict[str, Callable[[], Any]], rounds: int, warmup: int = 2) -> dict[str, list[float]]:
    """Seconds of each side in each of `rounds` rounds; every second round runs in reverse order."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(-warmup, rounds):
        order = list(sides) if number % 2 == 0 else list(reversed(sides))
        for name in order:
            start = clock()
            sides[name]()
            if number >= 0:
                seconds[name].append(clock() - start)
    return seconds


def ratio(numerator: list[float], denominator: list[float]) -> dict[str, float]:
    """Median and quartiles of the ratio within each round."""
    low, middle, high = statistics.quantiles(
        [a / b for a, b in zip(numerator, denominator, strict=True)], n=4, method="inclusive"
    )
    return {"median": middle, "low": low, "high": high}


def environment() -> dict[str, Any]:
    """What the figures were measured on."""
    return {
        "torch": torch.__version__,
        "processor": _processor(),
        "cores": os.cpu_count(),
        "system": platform.platform(terse=True),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def report(results: dict[str, Any], output: Path | None) -> None:
    """Write the results as JSON where asked for."""
    if output is not None:
        write_json_atomic(output, results)
        print(f"wrote {output}")
    else:
        print(json.dumps(results["environment"]))
