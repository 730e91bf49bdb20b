"""Errors that a user can act on: each is one sentence that says what to change."""


class StudyError(Exception):
    """Bad input or a missing resource; the message alone is shown, without a traceback."""


class ConfigError(StudyError):
    """A configuration that has no meaning or does not fit together."""


class MachineError(StudyError):
    """Something outside of the run gave out: the same command resumes it."""


class DataError(StudyError):
    """Data that is missing, damaged or not what it was when a run began."""


class MissingLibrary(StudyError, ImportError):
    """An optional library that is not installed; the message names the extra that brings it."""


def reason_of(error: BaseException | str) -> str:
    """What an error says in its first line, since CUDA's and others' go on with hints; its kind where it is mute."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__ if isinstance(error, BaseException) else ""
    return " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
