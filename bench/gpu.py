"""Everything that only a GPU can tell, by one command: is it right there, and what does it cost? `make bench-gpu`.

    python -m bench.gpu [--limit-seconds 560] [--nanogpt PATH/TO/model.py] [--rows "layer 64x8" ...] [--again]
    python -m bench.gpu --trial --output FILE      the same rows at toy sizes on a CPU: does the command itself work?

Rows come in order of importance and are written one by one; called again, the command resumes with what is missing,
and tries what failed at the end.
It ends before the limit. Each row is measured in a child process, which measures one after another until a row fails
or takes too long: an error on a GPU leaves a process unusable, so the next row gets a new one.
"""

import argparse
import contextlib
import gc
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

import torch

from bench import table
from bench.common import Results, Row, Skipped, open_results, options, prepare_process
from bench.gpu_rows import Rows, all_rows
from bench.gpu_setting import sizes
from bench.machine import ROOT
from bench.sides import PURE_BF16
from bench.targets import GPU

LEAST_SECONDS = 25  # for a row to be begun
TO_END = 5  # seconds that are kept for ending what runs
ROW_SECONDS = 200  # after which a row is given up
GRACE_SECONDS = 70  # for a sweep that is told to end: its runs have 60
FAILED = 3  # exit code of a child whose last row failed


def prefix(device: str) -> str:
    """How rows are named: a GPU's as in bench/targets.py; which GPU it is, the results' folder says."""
    return "trial " if device == "cpu" else GPU


class Parent:
    """Gives rows to child processes until all are done or time is up."""

    def __init__(self, arguments: argparse.Namespace, results: Results, names: list[str], folder: Path) -> None:
        self.results, self.begun, self.names = results, folder / "begun", names
        self.end = time.monotonic() + arguments.limit_seconds
        self.command = [sys.executable, "-m", "bench.gpu", "--output", str(results.path), "--begun", str(self.begun)]
        self.command += ["--again"] * arguments.again + ["--trial"] * arguments.trial
        self.command += ["--nanogpt", str(arguments.nanogpt)] if arguments.nanogpt else []

    @property
    def left(self) -> float:
        return self.end - time.monotonic()

    def run(self) -> list[str]:
        """Measure; the names of rows for which there was no time."""
        names = self.names
        while names and self.left > LEAST_SECONDS:
            dealt_with = self._child(names)
            names = names[len(dealt_with) :]
            if not dealt_with:
                break
        return names

    def _child(self, names: Sequence[str]) -> Sequence[str]:
        """One child, from its start to its end: the rows dealt with. One that ended it is kept as skipped."""
        self.begun.write_text("")
        more = ["--limit-seconds", str(self.left), "--rows", *names]
        child = subprocess.Popen([*self.command, *more], cwd=ROOT, start_new_session=True)
        reason = self._watch(child)
        begun = self.begun.read_text(encoding="utf-8").splitlines()
        if child.returncode in (0, FAILED):
            return begun
        if self.left < TO_END:
            return begun[:-1]
        if not begun:
            sys.exit("a child process ended before its first row; its message is above")
        self.results.measure(begun[-1], lambda: {"skipped": reason or f"its process ended with {child.returncode}"})
        return begun

    def _watch(self, child: subprocess.Popen[bytes]) -> str | None:
        """Wait for the child; ends it when time is up or where a row takes too long, and says so of the latter."""
        rows, since = 0, time.monotonic()
        while child.poll() is None:
            time.sleep(0.2)
            now = len(self.begun.read_text(encoding="utf-8").splitlines())
            if now != rows:
                rows, since = now, time.monotonic()
            too_long = time.monotonic() - since > ROW_SECONDS
            if too_long or self.left < TO_END:
                os.killpg(child.pid, signal.SIGKILL)  # its own session: compiler processes end with it
                child.wait()
                return f"it took more than {ROW_SECONDS} s" if too_long else None
        return None


def measure_rows(rows: Rows, results: Results, begun: Path, names: Sequence[str], limit_seconds: float) -> None:
    """In the child: one row after another, each announced in `begun`, until one fails or time is short."""
    end = time.monotonic() + limit_seconds
    for name in names:
        if end - time.monotonic() < LEAST_SECONDS:
            return
        with begun.open("a") as file:
            file.write(f"{name}\n")
        failed: list[str] = []

        def measured(name: str = name, failed: list[str] = failed) -> Row:
            try:
                return rows[name]()
            except Skipped:
                raise
            except Exception as error:  # whatever it is, it must not end the other rows
                traceback.print_exc()
                failed.append(name)
                return {"skipped": f"{type(error).__name__}: {str(error).strip()[:600]}"}

        results.measure(name, measured)
        if failed:
            sys.exit(FAILED)
        torch._dynamo.reset()
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def other_commands(results: Results, limit_seconds: float) -> None:
    """The benchmarks that are commands of their own: packing, and peers where they are installed."""
    end = time.monotonic() + limit_seconds
    usual = ["--device", "cuda", "--output", str(results.path)]
    layer = ["--precision", PURE_BF16, "--width", "768", "--sequences", "64", "--length", "1024"]
    for command in (["bench.packing", *usual, "--rounds", "1"], ["bench.peers", *usual, *layer]):
        left = end - GRACE_SECONDS - time.monotonic()
        if left < LEAST_SECONDS:
            return
        child = subprocess.Popen([sys.executable, "-m", *command], cwd=ROOT, start_new_session=True)
        try:
            child.wait(timeout=left)
        except subprocess.TimeoutExpired:
            end_session(child)


def end_session(child: subprocess.Popen[bytes]) -> None:
    """Ask the child and what it has started to end (a sweep lets its runs save themselves), and see that they do."""
    end = time.monotonic() + GRACE_SECONDS
    os.killpg(child.pid, signal.SIGTERM)
    with contextlib.suppress(ProcessLookupError):  # nobody is left
        while time.monotonic() < end:
            child.poll()
            os.killpg(child.pid, 0)
            time.sleep(0.2)
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def failures(results: Results) -> list[str]:
    """Checks whose error is more than is allowed, or that did not run to their end."""
    checks = {name: row for name, row in results.rows.items() if " check " in name}
    return [name for name, row in checks.items() if row.get("median", 2.0) > 1 and not _excused(row)]


def _excused(row: Row) -> bool:
    return str(row.get("skipped", "")).startswith(("a CPU has", "Triton's interpreter"))


def main() -> None:
    parser = options(__doc__, rounds=0)
    parser.add_argument("--limit-seconds", type=float, default=560, help="end before so many (default 560)")
    parser.add_argument("--rows", nargs="+", help="which to measure, without the machine's name (default: all)")
    parser.add_argument("--nanogpt", type=Path, help="path of nanoGPT's model.py")
    parser.add_argument("--trial", action="store_true", help="toy sizes on a CPU")
    parser.add_argument("--begun", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.trial:
        os.environ |= {"MOE_STUDY_GPU_TRIAL": "1", "TRITON_INTERPRET": "1"}
        if arguments.output is None:
            parser.error("--trial needs --output: its rows are not results")
    elif not torch.cuda.is_available():
        sys.exit("bench.gpu needs a CUDA GPU, and torch sees none here; --trial runs it at toy sizes on the CPU")
    setting = sizes()
    results, machine = open_results(arguments, setting.device), prefix(setting.device)
    rows = {f"{machine}{name}": row for name, row in all_rows(setting, arguments.nanogpt).items()}
    if arguments.begun is not None:
        prepare_process()
        measure_rows(rows, results, arguments.begun, arguments.rows, arguments.limit_seconds)
        return
    names = [f"{machine}{name}" for name in arguments.rows] if arguments.rows else list(rows)
    if unknown := sorted(set(names) - set(rows)):
        parser.error(f"no rows are named {', '.join(unknown)}; choose from {', '.join(rows)}")
    names.sort(key=lambda name: "skipped" in results.rows.get(name, {}))  # what failed before comes last
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        missing = Parent(arguments, results, names, Path(folder)).run()
    if not arguments.trial and not arguments.rows and not missing:
        other_commands(results, arguments.limit_seconds - (time.monotonic() - start))
    if not arguments.trial and arguments.output is None:
        table.write()
    if missing:
        print(f"{len(missing)} rows are missing; rerun the command to resume with {missing[0]}")
    if failed := failures(results):
        sys.exit(f"wrong results: {', '.join(failed)}")


if __name__ == "__main__":
    main()
