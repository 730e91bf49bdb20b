"""`moe-study status`: what has become of the runs in a folder."""

import argparse
from typing import Any

DESCRIPTION = "Say what has become of the runs in a folder."


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Add `status` to the sub-commands of moe-study."""
    parser: argparse.ArgumentParser = commands.add_parser("status", help=DESCRIPTION, description=DESCRIPTION)
    add_runs(parser)
    parser.set_defaults(command=run)
    return parser


def add_runs(parser: argparse.ArgumentParser) -> None:
    """The arguments of every command that works on the runs of a folder."""
    parser.add_argument("runs_dir", nargs="?", default="runs", help="the folder that holds the runs (runs)")
    parser.add_argument("--sweep", metavar="NAME", help="only the runs of this sweep, as last launched")


def run(options: argparse.Namespace) -> None:
    """Print the overview, and in what the finished runs cannot be compared."""
    from moe_study.launch.slurm.survey import ask_here
    from moe_study.runs.mixed import mixed
    from moe_study.runs.overview import find_states, status_lines
    from moe_study.runs.status import State

    jobs = ask_here(options.runs_dir)
    found = find_states(options.runs_dir, options.sweep, jobs)
    for line in status_lines(found):
        print(line)
    for mixture in mixed(run.folder for run in found if run.state is State.DONE):
        print(f"note: {mixture.sentence()}")
    if jobs is not None and jobs.silence is not None:
        print(f"note: jobs count as alive, since the scheduler does not answer: {jobs.silence}")
