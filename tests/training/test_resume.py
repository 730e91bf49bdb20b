"""A run that is killed and started again ends with the same bits as one that nothing disturbed.

On the real model and real data. A run is killed by SIGKILL at a chosen moment, from inside, so that the moment
is exact; the process is fresh (subprocess) in one test and forked from this one, for speed, in the others.
"""

import dataclasses
import json
import multiprocessing
import os
import signal
import subprocess
import sys

import pandas as pd
import pytest
import torch

from moe_study.config import ModelConfig, from_plain, to_plain
from moe_study.data import prepare
from moe_study.design.routing import Balance, Routing
from moe_study.runs import RunFolder, State
from moe_study.sweeps.execute import execute
from moe_study.training import checkpoint, run
from moe_study.training.loop import Trainer
from tests.fixtures import tiny_data_config
from tests.training.doubles import tiny_config

NOISY = Routing(num_experts=4, k=2, router_noise=0.5, balance=Balance(switch=0.01, z=0.001))
REDRAWN = from_plain(Routing, {"unit": "sequence", "context": "unit_mean", "k": 2, "router_state": "redrawn"})
BIASED = Routing(num_experts=4, k=1, balance=Balance(bias_rate=0.01, scope="batch"))
TIMES = ("seconds", "tokens_per_second", "train_seconds", "peak_memory_bytes")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    config = tiny_data_config(tmp_path_factory.mktemp("data"))
    prepare(config, progress=False)
    return config


def make_config(tmp_path, data, routing=NOISY, **log):
    """20 steps, micro-batches of unequal size, checkpoints after 4, 8, 12 and 16 steps."""
    config = tiny_config(tmp_path, batch_size=6, micro_batch=4, log=log)
    model = ModelConfig(layers=2, heads=2, width=16, context=16, dropout=0.1)
    return dataclasses.replace(config, data=data, model=model, routing=routing)


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


def forked(config, patch=lambda: None):
    """Train in a child process; its exit code."""

    def child():
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
        patch()
        execute(config)

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join()
    return process.exitcode


def outcome(config):
    """All that a run leaves behind, without times."""
    folder = RunFolder.of(config)
    assert folder.state() is State.DONE
    without_times = lambda d: {name: value for name, value in d.items() if name not in TIMES}  # noqa: E731
    weights = checkpoint.load_newest(folder.checkpoint_folder)["model"]
    curve = [without_times(record) for record in folder.metrics()]
    return without_times(folder.result()), curve, pd.read_parquet(folder.routing_file), weights


def assert_same(one, other):
    assert one[0] == other[0]  # every number of the result, to the last bit
    assert one[1] == other[1]  # every line of the curve, each once and in the same order
    pd.testing.assert_frame_equal(one[2], other[2], check_exact=True)
    assert one[3].keys() == other[3].keys()
    assert all(torch.equal(value, other[3][name]) for name, value in one[3].items())


@pytest.mark.slow
def test_killed_at_three_steps_and_started_again_in_fresh_processes(tmp_path, data):
    undisturbed = make_config(tmp_path / "a", data)
    assert forked(undisturbed) == 0
    config = make_config(tmp_path / "b", data)
    code = (
        "import json, sys\n"
        "from moe_study.config import RunConfig, from_plain\n"
        "from moe_study.sweeps.execute import execute\n"
        "from tests.training import test_resume\n"
        "config = from_plain(RunConfig, json.loads(sys.argv[1]))\n"
        "if sys.argv[2:]: test_resume.at_step(int(sys.argv[2]))()\n"
        "execute(config)\n"
    )
    arguments = [sys.executable, "-c", code, json.dumps(to_plain(config))]
    for step in (2, 11, 17):  # before the first checkpoint, and between others
        assert subprocess.run([*arguments, str(step)], capture_output=True, check=False).returncode == -9
        assert RunFolder.of(config).state() is State.STALE
    assert subprocess.run(arguments, capture_output=True, check=False).returncode == 0
    assert_same(outcome(config), outcome(undisturbed))
    assert RunFolder.of(config).status().attempts == 4


@pytest.mark.parametrize("routing", [NOISY, REDRAWN, BIASED], ids=["noisy", "redrawn", "biased"])
def test_killed_at_three_steps_with_every_kind_of_state(tmp_path, data, routing):
    undisturbed, config = (make_config(tmp_path / name, data, routing) for name in "ab")
    assert forked(undisturbed) == 0
    for step in (5, 8, 15):
        assert forked(config, at_step(step)) == -9
    assert forked(config) == 0
    assert_same(outcome(config), outcome(undisturbed))


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


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_at_an_awkward_moment(tmp_path, data, moment):
    undisturbed, config = (make_config(tmp_path / name, data) for name in "ab")
    assert forked(undisturbed) == 0
    assert forked(config, MOMENTS[moment]) == -9
    assert forked(config) == 0
    assert_same(outcome(config), outcome(undisturbed))


def test_how_often_a_run_is_logged_evaluated_in_detail_or_saved_does_not_change_it(tmp_path, data):
    one = make_config(tmp_path / "a", data)
    other = make_config(tmp_path / "b", data, log_every=1, routing_every=1, checkpoint_every=0)
    assert one.key == other.key
    assert forked(one) == forked(other) == 0
    assert outcome(one)[0] == outcome(other)[0]
    assert all(torch.equal(value, outcome(other)[3][name]) for name, value in outcome(one)[3].items())


def test_a_finished_run_is_not_trained_again(tmp_path, data):
    config = make_config(tmp_path, data)
    assert forked(config) == 0
    before = outcome(config)

    def forbid():
        run.Session.run = kill

    assert forked(config, forbid) == 0
    assert_same(outcome(config), before)


def test_data_that_changed_under_a_half_trained_run_is_refused(tmp_path, data):
    config = make_config(tmp_path, data)
    assert forked(config, at_step(10)) == -9

    def other_data():
        original = run.open_corpus
        run.open_corpus = lambda data: dataclasses.replace(original(data), fingerprint="0" * 64)

    assert forked(config, other_data) == 1
    status = RunFolder.of(config).status()
    assert status.state is State.FAILED
    assert status.error["type"] == "DataError"
    assert "data changed" in status.error["message"]
