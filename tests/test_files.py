import errno
import json
import multiprocessing
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from moe_study import files
from moe_study.errors import DataError, StudyError
from moe_study.files import atomic_file, atomic_folder, write_bytes_atomic, write_json_atomic, write_text_atomic


def test_a_written_file_reads_back_and_leaves_nothing_else(tmp_path: Path) -> None:
    write_text_atomic(tmp_path / "deep" / "a.txt", "Grüße\n")
    write_bytes_atomic(tmp_path / "deep" / "b.bin", b"\x00\xff")
    write_json_atomic(tmp_path / "deep" / "c.json", {"x": [1, 2.5, "ß"]})
    assert (tmp_path / "deep" / "a.txt").read_text(encoding="utf-8") == "Grüße\n"
    assert (tmp_path / "deep" / "b.bin").read_bytes() == b"\x00\xff"
    assert json.loads((tmp_path / "deep" / "c.json").read_text()) == {"x": [1, 2.5, "ß"]}
    assert sorted(p.name for p in (tmp_path / "deep").iterdir()) == ["a.txt", "b.bin", "c.json"]


def test_an_error_while_writing_keeps_the_old_file_and_leaves_no_temporary_one(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    write_text_atomic(target, "old")
    with pytest.raises(RuntimeError), atomic_file(target) as handle:
        handle.write(b"new, but only ha")
        raise RuntimeError
    assert target.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_process_killed_while_writing_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    write_text_atomic(target, "old")
    code = (
        "import os, sys; from moe_study.files import atomic_file\n"
        "with atomic_file(sys.argv[1]) as handle:\n"
        "    handle.write(b'new'); handle.flush(); os.kill(os.getpid(), 9)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run([sys.executable, "-c", code, str(target)], env=environment).returncode == -9
    assert target.read_text() == "old"
    leftovers = [p.name for p in tmp_path.iterdir() if p != target]
    assert len(leftovers) == 1 and files.TEMPORARY_MARK in leftovers[0]


def test_json_refuses_numbers_that_json_does_not_know(tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        write_json_atomic(tmp_path / "a.json", {"loss": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_one_sentence_about_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    sentence = pytest.raises(DataError, match=r"cannot write .*a\.bin: the disk is full")
    with sentence, atomic_file(tmp_path / "a.bin", DataError) as handle:
        handle.write(b"x")
    assert list(tmp_path.iterdir()) == []


def test_a_read_only_folder_is_one_sentence(tmp_path: Path) -> None:
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    if os.access(tmp_path, os.W_OK):
        pytest.skip("this user may write into read-only folders")
    with pytest.raises(StudyError, match="permission denied"):
        write_text_atomic(tmp_path / "a.txt", "x")


def test_a_file_where_a_folder_should_be_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StudyError, match="choose another folder"):
        write_text_atomic(tmp_path / "file" / "a.txt", "x")


@pytest.mark.parametrize(
    ("place", "says"),
    [("/proc/nowhere", "holds no folders"), ("x" * 300, "too long"), ("circle/below", "lead in a circle")],
)
def test_a_place_that_holds_no_folder_is_one_sentence(tmp_path: Path, place: str, says: str) -> None:
    if place.startswith("/proc") and not Path("/proc/self").exists():
        pytest.skip("this system has no /proc")
    (tmp_path / "circle").symlink_to("circle")
    folder = tmp_path / place
    with pytest.raises(StudyError, match=says):
        write_text_atomic(folder / "a.txt", "x")
    with pytest.raises(DataError, match=says), atomic_folder(folder / "a", DataError):
        pass


def test_writers_in_parallel_never_mix(tmp_path: Path) -> None:
    target = tmp_path / "a.bin"
    contents = [bytes([n]) * 200_000 for n in range(8)]
    threads = [threading.Thread(target=write_bytes_atomic, args=(target, c)) for c in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert target.read_bytes() in contents


def test_a_folder_appears_whole_and_takes_the_place_of_the_one_before(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "export"
    for number in range(2):
        with atomic_folder(target) as unfinished:
            (unfinished / f"{number}.txt").write_text("x")
            (unfinished / "inner").mkdir()
            assert target.exists() == (number == 1) and not (target / "1.txt").exists()
        assert sorted(path.name for path in target.iterdir()) == [f"{number}.txt", "inner"]
        assert [path.name for path in target.parent.iterdir()] == ["export"]


def test_a_folder_that_fails_leaves_the_one_before_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "export"
    with atomic_folder(target) as unfinished:
        (unfinished / "old.txt").write_text("old")
    with pytest.raises(RuntimeError), atomic_folder(target) as unfinished:
        (unfinished / "new.txt").write_text("new")
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["export"]
    assert [path.name for path in target.iterdir()] == ["old.txt"]


def test_a_folder_that_cannot_be_put_in_place_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "export"
    with atomic_folder(target) as unfinished:
        (unfinished / "old.txt").write_text("old")
    rename = Path.rename

    def full(path: Path, to: Path) -> Path:
        if files.TEMPORARY_MARK in path.name and not path.name.endswith("before"):
            raise OSError(errno.ENOSPC, "No space left on device")
        return rename(path, to)

    monkeypatch.setattr(Path, "rename", full)
    sentence = pytest.raises(StudyError, match=r"cannot write .*export: the disk is full")
    with sentence, atomic_folder(target) as unfinished:
        (unfinished / "new.txt").write_text("new")
    assert [path.name for path in tmp_path.iterdir()] == ["export"]
    assert [path.name for path in target.iterdir()] == ["old.txt"]


def left_by_a_killed_process(target: Path, when: str) -> None:
    """What is there after a process died while it wrote the folder, or between the two renames at its end."""

    def child() -> None:
        if when == "between the renames":
            files.Path.rename = lambda path, to: os.rename(path, to) or os._exit(9)
        with atomic_folder(target) as unfinished:
            (unfinished / "half.txt").write_text("half")
            if when == "while it writes":
                os._exit(9)

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join()
    assert process.exitcode == 9


@pytest.mark.parametrize("when", ["while it writes", "between the renames"])
def test_what_a_killed_process_left_of_a_folder_is_removed_by_the_next(tmp_path: Path, when: str) -> None:
    target = tmp_path / "export"
    with atomic_folder(target) as unfinished:
        (unfinished / "old.txt").write_text("old")
    left_by_a_killed_process(target, when)
    assert len(list(tmp_path.iterdir())) == 2
    with pytest.raises(RuntimeError), atomic_folder(target):
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["export"]
    assert [path.name for path in target.iterdir()] == ["old.txt"]


def test_what_a_living_process_or_another_host_writes_of_a_folder_is_left_alone(tmp_path: Path) -> None:
    target = tmp_path / "export"
    elsewhere = tmp_path / ".export.part-another@1-1"
    elsewhere.mkdir()
    with atomic_folder(target) as unfinished:
        with pytest.raises(StudyError), atomic_folder(target):  # the same thread asks for the same name
            pass
        assert unfinished.exists()
    assert target.exists() and elsewhere.exists()
