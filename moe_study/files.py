"""Atomic writes: a file is either whole or not there, whatever kills the process that writes it.

Each write goes to a temporary file in the same folder, is flushed to the disk (fsync) and renamed over the
target (os.replace). A full disk or a read-only folder becomes one StudyError sentence that names the path.
"""

import contextlib
import errno
import glob
import json
import os
import shutil
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from moe_study.errors import StudyError, reason_of

TEMPORARY_MARK = ".part-"  # stands in the name of every temporary file, so that leftovers can be recognised
BEFORE = "-before"  # ends the name of a folder that is about to be replaced

_DENIED = "permission denied; choose a folder that this user can write"
_DENIED_TO_READ = "permission denied; give this user the right to it, or name another folder"
ADVICE = {  # by errno: what is wrong with the machine or the place, and what to do about it
    errno.ENOSPC: "the disk is full; free some space or choose another folder, then rerun the command",
    errno.EDQUOT: "the disk quota is used up; free some space or choose another folder, then rerun the command",
    errno.EFBIG: "the file grew beyond the limit of this system; choose another folder, then rerun the command",
    errno.EROFS: "the file system is read-only; choose a folder that can be written",
    errno.EACCES: _DENIED,
    errno.EPERM: _DENIED,
    errno.ENOTDIR: "a part of that path is a file, not a folder; choose another folder",
    errno.ENAMETOOLONG: "that path is too long for this file system; choose a shorter one",
    errno.ELOOP: "links in that path lead in a circle; choose another folder",
    errno.EISDIR: "a folder stands where a file should be; choose another name",
    errno.EEXIST: "a file stands where a folder should be; choose another folder",
    errno.EIO: "the disk reports an error; check it or choose another folder, then rerun the command",
    errno.ESTALE: "the network file system has lost the file; rerun the command once it is back",
    errno.EMFILE: "too many files are open; raise the limit (ulimit -n), then rerun the command",
    errno.ENFILE: "too many files are open on this machine; rerun the command later",
    errno.ENOMEM: "memory ran out; rerun the command with more of it, or with fewer runs at a time",
}


@contextlib.contextmanager
def clear_os_errors(
    path: str | os.PathLike[str], kind: type[StudyError] = StudyError, verb: str = "write"
) -> Iterator[None]:
    """Turn a full disk, a read-only folder and their like into one sentence of class `kind` about `path`.

    `verb`: what was tried, "write", "read", or "open" where that is not known.
    """
    try:
        yield
    except OSError as error:
        advice = ADVICE.get(error.errno or 0)
        if advice is None:
            raise
        if error.errno in (errno.ENAMETOOLONG, errno.ELOOP):
            verb = "find"
        elif advice == _DENIED and verb != "write":
            advice = _DENIED_TO_READ
        raise kind(f"cannot {verb} {path}: {advice}") from error


def make_folder(path: str | os.PathLike[str], kind: type[StudyError] = StudyError) -> None:
    """Make the folder and those above it, where they are missing; `kind` where that cannot be."""
    with clear_os_errors(path, kind):
        try:
            Path(path).mkdir(parents=True, exist_ok=True)
        except FileNotFoundError as error:  # what a system of its own kind, such as /proc, says
            raise kind(f"cannot make the folder {path}: that place holds no folders; choose another one") from error


@contextlib.contextmanager
def atomic_file(path: str | os.PathLike[str], kind: type[StudyError] = StudyError) -> Iterator[IO[bytes]]:
    """A binary file to write into, which appears under `path` only if the block ends without an error.

    Makes the folder if needed. A failed block leaves nothing behind; a killed process leaves at most a
    temporary file whose name holds TEMPORARY_MARK.
    """
    path = Path(path)
    temporary = path.parent / f".{path.name}{TEMPORARY_MARK}{os.getpid()}-{threading.get_ident()}"
    make_folder(path.parent, kind)
    with clear_os_errors(path, kind):
        try:
            with open(temporary, "wb") as handle:
                yield handle
                handle.flush()
                os.fsync(handle.fileno())
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        _sync(path.parent)


@contextlib.contextmanager
def atomic_folder(path: str | os.PathLike[str], kind: type[StudyError] = StudyError) -> Iterator[Path]:
    """A folder to write files into, which appears under `path` only if the block ends without an error.

    It takes the place of a folder that is there already. As with `atomic_file`, a failed block leaves nothing behind;
    a killed process leaves at most folders whose names hold TEMPORARY_MARK, which the next one on its host removes.
    """
    path = Path(path)
    of_host = f".{path.name}{TEMPORARY_MARK}{socket.gethostname()}@"
    temporary = path.parent / f"{of_host}{os.getpid()}-{threading.get_ident()}"
    before = temporary.with_name(f"{temporary.name}{BEFORE}")
    make_folder(path.parent, kind)
    with clear_os_errors(path, kind):
        _remove_leftovers(path, of_host)
        temporary.mkdir()
        try:
            yield temporary
            for file in sorted(temporary.rglob("*")):
                _sync(file)
            if path.exists():
                path.rename(before)
            temporary.rename(path)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            if before.exists() and not path.exists():
                before.rename(path)
            raise
        _sync(path.parent)
        shutil.rmtree(before, ignore_errors=True)


def _remove_leftovers(path: Path, of_host: str) -> None:
    """What killed processes of this host left of `path`; where they had moved it out of the way, it is moved back."""
    for leftover in path.parent.glob(f"{glob.escape(of_host)}*"):
        pid = leftover.name.removeprefix(of_host).partition("-")[0]
        if pid.isdecimal() and not _runs(int(pid)):
            if leftover.name.endswith(BEFORE) and not path.exists():
                leftover.rename(path)
            else:
                shutil.rmtree(leftover, ignore_errors=True)


def _runs(pid: int) -> bool:
    """Whether a process of this host has that number."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # of another user
        pass
    return True


def write_bytes_atomic(path: str | os.PathLike[str], content: bytes) -> None:
    """Write `content` under `path`, whole or not at all."""
    with atomic_file(path) as handle:
        handle.write(content)


def write_text_atomic(path: str | os.PathLike[str], content: str) -> None:
    """Write `content` as UTF-8 under `path`, whole or not at all."""
    write_bytes_atomic(path, content.encode())


def write_json_atomic(path: str | os.PathLike[str], value: Any, *, indent: int | None = 2) -> None:
    """Write `value` as JSON under `path`, whole or not at all.

    Floats that are not finite are refused (ValueError), since other readers of JSON do not know them.
    """
    text = json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False)
    write_text_atomic(path, text + "\n")


def read_json(path: str | os.PathLike[str]) -> Any:
    """What `path` holds; None where there is no such file; StudyError where it cannot be read."""
    path = Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise StudyError(f"{path} cannot be read: {reason_of(error)}") from error


def _sync(path: Path) -> None:
    """Make a file or a rename in a folder durable; where a file system cannot, the rename alone must do."""
    with contextlib.suppress(OSError):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
