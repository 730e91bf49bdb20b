"""`moe-study logs`: what a run has said."""

import argparse
import time
from pathlib import Path
from typing import Any

from moe_study.commands.arguments import add_run, add_runs_dir
from moe_study.errors import StudyError
from moe_study.files import clear_os_errors

DESCRIPTION = "Print what a run has said; with -f as it goes on, until it ends."
PAUSE = 0.5  # seconds between two looks at the log


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Add `logs` to the sub-commands of moe-study."""
    parser: argparse.ArgumentParser = commands.add_parser("logs", help=DESCRIPTION, description=DESCRIPTION)
    add_run(parser, "a run's")
    parser.add_argument("-f", "--follow", action="store_true", help="go on until the run ends")
    add_runs_dir(parser)
    parser.set_defaults(command=run)
    return parser


def run(options: argparse.Namespace) -> None:
    """Print the log; a run that was trained in the foreground of a terminal has none."""
    from moe_study.launch.slurm.survey import ask_here
    from moe_study.runs.listing import find_run
    from moe_study.runs.status import State

    folder = find_run(options.runs_dir, options.run)
    if not folder.log_file.exists():
        raise StudyError(f"{folder.path} has no log: it has not begun, or was trained in a terminal by itself")
    position = _print_from(folder.log_file, 0)
    while options.follow:
        jobs = ask_here(folder.path.parent)
        state = jobs.state_of(folder) if jobs is not None else folder.state()
        position = _print_from(folder.log_file, position)
        if state not in (State.RUNNING, State.QUEUED):
            return
        time.sleep(PAUSE if jobs is None else 10 * PAUSE)  # the scheduler is asked each time


def _print_from(log: Path, position: int) -> int:
    """Print what stands after `position` (bytes); where that ends."""
    with clear_os_errors(log, verb="read"), open(log, "rb") as handle:
        handle.seek(position)
        print(handle.read().decode("utf-8", errors="replace"), end="", flush=True)
        return handle.tell()
