"""One private cluster for all tests of a process; every test gets it without jobs."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slurm.cluster import ADVICE, Cluster, missing_programs


@pytest.fixture(scope="session")
def whole_cluster() -> Iterator[Cluster]:
    if missing := missing_programs():
        sentence = f"SLURM is not here ({', '.join(missing)}); {ADVICE}"
        if os.environ.get("CI"):
            pytest.fail(sentence)
        pytest.skip(sentence)
    folder = Path(tempfile.mkdtemp(prefix="moe-study-slurm-"))  # short, as the sockets in it want it
    cluster = Cluster(folder)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(folder)


@pytest.fixture
def cluster(whole_cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    for name, value in whole_cluster.environment.items():
        monkeypatch.setenv(name, value)
    yield whole_cluster
    whole_cluster.cancel_all()
