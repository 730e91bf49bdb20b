"""Errors that a user can act on: each is one sentence that says what to change."""


class StudyError(Exception):
    """Bad input or a missing resource; the message alone is shown, without a traceback."""


class ConfigError(StudyError):
    """A configuration that has no meaning or does not fit together."""


class DataError(StudyError):
    """Data that is missing, damaged or not what it was when a run began."""
