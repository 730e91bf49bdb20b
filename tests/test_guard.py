"""Which errors become a sentence, and which keep their traceback."""

import errno

import pytest

from moe_study.errors import StudyError
from moe_study.guard import guarded, sentence_for


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (StudyError("do this instead"), "error: do this instead\n"),
        (OSError(errno.ENOSPC, "No space left on device", "/runs/x"), "error: cannot write /runs/x: the disk is full"),
        (OSError(errno.EROFS, "Read-only file system", "/runs/x"), "error: cannot write /runs/x: the file system is"),
        (PermissionError(errno.EACCES, "Permission denied", "/runs/x"), "error: cannot write /runs/x: permission"),
    ],
)
def test_what_the_user_can_mend_is_one_sentence(capsys, error, said):
    def fail() -> None:
        raise error

    assert guarded(fail) == 1
    printed = capsys.readouterr().err
    assert printed.startswith(said)
    assert printed.count("\n") == 1


def test_defect_keeps_its_traceback(capsys):
    def fail() -> None:
        raise ZeroDivisionError("surprise")

    assert guarded(fail) == 1
    assert "Traceback" in capsys.readouterr().err
    assert sentence_for(FileNotFoundError(errno.ENOENT, "No such file", "x")) is None


def test_exit_code_is_handed_on():
    assert guarded(lambda: 75) == 75
    assert guarded(lambda: None) == 0
