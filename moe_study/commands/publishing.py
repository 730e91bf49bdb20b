"""The options of commands that can send what they have written to Weights & Biases."""

import argparse
import contextlib
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from moe_study.runs.folder import RunFolder


def add_wandb(parser: argparse.ArgumentParser) -> None:
    """--wandb and --wandb-project."""
    what = "also keep what was written as a wandb artifact: offline (wandb sync sends it later) or online"
    parser.add_argument("--wandb", choices=("offline", "online"), help=what)
    parser.add_argument("--wandb-project", metavar="NAME", help="the project it goes to (that of the runs)")


def publish_if_asked(options: argparse.Namespace, files: Sequence[Path], base: Path, kind: str) -> None:
    """Do as `add_wandb`'s options say, and tell where it is."""
    if options.wandb is None:
        return
    from moe_study.analysis.publish import publish
    from moe_study.runs.listing import find_runs

    runs = find_runs([Path(options.runs_dir)], options.sweep)
    facts = {"sweep": options.sweep, "runs": [folder.key for folder in runs]}
    project = options.wandb_project or _project_of(runs)
    name = options.sweep or Path(options.runs_dir).resolve().name
    artifact = publish(files, base, name=name, kind=kind, mode=options.wandb, project=project, facts=facts)
    where = f"in the project {project}"
    if options.wandb == "offline":
        where = f"in {base / 'wandb'}; type: cd {shlex.quote(str(base))} && wandb sync wandb/offline-run-*"
    print(f"{len(files)} file(s) are the artifact {artifact} {where}")


def _project_of(runs: "Sequence[RunFolder]") -> str:
    """Where the runs mirror their curves to, or would."""
    from moe_study.design.config import LogConfig
    from moe_study.errors import StudyError

    for folder in runs:
        with contextlib.suppress(StudyError):  # never started, or damaged
            return folder.read_config().log.wandb_project
    return LogConfig().wandb_project
