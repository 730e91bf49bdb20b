"""One private cluster for all tests of a process; every test gets it without jobs."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from moe_study.runs.folder import list_runs
from moe_study.runs.job_records import read_submissions
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


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test that fails leaves no cluster behind to look at: what it knew goes into the report."""
    report = yield
    asked_for = getattr(item, "funcargs", {}).keys()
    if report.when == "call" and report.failed and asked_for & {"cluster", "start_cluster"}:
        try:
            known = "\n".join(_what_is_known(item))
        except Exception as error:  # would end all tests
            known = f"cannot be asked: {error!r}"
        report.sections.append(("cluster", known))
    return report


def _what_is_known(item: pytest.Item) -> Iterator[str]:
    folder: Path = item.funcargs["tmp_path"]
    cluster = Cluster(Path(os.environ["SLURM_CONF"]).parent)
    for question in (("squeue", "--all"), ("sinfo", "--all", "--list-reasons"), ("scontrol", "show", "jobs")):
        yield f"--- {' '.join(question)}\n{cluster.run(*question, check=False)}"
    yield cluster.logs()
    for runs_dir in {path.parent for path in folder.glob("**/.submissions")}:
        for run in list_runs(runs_dir):
            yield f"--- {run.path}: {run.state()}, {run.status()}\n{_last_lines(run.log_file)}"
        for submission in read_submissions(runs_dir):
            for index in range(len(submission.tasks)):
                yield f"--- {submission.shell_output(index)}\n{_last_lines(submission.shell_output(index))}"
    for said in folder.glob("*.said"):
        yield f"--- {said}\n{_last_lines(said)}"


def _last_lines(file: Path) -> str:
    return "\n".join(file.read_text(errors="replace").splitlines()[-20:]) if file.exists() else "(no such file)"
