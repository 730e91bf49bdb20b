"""One run by several processes, as torchrun starts them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from moe_study.runs.folder import RunFolder, State, list_runs
from tests.fixtures import write_tiny_corpus
from tests.launch.driving import ROOT

SETTINGS = (
    "model=pico", "model.width=16", "model.context=16", "data=local_files", "data.tokenizer.kind=bytes",
    "run.tokens=null", "run.steps=4", "run.batch_size=4", "run.eval_tokens=512", "log.progress=false",
)  # fmt: skip


def torchrun(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    write_tiny_corpus(tmp_path / "texts")
    places = (f"data.options.path={tmp_path / 'texts'}", f"data.root={tmp_path / 'data'}")
    line = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(ROOT / "train.py"),
        *SETTINGS, *places, f"log.runs_dir={tmp_path / 'runs'}", *arguments,
    ]  # fmt: skip
    prepare = [sys.executable, "-m", "moe_study.cli", "prepare", *SETTINGS, *places]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    for each in (prepare, line):
        done = subprocess.run(each, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    return done


@pytest.mark.long
def test_two_processes_train_one_run_and_rank_0_tells(tmp_path: Path) -> None:
    done = torchrun(tmp_path)
    assert done.returncode == 0, done.stderr
    (folder,) = list_runs(tmp_path / "runs")
    assert folder.state() is State.DONE
    assert done.stdout.count(f"{folder.path} is done") == 1
    provenance = RunFolder(folder.path).provenance()
    assert provenance is not None
    assert provenance["arithmetic"]["ranks"] == 2
    again = torchrun(tmp_path)
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("is done already") == 1


@pytest.mark.long
def test_a_sweep_and_a_point_that_cannot_be_shared_are_refused_in_a_sentence(tmp_path: Path) -> None:
    sweep = torchrun(tmp_path, "-m", "run.seed=0,1")
    assert sweep.returncode != 0
    assert "torchrun starts the processes of one run, and -m is for many" in sweep.stderr
    shared = torchrun(tmp_path, "routing=token_top2_shuffled")
    assert shared.returncode != 0
    assert "set run.micro_batch=2" in shared.stderr
