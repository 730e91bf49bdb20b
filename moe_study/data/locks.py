"""One process at a time: an advisory lock on a file, for work that two runs may start at once."""

import contextlib
import fcntl
from collections.abc import Callable, Iterator
from pathlib import Path

from moe_study.errors import DataError
from moe_study.files import clear_os_errors, make_folder


@contextlib.contextmanager
def locked(path: Path, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold the lock `path` for the block; the kernel lets it go if the process dies.

    `on_wait` is called once if another process holds it. The empty file stays behind: removing it would let
    two processes lock two files of the same name.
    """
    make_folder(path.parent, DataError)
    with clear_os_errors(path, DataError):
        handle = open(path, "a", encoding="utf-8")  # noqa: SIM115 (closed below, after the lock)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if on_wait is not None:
                on_wait()
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        handle.close()
