"""One private cluster for all tests of a process; every test gets it without jobs."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.slurm.cluster import ADVICE, Cluster, missing_programs


def demand_slurm(accounting: bool = False) -> None:
    """Skip the test where SLURM is not installed, and let it fail in CI."""
    if missing := missing_programs(accounting):
        sentence = f"SLURM is not here ({', '.join(missing)}); {ADVICE}"
        if os.environ.get("CI"):
            pytest.fail(sentence)
        pytest.skip(sentence)


@contextlib.contextmanager
def folder_for_a_cluster() -> Iterator[Path]:
    demand_slurm()
    folder = Path(tempfile.mkdtemp(prefix="moe-study-slurm-"))  # short, as the sockets in it want it
    try:
        yield folder
    finally:
        Cluster(folder).stop()
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def whole_cluster() -> Iterator[Cluster]:
    with folder_for_a_cluster() as folder:
        cluster = Cluster(folder)
        cluster.start()
        yield cluster


@pytest.fixture
def cluster(whole_cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    for name, value in whole_cluster.environment.items():
        monkeypatch.setenv(name, value)
    yield whole_cluster
    whole_cluster.cancel_all()


@pytest.fixture
def start_cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Cluster]]:
    """Starts a cluster with settings of its own, in place of an earlier one of the same test."""
    with folder_for_a_cluster() as folder:

        def start(**settings: Any) -> Cluster:
            demand_slurm(settings.get("accounting", False))
            cluster = Cluster(folder, **settings)
            cluster.start()
            for name, value in cluster.environment.items():
                monkeypatch.setenv(name, value)
            return cluster

        yield start
