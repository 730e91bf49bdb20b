"""Timing side by side on a machine that is never quiet, and results kept by commit.

Other processes move every figure here by tens of per cent, so nothing absolute is compared: the sides take turns, in
an order that alternates, and a ratio is the median over rounds of the ratio within a round, with its quartiles beside
it. One thread is timed in its own CPU seconds, the steadiest figure there is; more threads by the clock on the wall; a
GPU by its own events.
"""

import argparse
import ctypes
import datetime
import json
import platform
import statistics
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml

from bench.machine import ROOT, code_under_test, environment, machine_name
from bench.targets import target_of
from moe_study.design.config import ModelConfig
from moe_study.design.plain import from_plain
from moe_study.errors import StudyError
from moe_study.files import write_json_atomic

RESULTS = ROOT / "bench" / "results"
HEAD_START = 20_000_000  # clock ticks of a GPU, some ten milliseconds

Row = Mapping[str, Any]  # "median", "low", "high" and how they were measured; or "skipped" alone
Timer = Callable[[Callable[[], Any]], float]  # seconds that one call takes


class Skipped(Exception):
    """A row that cannot be measured here; its one sentence says why, and is kept in the row's place."""


def model_config(name: str) -> ModelConfig:
    """The committed size conf/model/NAME.yaml."""
    text = (ROOT / "conf" / "model" / f"{name}.yaml").read_text(encoding="utf-8")
    return from_plain(ModelConfig, yaml.safe_load(text), "model.")


def prepare_process(threads: int | None = None) -> None:
    """For all sides alike: no denormals, and no pages returned to the system and faulted in again at every step."""
    if threads is not None:
        torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    if platform.system() == "Linux":
        trim_threshold, mmap_max = -1, -4  # numbers of glibc's malloc.h
        libc = ctypes.CDLL(None)
        libc.mallopt(mmap_max, 0)
        libc.mallopt(trim_threshold, (1 << 31) - 1)


def seconds_of(device: torch.device | str = "cpu") -> str:
    """Which seconds `timer` reads, in the words of a row's "seconds_of"."""
    if torch.device(device).type == "cuda":
        return "device, the host ahead"
    threads = torch.get_num_threads()
    return "CPU, one thread" if threads == 1 else f"wall clock, {threads} threads"


def timer(device: torch.device | str = "cpu") -> Timer:
    """Times a call in the steadiest seconds that the device and the number of threads allow."""
    if torch.device(device).type == "cuda":
        return _device_seconds
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter

    def seconds(call: Callable[[], Any]) -> float:
        start = clock()
        call()
        return clock() - start

    return seconds


def _device_seconds(call: Callable[[], Any]) -> float:
    """Between two events in the GPU's queue around the call; waits for both.

    The GPU is given something to wait for first, so that the host is ahead of it as it is within a training step: else
    a call of few kernels is timed by how fast they are launched.
    """
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    torch.cuda._sleep(HEAD_START)
    start.record()
    call()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1000


def take_turns(
    sides: Mapping[str, Callable[[], Any]], rounds: int, warmup: int = 2, device: torch.device | str = "cpu"
) -> dict[str, list[float]]:
    """Seconds of each side in each of `rounds` rounds; every second round runs in reverse order."""
    seconds_of_call = timer(device)
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(-warmup, rounds):
        for name in list(sides) if number % 2 == 0 else [*sides][::-1]:
            taken = seconds_of_call(sides[name])
            if number >= 0:
                seconds[name].append(taken)
    return seconds


def flanked(
    side: Callable[[], Any], twin: Callable[[], Any], rounds: int, warmup: int = 1, device: torch.device | str = "cpu"
) -> dict[str, Any]:
    """The ratio of `side` to the mean of the runs of `twin` right before and right after it, as a row."""
    seconds = timer(device)
    samples = [(seconds(twin), seconds(side), seconds(twin)) for _ in range(-warmup, rounds)][warmup:]
    return {
        **spread([2 * middle / (before + after) for before, middle, after in samples]),
        "milliseconds": milliseconds(
            {"side": [s[1] for s in samples], "twin": [t for s in samples for t in (s[0], s[2])]}
        ),
        "rounds": rounds,
        "seconds_of": seconds_of(device),
    }


def ratio(numerator: Sequence[float], denominator: Sequence[float]) -> dict[str, float]:
    """Median and quartiles of the ratio within each round."""
    return spread([a / b for a, b in zip(numerator, denominator, strict=True)])


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median and quartiles; of a single value three times that."""
    if len(values) == 1:
        return dict.fromkeys(("median", "low", "high"), values[0])
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return {"median": middle, "low": low, "high": high}


def milliseconds(seconds: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Each side's median, to judge the size of what was timed; not to be compared between runs."""
    return {name: 1000 * statistics.median(times) for name, times in seconds.items()}


class Results:
    """Rows measured at one commit on one machine: written after every row, and none is measured twice.

    A row that was skipped is tried again: what it lacked may be there by now. `again` measures every row anew.
    """

    def __init__(self, path: Path, again: bool = False, device: torch.device | str = "cpu") -> None:
        self.path, self.again = path, again
        self.commit, self.changes = code_under_test()
        self.environment = environment(device)

    @classmethod
    def of_commit(cls, device: torch.device | str, again: bool = False) -> "Results":
        """Those of the code as it lies here: bench/results/MACHINE/COMMIT.json."""
        return cls(RESULTS / machine_name(device) / f"{code_under_test()[0]}.json", again, device)

    @property
    def rows(self) -> dict[str, dict[str, Any]]:
        """What has been measured, by name."""
        return self._content()["rows"]

    def measure(self, name: str, measure: Callable[[], Row]) -> Row:
        """The row `name`: what is kept, or what `measure` returns (Skipped becomes its sentence). Prints a line."""
        kept = self.rows.get(name)
        if kept is not None and "skipped" not in kept and not self.again:
            print(f"{describe(name, kept)} (kept)", flush=True)
            return kept
        try:
            row = dict(measure())
        except Skipped as reason:
            row = {"skipped": str(reason)}
        self._keep(name, row)
        print(describe(name, row), flush=True)
        return row

    def _keep(self, name: str, row: dict[str, Any]) -> None:
        if "skipped" not in row and not {"median", "low", "high"} <= set(row):
            raise ValueError(f"row {name} lacks median, low or high: {row}")
        content = self._content()  # read again: another benchmark may have written meanwhile
        if content["environment"] != self.environment:
            row["environment"] = self.environment
        content["rows"][name] = row
        write_json_atomic(self.path, content)

    def _content(self) -> dict[str, Any]:
        """The file's content; a new one where there is none, or where it is of changes that are gone."""
        if self.path.exists():
            content = json.loads(self.path.read_text(encoding="utf-8"))
            if content["commit"] != self.commit:
                raise StudyError(
                    f"{self.path} holds results of {content['commit']}, and this is {self.commit};"
                    " remove it, or name another file with --output"
                )
            if content["changes"] == self.changes:
                return content
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        start = {"environment": self.environment, "commit": self.commit, "changes": self.changes, "date": now}
        return {**start, "rows": {}}


def describe(name: str, row: Row) -> str:
    """One line: the ratio first, its quartiles, what it must be, and whose it is."""
    if "skipped" in row:
        return f"    - {name}: skipped, {row['skipped']}"
    unit = f" {row['unit']}" if "unit" in row else ""
    target = target_of(name)
    wanted = f"must {target.must:.2f}, aim {target.aim:.2f}" if target else ""
    remarks = "; ".join(filter(None, (row.get("seconds_of"), wanted)))
    return f"{row['median']:7.3f}{unit} [{row['low']:.3f}, {row['high']:.3f}] {name}" + f" ({remarks})" * bool(remarks)


def options(question: str | None, rounds: int, rows: Collection[str] = ()) -> argparse.ArgumentParser:
    """A parser with what every benchmark takes; `question` is its module's docstring."""
    parser = argparse.ArgumentParser(description=question, formatter_class=argparse.RawDescriptionHelpFormatter)
    if rows:
        parser.add_argument("--rows", nargs="+", choices=list(rows), default=list(rows), metavar="ROW",
                            help=f"which to measure: {', '.join(rows)}")  # fmt: skip
    parser.add_argument("--rounds", type=int, default=rounds, help=f"samples a row (default {rounds})")
    parser.add_argument("--again", action="store_true", help="measure rows that are there already")
    parser.add_argument("--output", type=Path, help="write to this file, not bench/results/MACHINE/COMMIT.json")
    return parser


def unusual(**settings: tuple[Any, Any]) -> str:
    """What a row's name ends with where a setting (its value, the usual value) is not the usual one: another row."""
    changed = {name: value for name, (value, usual) in settings.items() if value != usual}
    return "".join(f", {name}" if value is True else f", {value} {name}" for name, value in changed.items())


def open_results(arguments: argparse.Namespace, device: torch.device | str = "cpu") -> Results:
    """Where the rows of a command go, by its --output and --again."""
    if arguments.output is not None:
        return Results(arguments.output, arguments.again, device)
    return Results.of_commit(device, arguments.again)
