"""What ends a run from outside: a signal with nobody listening, a disk that is full. The same command resumes it."""

import errno
import os
import signal
import sys
from itertools import product

import pytest

from moe_study.errors import StudyError
from moe_study.files import read_json
from moe_study.launch.execute import execute
from moe_study.runs.folder import RunFolder, State
from moe_study.training import checkpoint
from moe_study.training.loop import Trainer
from moe_study.training.signals import StopRequest
from tests.part import every
from tests.training.harness import assert_same, forked, make_config, outcome


def dead_stderr(kind):
    """Make standard error of this process a pipe that nobody reads, a closed descriptor, or nothing at all."""
    if kind == "none":
        sys.stderr = None
        os.close(2)
    elif kind == "closed":
        os.close(2)
    else:
        reading, writing = os.pipe()
        os.close(reading)
        os.dup2(writing, 2)
        sys.stderr = os.fdopen(2, "w", buffering=1)


SIGNALS = {  # every fourth has each signal once and each kind of standard error once
    f"{kind}-{number.name}": (kind, number)
    for kind, number in product(("pipe", "closed", "none"), (signal.SIGTERM, signal.SIGHUP, signal.SIGINT))
}


@pytest.mark.parametrize("name", every(4, SIGNALS))
def test_a_signal_with_a_dead_terminal_saves_a_checkpoint(tmp_path, data, monkeypatch, name):
    kind, number = SIGNALS[name]
    config = make_config(tmp_path / "a", data, log={"checkpoint_every": 0, "log_every": 1})

    def patch():
        dead_stderr(kind)
        train_step = Trainer.train_step

        def stopped_after_six(self):
            train_step(self)
            if self.step == 6:
                os.kill(os.getpid(), number)

        monkeypatch.setattr(Trainer, "train_step", stopped_after_six)

    assert forked(config, patch) == 0
    folder = RunFolder.of(config)
    assert folder.state() is State.PREEMPTED
    assert folder.status().step == 6
    assert [path.name for path in checkpoint.step_checkpoints(folder.checkpoint_folder)] == ["step-00000006.pt"]


def test_a_handler_writes_nothing_where_a_write_would_raise_or_wait(capfd):
    _reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with pytest.raises(BlockingIOError):
        while True:
            os.write(writing, b"x" * 4096)  # full: the next write would wait for a reader
    os.set_blocking(writing, True)
    kept = os.dup(2)
    os.dup2(writing, 2)
    try:
        with StopRequest() as stop:
            os.kill(os.getpid(), signal.SIGTERM)
    finally:
        os.dup2(kept, 2)
    assert stop.received == "SIGTERM"


def test_signals_that_nohup_ignores_stay_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopRequest() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
        assert stop.received is None
    finally:
        signal.signal(signal.SIGHUP, before)


LATER = [pytest.param(number, marks=pytest.mark.long) for number in (errno.EDQUOT, errno.EROFS)]


@pytest.mark.parametrize("number", [errno.ENOSPC, *LATER])
def test_a_run_that_a_full_disk_ended_is_resumed_by_the_same_command(tmp_path, data, undisturbed, monkeypatch, number):
    config = make_config(tmp_path, data)
    folder = RunFolder.of(config)
    with monkeypatch.context() as patch:
        append = RunFolder.append_metrics

        def full_after_nine(self, *records):
            if records[0]["step"] > 9:
                raise OSError(number, os.strerror(number), str(self.metrics_file))
            append(self, *records)

        patch.setattr(RunFolder, "append_metrics", full_after_nine)
        with pytest.raises(OSError):
            execute(config)
    status = folder.status()
    assert status.state is State.PREEMPTED
    assert status.message.startswith(f"cannot write {folder.metrics_file}: the ")
    assert checkpoint.step_checkpoints(folder.checkpoint_folder)
    assert execute(config).state is State.DONE
    assert_same(outcome(config), outcome(undisturbed))


def test_an_error_of_the_run_itself_waits_to_be_asked_for(tmp_path, data, monkeypatch):
    config = make_config(tmp_path, data)
    monkeypatch.setattr(Trainer, "train_step", lambda self: (_ for _ in ()).throw(StudyError("one and one is three")))
    with pytest.raises(StudyError):
        execute(config)
    assert read_json(RunFolder.of(config).status_file)["state"] == "failed"
