"""Finding runs: in folders, in a sweep, by the beginning of a key."""

from collections.abc import Iterable
from pathlib import Path

from moe_study.errors import DataError, StudyError
from moe_study.runs.folder import RunFolder, list_runs
from moe_study.runs.members import read_members


def find_runs(roots: Iterable[Path], sweep: str | None = None) -> list[RunFolder]:
    """Run folders among `roots` and directly inside them; of `sweep` only, with those it never started too.

    Errors: DataError when a root is missing, or when none of them holds a run; StudyError for a sweep that was
    never launched.
    """
    roots = [Path(root) for root in roots]
    found: dict[Path, RunFolder] = {}
    for root in roots:
        _need_folder(root)
        folders = folders_in(root) if sweep is None else runs_of_sweep(root, sweep)
        found.update((folder.path, folder) for folder in folders)
    if not found:
        names = ", ".join(str(root) for root in roots) or "nothing"
        raise DataError(f"no runs in {names}; start some with python train.py, or name another folder")
    return list(found.values())


def folders_in(root: Path) -> list[RunFolder]:
    """`root`, if it is a run's folder, or those directly inside it; DataError where there is no such folder."""
    _need_folder(root)
    return [RunFolder(root)] if (root / "config.yaml").exists() else list_runs(root)


def _need_folder(root: Path) -> None:
    if not root.is_dir():
        raise DataError(f"there is no folder {root}; name the folder that holds the runs")


def find_run(runs_dir: str | Path, name: str) -> RunFolder:
    """The run that `name` means: its folder, its key, or a beginning of the key that no other run in `runs_dir` has.

    StudyError when there is none, or several.
    """
    if (Path(name) / "config.yaml").exists():
        return RunFolder(name)
    found = [folder for folder in list_runs(runs_dir) if folder.key.startswith(name)] if name else []
    if not found:
        told = name or "an empty name"
        raise StudyError(f"{told} is not a run's folder, and no run in {runs_dir} has a key that begins so")
    if len(found) > 1:
        keys = ", ".join(folder.key for folder in found[:4]) + (", ..." if len(found) > 4 else "")
        raise StudyError(f"{name} can mean {len(found)} runs in {runs_dir} ({keys}); write more of the key")
    return found[0]


def run_around(path: Path) -> RunFolder | None:
    """The run whose folder `path` is, or lies in; None where it lies in none."""
    places = map(RunFolder, (path.absolute(), *path.absolute().parents))
    return next((run for run in places if run.config_file.is_file() and run.status_file.is_file()), None)


def runs_of_sweep(runs_dir: str | Path, sweep: str) -> list[RunFolder]:
    """The folders of all members of `sweep`, which need not exist; StudyError for a sweep never launched."""
    return [RunFolder(Path(runs_dir) / key) for key in read_members(runs_dir, sweep).runs]
