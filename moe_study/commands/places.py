"""Where commands may write what they were asked for: never over the files of a run."""

from pathlib import Path

from moe_study.errors import StudyError
from moe_study.runs.folder import list_runs
from moe_study.runs.listing import run_around


def check_out_folder(out: Path) -> None:
    """StudyError unless files can go to the folder `out` without lying among those of runs."""
    _check_outside_runs(out)
    if out.exists() and not out.is_dir():
        raise StudyError(f"--out {out} is a file; name a folder")
    if list_runs(out):
        raise StudyError(f"--out {out} holds runs; name another folder, so that nothing else lies among them")


def check_out_file(out: Path, example: str) -> None:
    """StudyError unless `out` can be a file; `example` is the name of one."""
    _check_outside_runs(out)
    if out.is_dir():
        raise StudyError(f"--out {out} is a folder; name a file in it, such as {out / example}")


def _check_outside_runs(out: Path) -> None:
    if (run := run_around(out)) is not None:
        raise StudyError(f"--out {out} lies in the folder of the run {run.key}; name a place outside of it")
