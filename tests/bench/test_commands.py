"""Every benchmark's command at a tiny setting, so that none can rot."""

import importlib
import json
import sys
from pathlib import Path

import pytest

from bench import common, everything, table
from bench.everything import BENCHMARKS
from bench.machine import ROOT

TINY = {
    "layer": ["--rows", "8x1", "64x8 global", "--sequences", "1"],
    "step": ["--rows", "64x8", "--model", "nano", "--batch", "1"],
    "memory": ["--rows", "layer 8x1", "step 8x1", "--model", "nano", "--batch", "1"],
    "peers": ["--rows", "soft-moe-pytorch soft 8x1", "mixture-of-experts dropping 8x2", "--width", "32",
              "--sequences", "1", "--length", "32"],
    "specialise": ["--tokens", "2560", "--vocabulary", "64", "--permutations", "9"],
    "trace": ["--tokens", "1000", "--model", "nano"],
    "nanogpt_dense": ["--sizes", "nano", "--vocabularies", "64", "--nanogpt",
                      str(Path(__file__).with_name("nanogpt_double.py"))],
}  # fmt: skip
ROWS = {
    "layer": ["layer 8x1, 1 sequences", "layer 64x8 global, 1 sequences"],
    "step": ["step nano 64x8, 1 sequences"],
    "memory": ["memory layer 8x1", "memory step nano 8x1, 1 sequences"],
    "specialise": [
        "specialise 3 layers of 2,560 tokens, 64 vocabulary, 9 permutations",
        "specialise all of 3 layers of 2,560 tokens, 64 vocabulary, 9 permutations",
    ],
    "trace": ["trace nano 8x2, 1000 tokens"],
    "nanogpt_dense": ["dense over nanogpt nano of 64 symbols"],
}


@pytest.mark.parametrize("name", TINY)
@pytest.mark.long
def test_a_command_writes_its_rows_and_keeps_them(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module, output = importlib.import_module(f"bench.{name}"), tmp_path / "out.json"
    monkeypatch.setattr(module, "prepare_process", lambda threads=None: None)  # settings of a whole process
    monkeypatch.setattr(sys, "argv", [name, "--rounds", "1", "--output", str(output), *TINY[name]])
    module.main()
    written = json.loads(output.read_text())
    if name in ROWS:
        assert list(written["rows"]) == ROWS[name]
        assert all(row["low"] > 0 for row in written["rows"].values())
    module.main()
    assert json.loads(output.read_text())["rows"].keys() == written["rows"].keys()
    assert capsys.readouterr().out.count("(kept)") == sum("skipped" not in row for row in written["rows"].values())


def test_every_benchmark_is_there() -> None:
    for name in (*BENCHMARKS, everything.WITH_NANOGPT):
        assert (ROOT / "bench" / f"{name}.py").exists(), name


def parse(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> list[list[str]]:
    """The commands that `bench.everything` runs for these arguments."""
    ran: list[list[str]] = []

    def run(command: list[str]) -> bool:
        ran.append(command)
        return True

    monkeypatch.setattr(everything, "run", run)
    monkeypatch.setattr(sys, "argv", ["everything", *arguments])
    monkeypatch.setattr(table, "write", lambda: None)
    everything.main()
    return ran


def test_everything_runs_all_and_hands_its_options_on(monkeypatch: pytest.MonkeyPatch) -> None:
    by_the_clock = [["bench.layer", "--threads", "2"], ["bench.peers", "--threads", "2"]]
    assert parse(monkeypatch) == [[f"bench.{name}"] for name in BENCHMARKS] + by_the_clock
    assert parse(monkeypatch, "--only", "step", "--again", "--rounds", "3", "--nanogpt", "model.py") == [
        ["bench.step", "--again", "--rounds", "3"],
        ["bench.nanogpt_dense", "--nanogpt", "model.py", "--again", "--rounds", "3"],
    ]


def test_a_failing_benchmark_does_not_stop_the_others_and_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    ran, drawn = [], []

    def run(command: list[str]) -> bool:
        ran.append(command[0])
        return command[0] != "bench.layer"

    monkeypatch.setattr(everything, "run", run)
    monkeypatch.setattr(table, "write", lambda: drawn.append(True))
    monkeypatch.setattr(sys, "argv", ["everything", "--only", "layer", "step"])
    with pytest.raises(SystemExit, match="layer, layer, 2 threads;"):
        everything.main()
    assert ran == ["bench.layer", "bench.step", "bench.layer"] and drawn == [True]


def test_a_benchmark_is_a_process_of_its_own_whose_exit_code_counts() -> None:
    assert everything.run(["json.tool", "--help"])
    assert not everything.run(["bench.no_such_benchmark"])


def test_a_setting_that_is_not_the_usual_one_makes_another_row() -> None:
    assert common.unusual(sequences=(8, 8), threads=(2, 1), compiled=(True, False)) == ", 2 threads, compiled"
