"""What every entry point does with an error: a sentence and exit code 1 where the user can act on it."""

import sys
import traceback
from collections.abc import Callable

from moe_study.errors import StudyError
from moe_study.files import clear_os_errors

EXIT_FAILED = 1
EXIT_INTERRUPTED = 130
EXIT_PREEMPTED = 75  # EX_TEMPFAIL: rerunning the command resumes the run


def guarded(function: Callable[[], int | None]) -> int:
    """Exit code of `function`; a StudyError, a full or read-only disk becomes one sentence."""
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
    if isinstance(error, OSError):
        try:
            with clear_os_errors(error.filename or "a file"):
                raise error
        except StudyError as clear:
            return str(clear)
        except OSError:
            return None
    return None
