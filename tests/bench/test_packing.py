"""The packing benchmark on toy sweeps. CUDA_VISIBLE_DEVICES plays a GPU: run.device=auto then trains on the CPU."""

import json
import os

import pytest

from bench import packing
from bench.common import Results
from bench.machine import ROOT
from bench.tiny_runs import Size, TinyRuns

TOY = {"layers": 1, "width": 16, "context": 16, "batch_size": 2, "steps": 3, "eval_tokens": 64}


@pytest.fixture
def results(tmp_path):
    return Results(tmp_path / "results.json")


def test_largest_difference_is_over_all_losses_of_all_runs():
    assert packing.largest_difference({"a": [1.0, 2.0], "b": [3.0]}, {"a": [1.0, 2.5], "b": [2.0]}) == 1.0


def test_commands_find_what_a_relative_python_path_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", f"site{os.pathsep}.")
    monkeypatch.setattr(TinyRuns, "_python", lambda self, *arguments: None)
    folders = TinyRuns(tmp_path / "tiny", Size(**TOY)).environment["PYTHONPATH"].split(os.pathsep)
    assert folders == [str(ROOT), str(tmp_path / "site"), str(tmp_path)]


@pytest.mark.long
def test_packed_runs_have_the_losses_of_runs_one_at_a_time(tmp_path, results):
    tiny = TinyRuns(tmp_path / "tiny", Size(**TOY))
    packing.cpu_rows(results, tiny, runs=5, rounds=1, commands=1)
    row = results.rows["packing 5 tiny runs"]
    assert row["losses_equal"] is True
    assert set(row["seconds"]) == {packing.PACKED, packing.SERIAL, packing.SERIAL_WIDE}
    assert row["over"] in (packing.SERIAL, packing.SERIAL_WIDE)
    assert set(results.rows) == {"packing 5 tiny runs", "packing 1 tiny runs over 1 commands"}


@pytest.fixture
def one_core():
    """Each run has one thread, whatever shares the machine: on a CPU the number of threads changes last bits."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    yield
    os.sched_setaffinity(0, before)


@pytest.mark.long
@pytest.mark.usefixtures("one_core")
def test_runs_that_a_process_trains_in_turn_have_the_losses_of_runs_in_fresh_processes(tmp_path, results, monkeypatch):
    fresh = TinyRuns(tmp_path / "fresh", Size(**TOY))
    fresh.sweep("fresh", 5)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setenv("PATH", "/usr/bin:/bin")  # no MPS
    shared = TinyRuns(tmp_path / "shared", Size(**TOY, device="auto"))
    packing.gpu_rows(results, shared, runs=5, rounds=1, sharing=[2])
    rows = results.rows
    assert rows["gpu packing 5 tiny runs"]["way"] == "2 at a time"
    assert rows["gpu packing 5 tiny runs, 2 at a time"]["largest_loss_difference"] == 0.0
    assert "nvidia-cuda-mps-control" in rows["gpu packing 5 tiny runs, 2 at a time, MPS"]["skipped"]
    in_turn, alone = (
        sorted(json.dumps(x) for x in t.losses(n).values()) for t, n in ((shared, "1-off"), (fresh, "fresh"))
    )
    assert in_turn == alone
    processes = {
        log.read_text().split("process ")[1].split()[0] for log in (tmp_path / "shared/1-off").glob("*/log.txt")
    }
    assert len(processes) == 1
