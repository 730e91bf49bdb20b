"""A run's folder as other ranks see it."""

import inspect
from pathlib import Path
from typing import Any

import pytest

from moe_study.runs.folder import RunFolder
from moe_study.runs.followed import FollowedFolder

READING = {
    "of", "tokenizer_file", "read_config", "read_plain_config", "status", "state", "metrics", "metrics_table",
    "result", "read_activations", "provenance", "is_locked",
}  # fmt: skip
CLAIMING = {"lock", "claim", "start"}  # by rank 0 alone
ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "progress": (3,),
    "finish": ({"loss": 1.0},),
    "diverge": ("not finite", 3),
    "preempt": (3,),
    "fail": ("killed",),
    "append_metrics": ({"kind": "train", "step": 1},),
    "drop_metrics_after": (0,),
    "write_activations": (None,),
}


def writers() -> list[str]:
    """All methods of a run's folder that write, whenever they were added."""
    named = {name for name, _ in inspect.getmembers(RunFolder, inspect.isroutine) if not name.startswith("_")}
    return sorted(named - READING - CLAIMING)


@pytest.mark.parametrize("name", writers())
def test_nothing_is_written_by_a_rank_that_follows(name: str, tmp_path: Path) -> None:
    run = tmp_path / "0123456789abcdef"
    run.mkdir()
    (run / "metrics.jsonl").write_text('{"kind": "train", "step": 5}\n', encoding="utf-8")
    getattr(FollowedFolder(run), name)(*ARGUMENTS.get(name, ()))
    assert [path.name for path in run.iterdir()] == ["metrics.jsonl"]
    assert (run / "metrics.jsonl").read_text(encoding="utf-8") == '{"kind": "train", "step": 5}\n'
