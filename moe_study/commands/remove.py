"""`moe-study remove`: free disk of runs that are not needed any more, after showing what goes."""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moe_study.commands.arguments import add_keys, add_runs_dir
from moe_study.errors import StudyError

if TYPE_CHECKING:
    from moe_study.runs.overview import FoundRun
    from moe_study.runs.removal import Removals

DESCRIPTION = """\
Free disk of runs that are not needed any more. Shows what would go and how much that is, and asks; where nobody can
answer, only --yes removes anything. A run that is running stays. Results stay, too: of a run that has one (it is done,
or has diverged) only the checkpoints go, unless --results is given.

  moe-study remove 3f2a 77c0 --results    two runs, named by the beginning of their keys, with their results
  moe-study remove --failed               all failed runs
  moe-study remove --checkpoints          checkpoints of all runs with a result: nobody can open their models any more
  moe-study remove --sweep mine           a sweep's unfinished runs, and the checkpoints of its others
"""


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Add `remove` to the sub-commands of moe-study."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "remove",
        help="Free disk of runs that are not needed any more; shows what goes, and asks.",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_keys(parser)
    parser.add_argument("--failed", action="store_true", help="runs that have failed")
    parser.add_argument("--checkpoints", action="store_true", help="only checkpoints, of runs with a result or by KEY")
    parser.add_argument("--sweep", metavar="NAME", help="among the members of this sweep")
    parser.add_argument("--results", action="store_true", help="results, too")
    add_runs_dir(parser)
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.set_defaults(command=run)
    return parser


def run(options: argparse.Namespace) -> int:
    """Show, ask, remove; 1 if something stays that should have gone."""
    from moe_study.runs.removal import plan_removal, remove

    removals = plan_removal(select(options), only_checkpoints=options.checkpoints, results=options.results)
    for line in lines(removals):
        print(line)
    if not removals.chosen:
        return 0
    if not options.yes and not _confirmed():
        print("nothing was removed" + ("" if sys.stdin.isatty() else "; add --yes to remove this"))
        return 1
    problems = remove(removals.chosen)
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    return 1 if problems else 0


def select(options: argparse.Namespace) -> list["FoundRun"]:
    """The runs that the command line names; StudyError where it names none, or contradicts itself."""
    from moe_study.launch.slurm.survey import ask_here
    from moe_study.runs.folder import list_runs
    from moe_study.runs.listing import find_run, runs_of_sweep
    from moe_study.runs.overview import state_of
    from moe_study.runs.removal import has_result
    from moe_study.runs.status import State

    if options.checkpoints and options.results:
        raise StudyError("--checkpoints leaves results as they are, and --results removes them: give one of the two")
    if not (options.runs or options.failed or options.checkpoints or options.sweep):
        raise StudyError("say what to remove: KEYs, --failed, --checkpoints or --sweep NAME")
    if not options.runs and not Path(options.runs_dir).is_dir():
        raise StudyError(f"there is no folder {options.runs_dir}; name the folder that holds the runs by --runs-dir")
    if options.sweep is not None:
        folders = [folder for folder in runs_of_sweep(options.runs_dir, options.sweep) if folder.path.exists()]
    else:
        folders = list_runs(options.runs_dir)
    if options.runs:
        named = {folder.key: folder for folder in (find_run(options.runs_dir, name) for name in options.runs)}
        members = {folder.key for folder in folders}
        folders = [folder for key, folder in named.items() if options.sweep is None or key in members]
    jobs = ask_here(options.runs_dir)
    found = [state_of(folder, jobs) for folder in folders]
    if options.failed:
        found = [run for run in found if run.state is State.FAILED]
    if options.checkpoints and not options.runs:  # an unfinished run still needs its own
        found = [run for run in found if has_result(run)]
    return found


def lines(removals: "Removals") -> Iterator[str]:
    """What goes, what stays, and how much that is."""
    for removal in removals.chosen:
        run = removal.run
        yield f"{run.folder.path}  {run.state:<9}  {size(removal.size):>9}  {removal.what}"
    for run in removals.busy:
        yield f"{run.folder.path}  {run.state:<9}  stays"
    if removals.kept:
        yield f"{len(removals.kept)} with a result and without checkpoints stay; --results removes them, too"
    if not removals.chosen:
        yield "there is nothing to remove"
        return
    yield f"{len(removals.chosen)} to remove: {size(removals.size)}"


def size(number: float) -> str:
    """Bytes as a person reads them."""
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} TB"


def _confirmed() -> bool:
    return sys.stdin.isatty() and input("remove this? [y/N] ").strip().lower() in ("y", "yes")
