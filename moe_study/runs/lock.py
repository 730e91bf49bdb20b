"""A lock on a file that dies with the process that holds it, so that a killed process blocks nobody."""

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from moe_study.files import clear_os_errors, make_folder

_WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # what file systems without locks answer
_PAUSE = 0.02  # seconds between two attempts


class LockHeld(Exception):
    """Another process has kept the lock for longer than one wanted to wait."""


@contextlib.contextmanager
def hold(path: Path, patience: float) -> Iterator[None]:
    """Hold the lock `path` for the block; LockHeld if another process keeps it for `patience` seconds.

    The empty file stays behind: removing it would let two processes lock two files of the same name. Where the file
    system has no locks, nothing is held.
    """
    make_folder(path.parent)
    with clear_os_errors(path):
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        _acquire(handle, time.monotonic() + patience)
        yield
    finally:
        os.close(handle)


def is_held(path: Path) -> bool | None:
    """Whether a living process holds the lock `path`; None where the file system has no locks."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return None
    finally:
        os.close(handle)
    return False


def _acquire(handle: int, deadline: float) -> None:
    while True:
        try:
            return fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise LockHeld from None
            time.sleep(_PAUSE)
        except OSError as error:
            if error.errno in _WITHOUT_LOCKS:
                return None
            raise
