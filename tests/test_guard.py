"""Which errors become a sentence, and which keep their traceback."""

import errno
import io
import os
import subprocess
import sys
import warnings

import pytest
from tqdm import tqdm

from moe_study.errors import StudyError
from moe_study.guard import forgiving_output, guarded, is_resumable, sentence_for


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (StudyError("do this instead"), "error: do this instead\n"),
        (OSError(errno.ENOSPC, "No space left on device", "/runs/x"), "error: cannot write /runs/x: the disk is full"),
        (OSError(errno.EISDIR, "Is a directory", "/x"), "error: cannot write /x: a folder stands where a file"),
        (OSError(errno.EROFS, "Read-only file system", "/runs/x"), "error: cannot write /runs/x: the file system is"),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), "error: cannot open /x: permission denied; give"),
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


class _Dead(io.StringIO):
    """A stream whose reader is gone."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def write(self, text: str) -> int:
        raise OSError(self.number, os.strerror(self.number))

    def flush(self) -> None:
        self.write("")


@pytest.mark.filterwarnings("default:mind this")
@pytest.mark.parametrize("number", [errno.EPIPE, errno.EIO, errno.ENOSPC, errno.EBADF, None])
def test_a_dead_stream_never_raises(monkeypatch, number):
    dead = None if number is None else _Dead(number)
    monkeypatch.setattr(sys, "stdout", dead)
    monkeypatch.setattr(sys, "stderr", dead)

    def work() -> int:
        print("x" * 100_000, flush=True)
        print("to the user", file=sys.stderr)
        with tqdm(total=2, file=sys.stderr) as bar:
            bar.write("line")
            bar.update(2)
        warnings.warn("mind this", stacklevel=1)
        assert not sys.stderr.isatty()
        return 7

    assert guarded(work) == 7


def test_signs_that_a_terminal_lacks_are_written_in_others(monkeypatch):
    bytes_written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(bytes_written, encoding="ascii"))
    with forgiving_output():
        print("1.5 × 2 ± 0.1 †, 中文, \udcff")
    assert bytes_written.getvalue() == b"1.5 x 2 +- 0.1 +, ??, ?\n"


@pytest.mark.parametrize("closed", ["| true", ">&- 2>&-", "> /dev/full 2>&1"])
def test_a_command_ends_as_it_would_whatever_becomes_of_its_output(tmp_path, closed):
    """Written by a process of its own, since Python flushes its streams once more at its very end."""
    script = (
        "import sys, time; from moe_study.guard import guarded\n"
        "def work():\n"
        "    time.sleep(0.2)\n"
        "    for _ in range(3000): print('some words'); print('others', file=sys.stderr)\n"
        "    open('done', 'w').write('done')\n"
        "    return 3\n"
        "sys.exit(guarded(work))"
    )
    (tmp_path / "work.py").write_text(script)
    line = f"{{ {sys.executable} work.py 2>&1; echo $? > code; }} {closed}"
    if closed != "| true":
        line = f"{sys.executable} work.py {closed}; echo $? > code"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run(["bash", "-c", line], cwd=tmp_path, env=environment, check=False)
    assert (tmp_path / "code").read_text() == "3\n"
    assert (tmp_path / "done").read_text() == "done"


@pytest.mark.parametrize(
    ("error", "resumable"),
    [
        (OSError(errno.ENOSPC, "full"), True),
        (OSError(errno.EDQUOT, "quota"), True),
        (OSError(errno.EROFS, "read-only"), True),
        (OSError(errno.EIO, "input/output error"), True),
        (MemoryError(), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory"), True),
        (FileNotFoundError(errno.ENOENT, "no such file"), False),
        (RuntimeError("one and one is three"), False),
        (StudyError("do this instead"), False),
    ],
)
def test_only_the_machine_is_at_fault_where_disk_or_memory_gives_out(error, resumable):
    assert is_resumable(error) is resumable
    try:
        try:
            raise error
        except Exception as cause:
            raise StudyError("made of it") from cause
    except StudyError as made:
        assert is_resumable(made) is resumable


def test_memory_that_ran_out_is_one_sentence():
    assert "fewer runs at a time" in (sentence_for(MemoryError()) or "")
