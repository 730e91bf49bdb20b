"""`moe-study cancel`: cancel the jobs of runs on a cluster."""

import argparse
from typing import Any

from moe_study.commands.arguments import add_keys, add_runs_dir
from moe_study.errors import StudyError

DESCRIPTION = "Cancel the SLURM jobs of runs, by key or of a whole sweep; running ones save a checkpoint first."


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Add `cancel` to the sub-commands of moe-study."""
    parser: argparse.ArgumentParser = commands.add_parser("cancel", help=DESCRIPTION, description=DESCRIPTION)
    add_keys(parser)
    parser.add_argument("--sweep", metavar="NAME", help="all members of this sweep, as last launched")
    add_runs_dir(parser)
    parser.set_defaults(command=run)
    return parser


def run(options: argparse.Namespace) -> None:
    """Cancel, and say what was cancelled; jobs of several runs are cancelled with all of them."""
    from moe_study.launch.slurm.scheduler import Slurm
    from moe_study.launch.slurm.survey import ask
    from moe_study.runs.members import read_members

    if not options.runs and options.sweep is None:
        raise StudyError("say what to cancel: KEYs or --sweep NAME")
    scheduler = Slurm()
    survey = ask(options.runs_dir, scheduler)
    if survey.silence is not None:
        raise StudyError(f"the scheduler does not answer ({survey.silence}); nothing was cancelled")
    keys = set(read_members(options.runs_dir, options.sweep).runs) if options.sweep is not None else set()
    for name in options.runs:
        keys.add(_key(name, survey.live))
    ids = dict.fromkeys(task.id for key in sorted(keys) for task in survey.live.get(key, ()) if task.job_id)
    if not ids:
        print("none of these runs has a job")
        return
    scheduler.cancel(list(ids))
    print(f"cancelled {len(ids)} jobs: {', '.join(list(ids)[:8])}{', ...' if len(ids) > 8 else ''}")


def _key(name: str, live: Any) -> str:
    """The run that `name` means, among those with a job: a run that only waits has no folder yet."""
    beginning = name.rstrip("/").rpartition("/")[2]
    found = [key for key in live if beginning and key.startswith(beginning)]
    if len(found) != 1:
        many = f"can mean {len(found)} runs with a job ({', '.join(sorted(found)[:4])}); write more of the key"
        raise StudyError(f"{name} {many if found else 'is not the beginning of the key of a run with a job'}")
    return str(found[0])
