"""`moe-study status`: what has become of the runs in a folder."""

import argparse
import json
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from moe_study.commands.arguments import add_runs

if TYPE_CHECKING:
    from moe_study.launch.slurm.survey import Survey
    from moe_study.runs.overview import FoundRun

DESCRIPTION = "Say what has become of the runs in a folder."
PAUSE = 2.0  # seconds between two looks
PAUSE_OF_SCHEDULER = 10.0  # where each look asks one


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Add `status` to the sub-commands of moe-study."""
    parser: argparse.ArgumentParser = commands.add_parser("status", help=DESCRIPTION, description=DESCRIPTION)
    add_runs(parser)
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--failed", action="store_true", help="failed and diverged runs alone, with their last words")
    form.add_argument("--json", action="store_true", help="every run as JSON, for programs")
    form.add_argument("--watch", action="store_true", help="show it anew until no run is under way")
    parser.set_defaults(command=run)
    return parser


def run(options: argparse.Namespace) -> None:
    """Print the overview, and in what the finished runs cannot be compared."""
    from moe_study.runs.overview import failure_lines, to_plain_run

    if options.watch:
        _watch(options)
        return
    found, jobs = _look(options)
    if options.json:
        print(json.dumps([to_plain_run(run) for run in found], indent=2, ensure_ascii=False))
        return
    for line in failure_lines(found) if options.failed else _overview(found, jobs):
        print(line)


def _look(options: argparse.Namespace) -> tuple[Sequence["FoundRun"], "Survey | None"]:
    """All runs, and what the scheduler says, where there is one to ask."""
    from moe_study.launch.slurm.survey import ask_here
    from moe_study.runs.overview import find_states

    jobs = ask_here(options.runs_dir)
    return find_states(options.runs_dir, options.sweep, jobs), jobs


def _overview(found: Sequence["FoundRun"], jobs: "Survey | None") -> list[str]:
    """What is to be said of all runs."""
    from moe_study.runs.mixed import mixed
    from moe_study.runs.overview import status_lines
    from moe_study.runs.status import State

    lines = list(status_lines(found))
    mixtures = mixed(run.folder for run in found if run.state is State.DONE)
    lines += [f"note: {mixture.sentence()}" for mixture in mixtures]
    if jobs is not None and jobs.silence is not None:
        lines.append(f"note: jobs count as alive, since the scheduler does not answer: {jobs.silence}")
    return lines


def _watch(options: argparse.Namespace) -> None:
    """The overview in place, until nothing is under way or Ctrl-C."""
    from rich.live import Live
    from rich.text import Text

    from moe_study.runs.status import State

    with Live(auto_refresh=False, vertical_overflow="ellipsis") as live:
        while True:
            found, jobs = _look(options)
            live.update(Text("\n".join(_overview(found, jobs))), refresh=True)
            if not any(run.state in (State.RUNNING, State.QUEUED) for run in found):
                return
            try:
                time.sleep(PAUSE if jobs is None else PAUSE_OF_SCHEDULER)
            except KeyboardInterrupt:
                return
