"""Every benchmark of the CPU, one after another; then the table of all results that are kept. `make bench` runs this.

    python -m bench.everything [--only layer step ...] [--again] [--rounds N] [--nanogpt PATH/TO/model.py]

Rows that were measured at this commit on this machine are kept, so the same command resumes after an interruption. A
benchmark that fails leaves the others to run, and its name at the end.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from bench import table
from bench.machine import ROOT
from bench.targets import TWO_THREADS

BENCHMARKS = ("layer", "step", "memory", "peers", "packing", "startup", "scale", "specialise", "trace")
BY_THE_CLOCK_TOO = ("layer", "peers")  # in CPU seconds of one thread, then by the clock on two threads
WITH_NANOGPT = "nanogpt_dense"  # only where its model has been fetched


def commands(arguments: argparse.Namespace) -> dict[str, list[str]]:
    """What to run, by the name of the benchmark (and of how it is run)."""
    more = ["--again"] * arguments.again
    if arguments.rounds is not None:
        more += ["--rounds", str(arguments.rounds)]
    chosen = {name: [f"bench.{name}", *more] for name in arguments.only}
    for name in BY_THE_CLOCK_TOO:
        if name in arguments.only:
            chosen[f"{name}{TWO_THREADS}"] = [f"bench.{name}", *more, "--threads", "2"]
    if arguments.nanogpt is not None:
        chosen[WITH_NANOGPT] = [f"bench.{WITH_NANOGPT}", "--nanogpt", str(arguments.nanogpt), *more]
    return chosen


def run(command: Sequence[str]) -> bool:
    """Whether `python -m COMMAND` ended well; in a process of its own, with threads that sleep when they wait."""
    environment = {**os.environ, "OMP_WAIT_POLICY": "passive"}
    return subprocess.run([sys.executable, "-m", *command], cwd=ROOT, env=environment).returncode == 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=BENCHMARKS, default=list(BENCHMARKS), help="which to run")
    parser.add_argument("--again", action="store_true", help="measure rows that are there already")
    parser.add_argument("--rounds", type=int, help="samples a row, for all (default: each benchmark's own)")
    parser.add_argument("--nanogpt", type=Path, help="path of nanoGPT's model.py, to time the dense model against it")
    failed = []
    for name, command in commands(parser.parse_args()).items():
        print(f"\n{name}", flush=True)
        if not run(command):
            failed.append(name)
    print()
    table.write()
    if failed:
        sys.exit(f"failed: {', '.join(failed)}; rerun the command to measure what is missing")


if __name__ == "__main__":
    main()
