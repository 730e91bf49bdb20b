"""What tests with a scripted scheduler share."""

from pathlib import Path

import pytest

from moe_study.launch.slurm import submit, task
from tests.launch.slurm import scripted


@pytest.fixture
def runs_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID"):
        monkeypatch.setenv(name, "")  # put back at the end
    monkeypatch.setattr(task, "ASK_AGAIN", 0.0)
    monkeypatch.setattr(submit, "take_snapshot", lambda runs_dir: Path("no-copy"))  # 300 files for each array
    scripted.ended.clear()
    scripted.in_training.clear()
    return tmp_path / "runs"
