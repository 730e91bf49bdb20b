"""The command for a GPU, tried on a CPU: that its rows run, and that nothing that goes wrong in one ends the others."""

import argparse
import json
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch

from bench import gpu
from bench.common import Results
from bench.gpu_checks import Problem, distance, loop, none_of, plans
from bench.gpu_setting import Sizes, implementation_of
from bench.machine import ROOT
from bench.targets import TARGETS

ROWS = ["check grouped bf16", "check grouped compiled", "layer 8x2", "step 64x8", "dense over nanogpt",
        "memory step 8x2", "layer 64x8, triton"]  # fmt: skip
CHILD = """
import json, os, sys, time
from pathlib import Path
begun, output = sys.argv[1:3]
for name in sys.argv[sys.argv.index("--rows") + 1:]:
    with open(begun, "a") as file: file.write(name + "\\n")
    if name == "aborts": os.abort()
    if name == "hangs": time.sleep(60)
"""


def trial(output: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bench.gpu", "--trial", "--output", str(output), *more]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.mark.long
def test_a_trial_writes_its_rows_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    output, nanogpt = tmp_path / "out.json", Path(__file__).with_name("nanogpt_double.py")
    done = trial(output, "--nanogpt", str(nanogpt), "--rows", *ROWS)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads(output.read_text())["rows"]
    assert list(rows) == [f"trial {name}" for name in ROWS]
    assert [name for name, row in rows.items() if "skipped" in row] == ["trial layer 64x8, triton"]
    assert rows["trial check grouped bf16"]["median"] < 1
    assert trial(output, "--rows", "layer 8x2").stdout.strip().endswith("(kept)")


def test_without_a_gpu_it_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu"])
    with pytest.raises(SystemExit, match=r"^bench\.gpu needs a CUDA GPU, and torch sees none here; --trial"):
        gpu.main()


def test_every_target_of_a_gpu_has_its_row() -> None:
    rows = {f"gpu {name}" for name in gpu.all_rows(Sizes(), None)}
    assert {name for name in TARGETS if name.startswith("gpu ")} - rows == {"gpu packing 100 tiny runs"}


def parent(tmp_path: Path, names: list[str], seconds: float) -> gpu.Parent:
    arguments = argparse.Namespace(limit_seconds=seconds, again=False, trial=True, nanogpt=None)
    made = gpu.Parent(arguments, Results(tmp_path / "out.json"), names, tmp_path)
    made.command = [sys.executable, "-c", CHILD, str(made.begun), str(made.results.path)]
    return made


@pytest.mark.long
def test_a_row_that_takes_its_process_with_it_leaves_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "ROW_SECONDS", 2)
    made = parent(tmp_path, ["first", "aborts", "middle", "hangs", "last"], seconds=100)
    assert made.run() == []
    rows = {name: row["skipped"] for name, row in made.results.rows.items()}
    assert rows == {"aborts": "its process ended with -6", "hangs": "it took more than 2 s"}


@pytest.mark.long
def test_it_ends_before_the_limit_and_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "LEAST_SECONDS", 1)
    monkeypatch.setattr(gpu, "TO_END", 1)
    made = parent(tmp_path, ["first", "hangs", "last"], seconds=4)
    assert made.run() == ["hangs", "last"]
    assert made.left > 0 and made.results.rows == {}  # what was cut off is tried again
    assert parent(tmp_path, ["last"], seconds=0.5).run() == ["last"]


def test_a_row_that_raises_is_kept_as_such_and_ends_the_process(tmp_path: Path) -> None:
    def broken() -> dict[str, float]:
        raise RuntimeError("CUDA error: an illegal memory access")

    rows: gpu.Rows = {"good": lambda: {"median": 1.0, "low": 1.0, "high": 1.0}, "broken": broken, "after": broken}
    results = Results(tmp_path / "out.json")
    with pytest.raises(SystemExit) as end:
        gpu.measure_rows(rows, results, tmp_path / "begun", list(rows), 1000)
    assert end.value.code == gpu.FAILED
    assert results.rows["broken"]["skipped"] == "RuntimeError: CUDA error: an illegal memory access"
    assert "after" not in results.rows
    assert (tmp_path / "begun").read_text().splitlines() == ["good", "broken"]


def test_a_failed_check_is_named(tmp_path: Path) -> None:
    results = Results(tmp_path / "out.json")
    for name, median in (("trial check a", 0.9), ("trial check b", 1.1), ("trial layer c", 5.0)):
        results.measure(name, partial(dict, median=median, low=median, high=median))
    results.measure("trial check d", lambda: {"skipped": "RuntimeError: it broke"})
    results.measure("trial check e", lambda: {"skipped": "a CPU has no TF32"})
    assert gpu.failures(results) == ["trial check b", "trial check d"]


def test_one_difference_is_too_many() -> None:
    assert none_of(0)["median"] <= 1 < none_of(1)["median"]


@pytest.mark.parametrize(
    ("signals", "code"), [("signal.SIG_DFL", -signal.SIGTERM), ("signal.SIG_IGN", -signal.SIGKILL)]
)
@pytest.mark.long
def test_a_command_out_of_time_is_ended_with_all_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, signals: str, code: int
) -> None:
    monkeypatch.setattr(gpu, "GRACE_SECONDS", 1)
    script = f"""
import os, pathlib, signal, time
signal.signal(signal.SIGTERM, {signals})
if os.fork() == 0:
    pathlib.Path("grandchild").write_text(str(os.getpid()))
time.sleep(60)
"""
    child = subprocess.Popen([sys.executable, "-c", script], cwd=tmp_path, start_new_session=True)
    while not (tmp_path / "grandchild").exists() or not (tmp_path / "grandchild").read_text():
        time.sleep(0.02)
    gpu.end_session(child)
    assert child.returncode == code
    assert has_ended(int((tmp_path / "grandchild").read_text()))


def has_ended(process: int) -> bool:
    """Whether it is gone, or only waits for somebody to read its exit code; given a second to get there."""
    status = Path(f"/proc/{process}/stat")
    for _ in range(50):
        if not status.exists() or status.read_text().rpartition(")")[2].split()[0] == "Z":
            return True
        time.sleep(0.02)
    return False


def test_the_checks_see_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    for load, plan in plans("cpu", 32).items():
        problem = Problem(plan, torch.float32, "cpu")
        right = problem.results_of_loop()
        with implementation_of("grouped") as function:
            assert distance(problem.results(function), right) < 1e-5
        wrong = [value.clone() for value in right]
        wrong[3].view(-1)[-1] += 0.5  # one value of one gradient
        assert distance(wrong, right) > 1e-2, load
    assert json.loads(json.dumps(distance([torch.tensor([float("nan")])], [torch.ones(1)]), allow_nan=False)) > 1e6
    assert loop(problem.x_ND, plan, problem.experts).abs().max() == 0  # "no pairs", the last
