"""A run that is killed and started again ends with the same bits as one that nothing disturbed.

On the real model and real data. A run is killed by SIGKILL at a chosen moment, from inside, so that the moment
is exact; the process is fresh (subprocess) in one test and forked from this one, for speed, in the others.
"""

import dataclasses
import json
import os
import signal
import subprocess
import sys

import pytest
import torch

from moe_study.design.plain import from_plain, to_plain
from moe_study.design.routing import Balance, Routing
from moe_study.launch.execute import execute
from moe_study.runs.folder import RunFolder, State
from moe_study.runs.overview import find_states, status_lines
from moe_study.training import checkpoint, run, tasks
from moe_study.training.loop import Trainer
from tests.part import every
from tests.training.harness import NOISY, assert_same, forked, make_config, outcome

REDRAWN = from_plain(Routing, {"unit": "sequence", "context": "unit_mean", "k": 2, "router_state": "redrawn"})
BIASED = Routing(num_experts=4, k=1, balance=Balance(bias_rate=0.01, scope="batch"))


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


def killing_after(step):
    """A train_step that is killed when `step` steps are done: before the next update, gradients half made."""
    original = Trainer.train_step

    def train_step(self):
        if self.step == step:
            self.optimizer.step = kill
        original(self)

    return train_step


def at_step(step):
    def patch():
        Trainer.train_step = killing_after(step)

    return patch


def around(owner, name, *, before=False, when=lambda *arguments: True):
    """Killed before or after that call of `owner.name` whose arguments fulfil `when`."""

    def patch():
        original = getattr(owner, name)

        def wrapped(*arguments, **settings):
            if before and when(*arguments):
                kill()
            result = original(*arguments, **settings)
            if when(*arguments):
                kill()
            return result

        setattr(owner, name, wrapped)

    return patch


@pytest.fixture(scope="module")
def noisy(undisturbed):
    """What an undisturbed run of NOISY leaves behind."""
    return outcome(undisturbed)


@pytest.mark.long
def test_killed_and_started_again_in_fresh_processes(tmp_path, data, noisy):
    config = make_config(tmp_path, data)
    code = (
        "import json, sys\n"
        "from moe_study.design.config import RunConfig\nfrom moe_study.design.plain import from_plain\n"
        "from moe_study.launch.execute import execute\n"
        "from tests.training import test_resume\n"
        "config = from_plain(RunConfig, json.loads(sys.argv[1]))\n"
        "if sys.argv[2:]: test_resume.at_step(int(sys.argv[2]))()\n"
        "execute(config)\n"
    )
    arguments = [sys.executable, "-c", code, json.dumps(to_plain(config))]
    assert subprocess.run([*arguments, "11"], capture_output=True, check=False).returncode == -9
    assert RunFolder.of(config).state() is State.STALE
    assert subprocess.run(arguments, capture_output=True, check=False).returncode == 0
    assert_same(outcome(config), noisy)
    assert RunFolder.of(config).status().attempts == 2


LATER = [pytest.param(routing, marks=pytest.mark.long) for routing in (REDRAWN, BIASED)]


@pytest.mark.parametrize("routing", [NOISY, *LATER], ids=["noisy", "redrawn", "biased"])
def test_killed_at_three_steps_with_every_kind_of_state(tmp_path, data, noisy, routing):
    plain, config = (make_config(tmp_path / name, data, routing) for name in "ab")
    assert routing is NOISY or forked(plain) == 0
    for step in (2, 11, 16):  # before the first checkpoint, between two, right after one
        assert forked(config, at_step(step)) == -9
    assert forked(config) == 0
    assert_same(outcome(config), noisy if routing is NOISY else outcome(plain))


MOMENTS = {
    "while the checkpoint of step 8 is written": around(
        torch, "save", before=True, when=lambda state, handle: handle.write(b"half") and state["step"] == 8
    ),
    "after the checkpoint of step 8": around(checkpoint, "save", when=lambda _, state: state["step"] == 8),
    "after the evaluation of step 14": around(
        run.Session, "_record_validation", when=lambda session, _: session.trainer.step == 14
    ),
    "after the final model is saved": around(checkpoint, "save_final"),
    "after the last line of the curve": around(
        run.Session, "_record_validation", when=lambda session, _: session.trainer.step == 20
    ),
    "after the result, before the checkpoints are deleted": around(checkpoint, "delete_steps", before=True),
}


@pytest.mark.parametrize("moment", every(3, MOMENTS))
def test_killed_at_an_awkward_moment(tmp_path, data, noisy, moment):
    config = make_config(tmp_path, data)
    assert forked(config, MOMENTS[moment]) == -9
    assert forked(config) == 0
    assert_same(outcome(config), noisy)


def test_how_often_a_run_is_logged_or_saved_does_not_change_it(tmp_path, data, noisy):
    every = {"log_every": 1, "routing_every": 1, "gradients_every": 1, "checkpoint_every": 0}
    config = make_config(tmp_path, data, log=every)
    assert forked(config) == 0
    result, _, _, weights = outcome(config)
    assert result == noisy[0]  # the key too
    assert all(torch.equal(value, noisy[3][name]) for name, value in weights.items())


def test_a_finished_run_is_not_trained_again(undisturbed, noisy):
    def forbid():
        run.Session.run = kill

    before = RunFolder.of(undisturbed).provenance()
    assert forked(undisturbed, forbid) == 0
    assert_same(outcome(undisturbed), noisy)
    assert RunFolder.of(undisturbed).provenance() == before  # of the attempt that trained it


def test_data_that_changed_under_a_half_trained_run_is_refused(tmp_path, data):
    config = make_config(tmp_path, data)
    assert forked(config, at_step(10)) == -9

    def other_data():
        original = tasks.Language.open
        tasks.Language.open = lambda self, config: dataclasses.replace(original(self, config), fingerprint="0" * 64)

    assert forked(config, other_data) == 1
    status = RunFolder.of(config).status()
    assert status.state is State.FAILED
    assert status.error["type"] == "DataError"
    assert "data changed" in status.error["message"]


def test_a_run_resumed_on_another_number_of_threads_says_so_in_its_log_and_its_result(tmp_path, data, capsys):
    config = make_config(tmp_path, data, steps=6, log={"checkpoint_every": 3})
    assert forked(config, at_step(4)) == -signal.SIGKILL
    before = torch.get_num_threads()
    try:
        execute(dataclasses.replace(config, log=dataclasses.replace(config.log, threads=2)))
    finally:
        torch.set_num_threads(before)
    sentence = "resumed with other threads (1 before, 2 now): it will not end with the bits of an uninterrupted run"
    assert f"warning: {sentence}; with log.threads=1 it would" in capsys.readouterr().err
    (warning,) = RunFolder.of(config).result()["warnings"]
    assert warning.startswith(f"step 3: {sentence}")
    assert any(warning in line for line in status_lines(find_states(config.log.runs_dir)))
    assert RunFolder.of(config).provenance()["arithmetic"]["threads"] == 2
