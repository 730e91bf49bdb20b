"""What surrounds a run in the process that trains it."""

import shutil
import sysconfig
from pathlib import Path

import pytest

from moe_study.launch.execute import compile_caches
from moe_study.runs.folder import RunFolder, list_runs
from tests.launch.driving import train


@pytest.fixture
def nothing_chosen(monkeypatch):
    for variable in ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR", "TORCHINDUCTOR_COMPILE_THREADS"):
        monkeypatch.delenv(variable, raising=False)


def test_runs_beside_each_other_share_what_they_compile_unless_the_user_chose_a_place(
    tmp_path, monkeypatch, nothing_chosen
):
    monkeypatch.chdir(tmp_path)
    places = compile_caches(RunFolder("runs/a"))
    assert places == compile_caches(RunFolder(tmp_path / "runs" / "b"))
    assert places["TRITON_CACHE_DIR"] == str(tmp_path / "runs" / ".compiled" / "triton")
    monkeypatch.setenv("TRITON_CACHE_DIR", "/mine")
    assert set(compile_caches(RunFolder("runs/a"))) == {"TORCHINDUCTOR_CACHE_DIR"}


CAN_COMPILE = shutil.which("g++") and Path(sysconfig.get_paths()["include"], "Python.h").exists()


@pytest.mark.long
@pytest.mark.skipif(not CAN_COMPILE, reason="torch.compile needs g++ and Python's headers on a CPU")
def test_what_one_run_has_compiled_the_next_one_finds(tmp_path, nothing_chosen):
    """In the pool and in a process of its own."""
    for seed, mode in enumerate([("-m", "hydra.launcher.threads_per_run=3"), ("-m",), ()]):
        done = train("compiled", tmp_path / "runs", *mode, f"run.seed={seed}")
        assert done.returncode == 0, done.stderr
    results = {folder.read_config().run.seed: folder.result() for folder in list_runs(tmp_path / "runs")}
    assert [results[seed]["found"] for seed in range(3)] == [0, 1, 1]
    assert [results[seed]["workers"] for seed in range(2)] == [3, 1]  # as many as the run has cores
    assert list((tmp_path / "runs" / ".compiled" / "inductor").rglob("*.so"))
