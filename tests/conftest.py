"""What all tests share."""

import gc
import os
import signal
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from moe_study.design.config import DataConfig

os.environ.setdefault("OMP_NUM_THREADS", "1")  # the tests run side by side
for number, heard in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:  # under nohup, or put into the background by a shell
        signal.signal(number, heard)

# In CI the same examples every time, so that a submission is judged by its own change; elsewhere new ones each time,
# two fifths as many (`examples` in points.py). No deadline for one: a machine that does much else takes longer.
settings.register_profile("here", deadline=None, max_examples=40)
settings.register_profile("ci", derandomize=True, database=None, deadline=None)
settings.load_profile("ci" if os.environ.get("CI") else "here")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """What is imported and collected, a million objects, lives to the end of the tests. To look through all of it for
    garbage, again and again, took a seventh of their CPU time.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.set_threshold(50_000, 10, 10)
        gc.enable()


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> "DataConfig":
    """Configuration of a prepared corpus of 2 languages by 2 topics, in bytes; for reading alone."""
    from moe_study.data import prepare
    from tests.fixtures import tiny_data_config

    config = tiny_data_config(tmp_path_factory.mktemp("data"))
    prepare(config, progress=False)
    return config


@pytest.fixture(autouse=True)
def denormal_numbers_again() -> Iterator[None]:
    """Training and benchmarks flush them in the whole process; Hypothesis draws them in the next test."""
    yield
    if "torch" in sys.modules:
        sys.modules["torch"].set_flush_denormal(False)


@pytest.fixture(scope="session", autouse=True)
def no_waiting_for_the_disk() -> Iterator[None]:
    """Files of a test need not outlive a power cut; tens of thousands are written, each flushed to the disk."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def few_trials() -> Iterator[None]:
    """Measuring a run's causality sixteen times would take most of a tiny run's time; tests/audit is about that."""
    with pytest.MonkeyPatch.context() as patch:
        if (run := sys.modules.get("moe_study.training.run")) is not None:  # imported where any test trains
            patch.setattr(run, "RUN_TRIALS", 2)
        yield
