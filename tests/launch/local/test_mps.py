"""MPS daemons by a control program that is a shell script, which notes how it is called."""

import contextlib
import os
from collections import Counter
from pathlib import Path

import pytest

from moe_study.errors import ConfigError
from moe_study.launch.local import mps
from moe_study.launch.local.pool import run_pool
from moe_study.launch.local.slots import Slot, make_slots
from moe_study.runs.folder import list_runs
from tests.launch import toy
from tests.launch.driving import planned, pool_settings

WORKS, FAILS = "pass", "raise SystemExit(1)"


@pytest.fixture(autouse=True)
def no_daemon_of_the_user(monkeypatch, tmp_path):
    monkeypatch.delenv("CUDA_MPS_PIPE_DIRECTORY", raising=False)
    monkeypatch.setattr(mps, "USUAL_PIPES", tmp_path / "usual")


@pytest.fixture
def calls(monkeypatch, tmp_path):
    """What the control program was called with: arguments, GPU, what it read."""
    monkeypatch.setattr(mps, "TRY_GPU", WORKS)
    return control(monkeypatch, tmp_path)


def control(monkeypatch, folder: Path, exit_code: int = 0):
    notes = folder / "calls"
    program = folder / "bin" / mps.CONTROL
    program.parent.mkdir()
    program.write_text(
        f'#!/bin/sh\necho "$* gpu=$CUDA_VISIBLE_DEVICES pipes=$CUDA_MPS_PIPE_DIRECTORY said=$(cat)" >> {notes}\n'
        f"exit {exit_code}\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    return lambda: notes.read_text().splitlines() if notes.exists() else []


def slots(*gpus: str | None) -> list[Slot]:
    return [Slot() if gpu is None else Slot(gpu, 1, {"CUDA_VISIBLE_DEVICES": gpu}) for gpu in gpus]


def test_each_shared_gpu_has_a_daemon_of_its_own_until_the_end(calls):
    with mps.shared(slots("4", "7", "9", "4", "7"), "auto") as served:
        assert [line.partition(" pipes")[0] for line in calls()] == ["-d gpu=4", "-d gpu=7"]
        pipes = [slot.environment.get("CUDA_MPS_PIPE_DIRECTORY") for slot in served]
        assert pipes[0] == pipes[3] != pipes[1] == pipes[4]
        assert [slot.environment["CUDA_VISIBLE_DEVICES"] for slot in served] == ["0", "0", "9", "0", "0"]
        assert pipes[2] is None  # nobody shares that one
        assert all(Path(pipe).is_dir() for pipe in pipes if pipe)
    stopped = calls()[2:]
    assert [line.rpartition("said=")[2] for line in stopped] == ["quit", "quit"]
    assert all(any(f"pipes={pipe} " in line for line in stopped) for pipe in pipes if pipe)
    assert not any(Path(pipe).exists() for pipe in pipes if pipe)


def test_daemons_stop_after_an_error_too(calls):
    with contextlib.suppress(ZeroDivisionError), mps.shared(slots("4", "4"), "on"):
        raise ZeroDivisionError
    assert calls()[-1].endswith("said=quit")


@pytest.mark.parametrize(("gpus", "mode"), [(("4", "7"), "on"), ((None, None), "auto"), (("4", "4"), "off")])
def test_nothing_is_started_where_no_gpu_is_shared_or_nobody_wants_it(calls, gpus, mode):
    with mps.shared(slots(*gpus), mode) as served:
        assert served == slots(*gpus)
    assert calls() == []


def test_daemon_of_the_user_is_left_alone_and_used(calls, monkeypatch, tmp_path):
    monkeypatch.setenv("CUDA_MPS_PIPE_DIRECTORY", "/somewhere")
    with mps.shared(slots("4", "4"), "on") as served:
        assert served == slots("4", "4")
    monkeypatch.delenv("CUDA_MPS_PIPE_DIRECTORY")
    (tmp_path / "usual").mkdir()
    (tmp_path / "usual" / "control").touch()
    with mps.shared(slots("4", "4"), "on") as served:
        assert served == slots("4", "4")
    assert calls() == []


def refuse(monkeypatch, folder: Path, trouble: str) -> None:
    if trouble == "no program":
        monkeypatch.setenv("PATH", str(folder))
        return
    control(monkeypatch, folder, exit_code=1 if trouble == "does not start" else 0)
    monkeypatch.setattr(mps, "TRY_GPU", FAILS if trouble == "cannot be used" else WORKS)


@pytest.mark.parametrize(
    ("trouble", "said"),
    [
        ("no program", "there is no nvidia-cuda-mps-control on PATH"),
        ("does not start", "the MPS daemon does not start"),
        ("cannot be used", "a process cannot use the GPU through MPS"),
    ],
)
def test_where_it_cannot_be_had_auto_goes_without_and_on_says_why(monkeypatch, tmp_path, trouble, said):
    refuse(monkeypatch, tmp_path, trouble)
    with mps.shared(slots("4", "4"), "auto") as served:
        assert served == slots("4", "4")
    with pytest.raises(ConfigError, match=said), mps.shared(slots("4", "4"), "on"):
        pass


def test_unknown_mode_is_refused():
    with pytest.raises(ConfigError, match="mps=maybe is unknown; choose auto, on, off"), mps.shared([], "maybe"):
        pass


def test_trying_a_gpu_fails_on_a_machine_without_one(monkeypatch, tmp_path):
    control(monkeypatch, tmp_path)
    monkeypatch.setenv("LD_LIBRARY_PATH", "")
    if any(Path("/dev").glob("nvidia[0-9]*")):
        pytest.skip("this machine has a GPU")
    with pytest.raises(ConfigError, match="cannot use the GPU through MPS"), mps.shared(slots("4", "4"), "on"):
        pass


def test_runs_that_share_a_gpu_are_told_where_the_daemon_is(calls, tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4")
    runs = planned(tmp_path / "runs", range(3), device="cuda")
    run_pool(runs, pool_settings(runs_per_gpu=2), toy.job("traced"))
    given = [folder.result()["given"] for folder in list_runs(tmp_path / "runs")]
    assert {env["CUDA_VISIBLE_DEVICES"] for env in given} == {"0"}
    (pipes,) = {env["CUDA_MPS_PIPE_DIRECTORY"] for env in given}
    assert f"pipes={pipes} said=quit" in calls()[-1]


def test_threads_are_shared_out_where_runs_share_a_gpu(monkeypatch):
    monkeypatch.setattr("moe_study.launch.local.slots.available_cores", lambda: 16)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    shared = make_slots(pool_settings(runs_per_gpu=4), {"cuda"})
    assert Counter((slot.gpu, slot.threads) for slot in shared) == {("4", 2): 4, ("7", 2): 4}
    assert {slot.threads for slot in make_slots(pool_settings(workers=3), {"auto"})} == {5}
    assert {slot.threads for slot in make_slots(pool_settings(threads_per_run=3, runs_per_gpu=4), {"cuda"})} == {3}
    assert make_slots(pool_settings(runs_per_gpu=4), {"cpu"}) == [Slot()] * 16
    assert make_slots(pool_settings(threads_per_run=4), {"cpu"}) == [Slot(threads=4)] * 4
