"""The files below a folder that fit a pattern: links are followed, hidden files are not read."""

import fnmatch
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from moe_study.data.tally import Tally
from moe_study.errors import DataError

HIDDEN = "hidden"
LOOP = "a link to a folder that holds it"
IRREGULAR = "no regular file"
PREPARED = "prepared data (data.root)"

Identity = tuple[int, int]  # device and inode: one folder, whatever name it was reached by


def find_files(root: Path, fits: Callable[[Path], bool], tally: Tally, prepared: Path | None = None) -> list[Path]:
    """Files below `root` whose path from there fits, sorted; DataError for a folder that cannot be listed.

    What begins with a dot is hidden. A folder is entered through a link unless it holds that link; a link that
    fits and leads nowhere is a DataError. The folder `prepared`, which this program itself writes to, is left out.
    """
    ours = _identity(prepared.stat()) if prepared is not None and prepared.is_dir() else None
    return sorted(path for path in _walk(root, fits, tally, ours) if fits(path.relative_to(root)))


def _identity(status: os.stat_result) -> Identity:
    return status.st_dev, status.st_ino


def _walk(root: Path, fits: Callable[[Path], bool], tally: Tally, ours: Identity | None) -> Iterator[Path]:
    waiting: list[tuple[Path, frozenset[Identity]]] = [(root, frozenset())]
    while waiting:
        folder, above = waiting.pop()
        try:
            inside = above | {_identity(folder.stat())}
            names = sorted(os.listdir(folder))
        except OSError as error:
            raise DataError(f"the folder {folder} cannot be listed ({error.strerror or error})") from None
        for path in (folder / name for name in names):
            if path.name.startswith("."):
                tally.leave_out(HIDDEN, str(path.relative_to(root)))
                continue
            try:
                status = path.stat()
            except OSError as error:
                if fits(path.relative_to(root)):
                    raise DataError(_unreachable(path, error)) from None
                continue
            if stat.S_ISDIR(status.st_mode):
                if _identity(status) in inside:
                    tally.leave_out(LOOP, str(path.relative_to(root)))
                elif _identity(status) == ours:
                    tally.leave_out(PREPARED, str(path.relative_to(root)))
                else:
                    waiting.append((path, inside))
            elif stat.S_ISREG(status.st_mode):
                yield path
            else:
                tally.leave_out(IRREGULAR, str(path.relative_to(root)))


def _unreachable(path: Path, error: OSError) -> str:
    if path.is_symlink():
        return f"{path} is a link that leads nowhere ({error.strerror or error}); repair or remove it"
    return f"{path} cannot be read ({error.strerror or error})"


class Pattern:
    """Whether a path fits a glob pattern; takes time proportional to both lengths.

    `*`, `?` and `[...]` stand for characters of one name, `**` between slashes for any number of folders, none
    included.
    """

    def __init__(self, pattern: str) -> None:
        self._parts = pattern.split("/")

    def __call__(self, path: Path) -> bool:
        reached = self._with_no_folders({0})  # the parts of the pattern that may come next
        for name in path.parts:
            after = set()
            for place in reached:
                if place < len(self._parts):
                    part = self._parts[place]
                    if part == "**":
                        after.add(place)
                    elif fnmatch.fnmatchcase(name, part):
                        after.add(place + 1)
            reached = self._with_no_folders(after)
        return len(self._parts) in reached

    def _with_no_folders(self, places: set[int]) -> set[int]:
        """Those places, and those behind them where a ** stands for nothing."""
        found = set(places)
        for place in sorted(places):
            while place < len(self._parts) and self._parts[place] == "**":
                place += 1
                found.add(place)
        return found
