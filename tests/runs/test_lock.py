"""A lock that one process holds at a time and that no killed process keeps."""

import errno
import fcntl
import multiprocessing
import os
import signal
import time

import pytest

from moe_study.errors import StudyError
from moe_study.runs.lock import LockHeld, hold, is_held


def keep(path, ready):
    with hold(path, 0.0):
        ready.set()
        time.sleep(60)


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock."""
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    process = context.Process(target=keep, args=(tmp_path / "lock", ready))
    process.start()
    assert ready.wait(10)
    yield process
    process.kill()
    process.join()


def test_a_held_lock_is_seen_and_refused_after_the_wait(tmp_path, holder):
    assert is_held(tmp_path / "lock")
    start = time.monotonic()
    with pytest.raises(LockHeld), hold(tmp_path / "lock", 0.2):
        pass
    assert time.monotonic() - start >= 0.2


def test_it_dies_with_its_process(tmp_path, holder):
    os.kill(holder.pid, signal.SIGKILL)
    holder.join()
    assert is_held(tmp_path / "lock") is False
    with hold(tmp_path / "lock", 0.0):
        assert is_held(tmp_path / "lock")
    assert is_held(tmp_path / "lock") is False


def test_nobody_holds_a_lock_that_was_never_made(tmp_path):
    assert is_held(tmp_path / "lock") is False
    with hold(tmp_path / "folder" / "lock", 0.0):  # the folder is made
        pass


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_without_locks_on_the_file_system_nothing_is_known_and_nothing_refused(tmp_path, monkeypatch, number):
    def no_locks(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with hold(tmp_path / "lock", 0.0), hold(tmp_path / "lock", 0.0):
        assert is_held(tmp_path / "lock") is None


def test_another_error_is_not_taken_for_a_file_system_without_locks(tmp_path, monkeypatch):
    def broken(*_):
        raise OSError(errno.EIO, "input/output error")

    monkeypatch.setattr(fcntl, "flock", broken)
    with pytest.raises(OSError, match="input/output"), hold(tmp_path / "lock", 0.0):
        pass


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StudyError, match="cannot write"), hold(tmp_path / "file" / "lock", 0.0):
        pass
