"""How long does one wait for a command to say something, and for a run to begin?

    python -m bench.startup                     some seconds
    python -m bench.startup --rows "train.py --help"

Each row is the seconds of a process by the clock on the wall, from its start to its end; of the toy run (a tiny model
on made-up text, prepared before) from its start until the record of its first step is in metrics.jsonl. All must be
under a second, a look inside a run under five, the toy run under six. A first round, in which the system reads the
files from its disk, is not counted.
"""

import functools
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.common import Row, open_results, options, spread
from bench.machine import ROOT
from bench.tiny_runs import Size, TinyRuns
from moe_study.design.routing import Selection
from moe_study.runs.folder import list_runs

COMMANDS = {
    "train.py --help": [str(ROOT / "train.py"), "--help"],
    "moe-study --help": ["-m", "moe_study.cli", "--help"],
    "moe-study plan": ["-m", "moe_study.cli", "plan", "+sweep=first_look"],
    "moe-study status": ["-m", "moe_study.cli", "status", "packed"],
}
INSPECT = "moe-study inspect"
FIRST_STEP = "first step of a toy run"
ROWS = (*COMMANDS, INSPECT, FIRST_STEP)
LOOK_EVERY = 0.005  # seconds
PATIENCE = 120.0  # seconds


class StartUp:
    """Measures one row; `tiny` holds the prepared data and some finished runs."""

    def __init__(self, tiny: TinyRuns, rounds: int) -> None:
        self.tiny, self.rounds, self.started = tiny, rounds, 0

    def row(self, name: str) -> Row:
        once = self.first_step if name == FIRST_STEP else lambda: self.command(self.arguments(name))
        seconds = [once() for _ in range(self.rounds + 1)][1:]
        return {**spread(seconds), "unit": "s", "seconds_of": "wall clock", "rounds": self.rounds}

    def arguments(self, name: str) -> list[str]:
        """What Python is started with for the row of a command; a run is looked into that has experts."""
        if name != INSPECT:
            return COMMANDS[name]
        runs = list_runs(self.tiny.folder / "packed")
        chosen = next(run for run in runs if run.read_config().routing.selection is not Selection.DENSE)
        return ["-m", "moe_study.cli", "inspect", str(chosen.path), "--text", "The house of the rising sun"]

    def command(self, arguments: list[str]) -> float:
        start = time.perf_counter()
        self._start(arguments).communicate()
        return time.perf_counter() - start

    def first_step(self) -> float:
        """Of a run that nothing is known of: another seed each time, in a folder of its own."""
        self.started += 1
        arguments = self.tiny.command(f"single-{self.started}", self.started)
        start = time.perf_counter()
        process = self._start([*arguments, "log.log_every=1", "run.steps=2"])
        folder = self.tiny.folder / f"single-{self.started}"
        while not any(file.stat().st_size for file in folder.glob("*/metrics.jsonl")):
            if process.poll() is not None or time.perf_counter() - start > PATIENCE:
                raise RuntimeError(f"the toy run did not begin: {process.communicate()[1]}")
            time.sleep(LOOK_EVERY)
        seconds = time.perf_counter() - start
        process.communicate()
        return seconds

    def _start(self, arguments: list[str]) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, *arguments],
            cwd=self.tiny.folder,
            env=self.tiny.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


def main() -> None:
    arguments = options(__doc__, rounds=5, rows=ROWS).parse_args()
    results = open_results(arguments)
    with tempfile.TemporaryDirectory(prefix="startup-") as folder:
        tiny = TinyRuns(Path(folder), Size(steps=2))
        tiny.sweep("packed", 5)
        start_up = StartUp(tiny, arguments.rounds)
        for name in arguments.rows:
            results.measure(f"startup {name}", functools.partial(start_up.row, name))


if __name__ == "__main__":
    main()
