"""What every entry point does with errors and with its output: neither a dead terminal nor a full disk is a defect.

An error that the user can mend becomes one sentence and exit code 1. What is printed may be lost (a lost ssh, `| head`,
a full disk under a log), and never changes what becomes of the work.
"""

import contextlib
import errno
import io
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import Any, TextIO

from moe_study.errors import MachineError, StudyError
from moe_study.files import ADVICE, clear_os_errors

EXIT_FAILED = 1
EXIT_INTERRUPTED = 130
EXIT_PREEMPTED = 75  # EX_TEMPFAIL: rerunning the command resumes the run
OUT_OF_MEMORY = (
    "memory ran out; use a smaller run.micro_batch, or fewer runs at a time (job.workers, job.runs_per_gpu), and rerun"
    " the command to resume"
)
_IN_ASCII = str.maketrans({"×": "x", "÷": "/", "±": "+-", "†": "+", "–": "-", "Δ": "diff", "…": "...", "\u00a0": " "})


def guarded(function: Callable[[], int | None]) -> int:
    """Exit code of `function`; a StudyError, a full or read-only disk becomes one sentence."""
    with forgiving_output():
        try:
            return function() or 0
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            return EXIT_INTERRUPTED
        except Exception as error:
            print_error(error)
            return EXIT_FAILED


def print_error(error: Exception) -> None:
    """The sentence for the user, or the traceback of an unexpected error."""
    sentence = sentence_for(error)
    if sentence is None:
        traceback.print_exception(error)
    else:
        print(f"error: {sentence}", file=sys.stderr)


def sentence_for(error: BaseException) -> str | None:
    """What to tell the user; None for an unexpected error, which deserves its traceback."""
    if isinstance(error, StudyError):
        return str(error)
    if _is_out_of_memory(error):
        return OUT_OF_MEMORY
    if isinstance(error, OSError):
        verb = "open" if isinstance(error, PermissionError) else "write"  # who only looks is denied, too
        try:
            with clear_os_errors(error.filename or "a file", verb=verb):
                raise error
        except StudyError as clear:
            return str(clear)
        except OSError:
            return None
    return None


def is_resumable(error: BaseException) -> bool:
    """Whether the machine is at fault and not the run: a disk or memory gave out, or another process of the run.

    The same command then resumes it.

    The reason may stand behind an error that was made of it.
    """
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        if isinstance(cause, MachineError) or _is_out_of_memory(cause):
            return True
        if isinstance(cause, OSError) and cause.errno in ADVICE:
            return True
        cause = cause.__cause__ or cause.__context__
    return False


def _is_out_of_memory(error: BaseException) -> bool:
    """Also as torch says it, which nothing here imports."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)


@contextlib.contextmanager
def forgiving_output() -> Iterator[None]:
    """Inside, nothing that is printed can raise: not by print, a progress bar, a warning or a library."""
    _fill_standard_descriptors()
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = _Forgiving(before[0]), _Forgiving(before[1])  # type: ignore[assignment]
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, _Forgiving):
                stream.end()
        sys.stdout, sys.stderr = before


class _Forgiving(io.TextIOBase):
    """A text stream that drops what cannot be written, and writes signs that its encoding lacks in others."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream  # None where the process was started without one

    def write(self, text: str) -> int:
        if self._stream is not None:
            try:
                self._stream.write(text)
            except UnicodeEncodeError:
                encoding = self._stream.encoding or "ascii"
                self.write(text.translate(_IN_ASCII).encode(encoding, "replace").decode(encoding))
            except (OSError, ValueError) as error:
                self._bear(error)
        return len(text)

    def flush(self) -> None:
        if self._stream is not None:
            try:
                self._stream.flush()
            except (OSError, ValueError) as error:
                self._bear(error)

    def end(self) -> None:
        """What cannot be written now will not be: Python itself, which flushes at its end, must find nothing left."""
        if self._stream is not None:
            try:
                self._stream.flush()
            except (OSError, ValueError):
                self._give_up()

    def isatty(self) -> bool:
        try:
            return self._stream is not None and self._stream.isatty()
        except ValueError:  # closed
            return False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _bear(self, error: Exception) -> None:
        if getattr(error, "errno", None) not in (errno.ENOSPC, errno.EDQUOT):  # there may be space again later
            self._give_up()

    def _give_up(self) -> None:
        """Let everything go nowhere from here on, what is buffered included."""
        with contextlib.suppress(OSError, ValueError, AttributeError):
            _to_nowhere(self._stream.fileno())  # type: ignore[union-attr]


def _fill_standard_descriptors() -> None:
    """Where 0, 1 or 2 is closed, the next file to be opened would get the number, and what libraries print into it."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            _to_nowhere(number)


def _to_nowhere(descriptor: int) -> None:
    nowhere = os.open(os.devnull, os.O_RDWR)
    if nowhere != descriptor:
        os.dup2(nowhere, descriptor)
        os.close(nowhere)
