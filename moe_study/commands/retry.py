"""`moe-study retry`: send single runs to SLURM again."""

import argparse
import sys
from typing import Any

from moe_study.commands.arguments import add_keys, add_runs_dir
from moe_study.errors import StudyError

DESCRIPTION = "Send runs to SLURM again, failed ones too, with the settings that they were last sent with."


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Add `retry` to the sub-commands of moe-study."""
    parser: argparse.ArgumentParser = commands.add_parser("retry", help=DESCRIPTION, description=DESCRIPTION)
    add_keys(parser)
    parser.add_argument("--failed", action="store_true", help="all runs that have failed")
    parser.add_argument("--diverged", action="store_true", help="all runs whose loss stopped being finite")
    parser.add_argument("--sweep", metavar="NAME", help="among the members of this sweep")
    add_runs_dir(parser)
    parser.set_defaults(command=run)
    return parser


def run(options: argparse.Namespace) -> None:
    """Submit them and return."""
    from moe_study.launch.slurm.again import send_again
    from moe_study.launch.slurm.driver import Watch
    from moe_study.launch.slurm.scheduler import Slurm
    from moe_study.runs.listing import find_run
    from moe_study.runs.overview import find_states
    from moe_study.runs.status import State

    class Printing(Watch):
        def say(self, line: str) -> None:
            print(line, file=sys.stderr, flush=True)

    wanted = {state for state in (State.FAILED, State.DIVERGED) if getattr(options, state.value)}
    if not options.runs and not wanted:
        raise StudyError("say which runs to send again: KEYs, --failed or --diverged")
    keys = [find_run(options.runs_dir, name).key for name in options.runs]
    if wanted:
        keys += [found.folder.key for found in find_states(options.runs_dir, options.sweep) if found.state in wanted]
    if not keys:
        print("no run has failed" if wanted == {State.FAILED} else "there is no such run")
        return
    sent = send_again(options.runs_dir, list(dict.fromkeys(keys)), Slurm(), Printing())
    print(f"{sent} sent again; moe-study status {options.runs_dir} shows how far they are")
