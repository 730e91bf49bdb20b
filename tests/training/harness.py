"""Real runs on a tiny corpus, in this process or in a child, and what they leave behind."""

import dataclasses
import multiprocessing
import os
import sys

import pandas as pd
import torch

from moe_study.audit.audit import audit
from moe_study.design.config import ModelConfig
from moe_study.design.routing import Balance, Routing
from moe_study.launch.execute import execute
from moe_study.runs.folder import RunFolder, State
from moe_study.training import checkpoint, run
from tests.training.doubles import tiny_config

NOISY = Routing(num_experts=4, k=2, router_noise=0.5, balance=Balance(switch=0.01, z=0.001))
TIMES = ("seconds", "tokens_per_second", "train_seconds", "peak_memory_bytes")


def make_config(tmp_path, data, routing=NOISY, *, optimizer=None, log=None, **settings):
    """20 steps, micro-batches of unequal size, checkpoints after 4, 8, 12 and 16 steps."""
    settings = {"batch_size": 6, "micro_batch": 4} | settings
    config = tiny_config(tmp_path, log=log, optimizer=optimizer, **settings)
    model = ModelConfig(layers=2, heads=2, width=16, context=16, dropout=0.1)
    return dataclasses.replace(config, data=data, model=model, routing=routing)


def forked(config, patch=lambda: None):
    """Train in a child process; its exit code."""
    audit(config, run.RUN_TRIALS)  # remembered, so that no child measures it again

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
