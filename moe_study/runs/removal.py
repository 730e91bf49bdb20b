"""Freeing the disk of what runs have left. A result is only removed where that was asked for, a running run never."""

import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from moe_study.errors import StudyError
from moe_study.runs.folder import RunFolder
from moe_study.runs.lock import LockHeld
from moe_study.runs.members import drop_added_runs
from moe_study.runs.overview import FoundRun, state_of
from moe_study.runs.status import State

BUSY = (State.RUNNING, State.QUEUED)
REMOVED_MARK = ".removed-"  # how the name of a run's folder begins while its files are being deleted


@dataclass(frozen=True)
class Removal:
    """What of one run shall go."""

    run: FoundRun
    whole: bool  # the folder with everything in it; else the checkpoints alone
    size: int  # bytes

    @property
    def what(self) -> str:
        return "the whole run" if self.whole else "checkpoints"


@dataclass(frozen=True)
class Removals:
    """What shall go of several runs, and which of them stay as they are."""

    chosen: tuple[Removal, ...]
    busy: tuple[FoundRun, ...]
    kept: tuple[FoundRun, ...]  # with a result, and without checkpoints

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(removal.size for removal in self.chosen)


def plan_removal(runs: Iterable[FoundRun], *, only_checkpoints: bool = False, results: bool = False) -> Removals:
    """What `remove` would delete of `runs`: all of it where there is no result (or `results`), else the checkpoints."""
    chosen, busy, kept = [], [], []
    for run in runs:
        if run.state in BUSY:
            busy.append(run)
            continue
        whole = not only_checkpoints and (results or not has_result(run))
        place = run.folder.path if whole else run.folder.checkpoint_folder
        if place.exists():
            chosen.append(Removal(run, whole, size_of(place)))
        elif not whole:
            kept.append(run)
    return Removals(tuple(chosen), tuple(busy), tuple(kept))


def has_result(run: FoundRun) -> bool:
    """Whether something was found out by the run, which a table or a plot would show."""
    return run.state in (State.DONE, State.DIVERGED) or run.folder.result_file.exists()


def remove(removals: Sequence[Removal]) -> list[StudyError]:
    """Delete what was chosen, but nothing of a run that has been started meanwhile; what could not be deleted, and why.

    A run that is removed as a whole leaves the sweeps to which only a command line had added it.
    """
    problems: list[StudyError] = []
    gone: dict[Path, list[str]] = {}  # keys by folder of runs
    for removal in removals:
        folder = removal.run.folder
        try:
            with folder.lock():
                if state_of(folder).status != removal.run.status:
                    raise LockHeld
                _delete(folder, removal.whole)
        except LockHeld:
            problems.append(StudyError(f"{folder.path} was started meanwhile and stays"))
            continue
        except OSError as error:
            if not removal.whole or folder.path.exists():
                problems.append(StudyError(f"{folder.path} cannot be removed: {error.strerror}"))
                continue
            what = f"{folder.path} is gone, but not all of its files are: {error.strerror}"
            problems.append(StudyError(f"{what}; delete {_aside(folder)}"))
        if removal.whole:
            gone.setdefault(folder.path.parent, []).append(folder.key)
    for runs_dir, keys in gone.items():
        drop_added_runs(runs_dir, keys)
    return problems


def _delete(folder: RunFolder, whole: bool) -> None:
    """The folder vanishes at once, so that a deletion cut short leaves no half run; what it left goes next time."""
    if not whole:
        shutil.rmtree(folder.checkpoint_folder)
        return
    for leftover in folder.path.parent.glob(f"{REMOVED_MARK}*"):
        shutil.rmtree(leftover, ignore_errors=True)
    aside = _aside(folder)
    folder.path.rename(aside)
    shutil.rmtree(aside)


def _aside(folder: RunFolder) -> Path:
    return folder.path.with_name(f"{REMOVED_MARK}{folder.key}-{os.getpid()}")


def size_of(path: Path) -> int:
    """Bytes of all files below `path`."""
    return sum(file.lstat().st_size for file in path.rglob("*") if file.is_file() or file.is_symlink())
