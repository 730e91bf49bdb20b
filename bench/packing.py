"""What does it save to train many tiny runs side by side on one machine, instead of one after another?

    python -m bench.packing                              100 runs on the CPU, a few minutes
    python -m bench.packing --runs 10 --rounds 1         a trial
    python -m bench.packing --device cuda --rounds 1     on one GPU, 1, 16, 8, 4 and 2 at a time, with MPS and without

Each side is one command, `python train.py -m +sweep=...`, timed by the clock on the wall from its start to its end.
CPU: the pool as it comes (a run on each core) over the same pool with one run at a time, with one thread or with all,
whichever is faster; and over one command for each run, for fewer runs. Each loss of each run must be the same to the
last bit whether it was packed or not. GPU: each number of runs at a time over one at a time; losses may differ in
their last bits there, and the largest difference is kept.

The machine must be idle otherwise: where others keep its cores busy there is nothing to fill, and the ratio goes to 1.
"""

import functools
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from bench.common import Results, Row, Skipped, open_results, options, ratio, spread
from bench.targets import GPU
from bench.tiny_runs import CommandFailed, Size, TinyRuns
from moe_study.launch.local.slots import available_cores

STEPS = {"cpu": Size.steps, "cuda": 40}  # half a second of one core; half a second of launches, by estimate
MANY = 8  # runs at a time on a GPU, from which the best way is chosen first
NO_MPS = "hydra.launcher.mps=on, but "  # what the pool says where it cannot start MPS
ALONE = "1-off"
PACKED, SERIAL, SERIAL_WIDE = "packed", "one_at_a_time", "one_at_a_time_on_all_cores"


def cpu_rows(results: Results, tiny: TinyRuns, runs: int, rounds: int, commands: int) -> None:
    cores = available_cores()
    wall = {"seconds_of": f"wall clock, {cores} cores"}

    def pool() -> Row:
        """Packed over one at a time; the sides take turns."""
        sides = {
            PACKED: ("hydra.launcher.workers=auto", "hydra.launcher.threads_per_run=1"),
            SERIAL: ("hydra.launcher.workers=1", "hydra.launcher.threads_per_run=1"),
            SERIAL_WIDE: ("hydra.launcher.workers=1", f"hydra.launcher.threads_per_run={cores}"),
        }
        seconds = take_turns(tiny, sides, runs, rounds)
        fastest = min((SERIAL, SERIAL_WIDE), key=lambda side: statistics.median(seconds[side]))
        return {
            **ratio(seconds[PACKED], seconds[fastest]),
            **wall,
            "over": fastest,
            "seconds": seconds,
            "losses_equal": tiny.losses(PACKED) == tiny.losses(SERIAL),
            **vars(tiny.size),
        }

    def one_command_each() -> Row:
        packed = [tiny.sweep(PACKED, commands) for _ in range(rounds)]
        apart = [tiny.commands("apart", commands) for _ in range(rounds)]
        return {**ratio(packed, apart), **wall, "seconds": {PACKED: packed, "commands": apart}}

    row = results.measure(f"packing {runs} tiny runs", pool)
    results.measure(f"packing {commands} tiny runs over {commands} commands", one_command_each)
    if not row.get("losses_equal", True):
        sys.exit("the losses of packed runs differ from those of runs one at a time")


def take_turns(tiny: TinyRuns, sides: Mapping[str, tuple[str, ...]], runs: int, rounds: int) -> dict[str, list[float]]:
    """Seconds of each side in each round; every second round in reverse order."""
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    for number in range(rounds):
        for side in list(sides) if number % 2 == 0 else [*sides][::-1]:
            seconds[side].append(tiny.sweep(side, runs, *sides[side]))
    return seconds


def gpu_rows(results: Results, tiny: TinyRuns, runs: int, rounds: int, sharing: Sequence[int]) -> None:
    """Seconds of one run at a time; of many at a time, and how the best of these compares; then of fewer at a time."""
    name = f"{GPU}packing {runs} tiny runs"

    def seconds(number: int, mps: str) -> tuple[str, Row]:
        way = f"{number} at a time{', MPS' * (mps == 'on')}"
        return way, results.measure(f"{name}, {way}", functools.partial(_shared, tiny, runs, rounds, number, mps))

    _, alone = seconds(1, "off")
    many = [number for number in sharing if number >= MANY] or sharing
    timed = dict(seconds(number, mps) for number in many for mps in ("off", "on"))

    def best() -> Row:
        way = min((way for way, row in timed.items() if "skipped" not in row), key=lambda way: timed[way]["median"])
        ratios = spread([packed / alone["median"] for packed in timed[way]["seconds"]])
        return {**ratios, "seconds_of": "wall clock", "way": way, **vars(tiny.size)}

    results.measure(name, best)
    for number in sharing:
        if number not in many:
            seconds(number, "off")
            seconds(number, "on")


def _shared(tiny: TinyRuns, runs: int, rounds: int, number: int, mps: str) -> Row:
    side = f"{number}-{mps}"
    settings = (f"hydra.launcher.runs_per_gpu={number}", f"hydra.launcher.mps={mps}")
    try:
        seconds = [tiny.sweep(side, runs, *settings) for _ in range(rounds)]
    except CommandFailed as error:
        if NO_MPS in str(error):
            raise Skipped(str(error).partition(NO_MPS)[2].partition(";")[0]) from None
        raise
    row: dict[str, Any] = {**spread(seconds), "unit": "s", "seconds_of": "wall clock", "seconds": seconds}
    if number > 1 and (tiny.folder / ALONE).exists():
        row["largest_loss_difference"] = largest_difference(tiny.losses(side), tiny.losses(ALONE))
    return row


def largest_difference(ours: Mapping[str, list[float]], theirs: Mapping[str, list[float]]) -> float:
    """In nats, over all losses of all runs; both must hold the same runs."""
    return max(abs(a - b) for key in ours for a, b in zip(ours[key], theirs[key], strict=True))


def main() -> None:
    parser = options(__doc__, rounds=2)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--commands", type=int, default=10, help="runs to start by commands of their own (CPU)")
    parser.add_argument("--sharing", type=int, nargs="+", default=[16, 8, 4, 2], help="runs at a time on the GPU")
    parser.add_argument("--steps", type=int, help=f"of each run (default {STEPS['cpu']}, on a GPU {STEPS['cuda']})")
    parser.add_argument("--width", type=int, default=Size.width, help=f"width of the models (default {Size.width})")
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        sys.exit("--device cuda: torch sees no GPU here")
    results = open_results(arguments, arguments.device)
    with tempfile.TemporaryDirectory(prefix="packing-") as folder:
        size = Size(steps=arguments.steps or STEPS[arguments.device], width=arguments.width, device=arguments.device)
        tiny = TinyRuns(Path(folder), size)
        if arguments.device == "cpu":
            cpu_rows(results, tiny, arguments.runs, arguments.rounds, arguments.commands)
        else:
            gpu_rows(results, tiny, arguments.runs, arguments.rounds, arguments.sharing)


if __name__ == "__main__":
    main()
