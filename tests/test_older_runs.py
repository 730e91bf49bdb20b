"""Runs of an older version: read with the values they were trained with, and never trained over or mistaken.

tests/runs/written_by_b58e2ea holds four runs as commit b58e2ea wrote them (dense and sequence top-2, seeds 0 and 1;
only the machine's name was changed): before the initial deviation was a setting, and under another rule of keys.

    python train.py routing=dense data=local_files data.options.path=texts data.tokenizer.kind=bytes
        data.validation_fraction=0.3 model.layers=1 model.heads=1 model.width=4 model.context=8 run=smoke
        run.batch_size=2 run.eval_tokens=64 run.eval_batch=2 log.log_every=2 log.routing_every=2 log.threads=1
"""

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml

from moe_study.analysis.frame import load_frame
from moe_study.cli import main
from moe_study.data import prepare
from moe_study.design.config import ModelConfig, RunConfig
from moe_study.design.identity import ABSENT, is_outside
from moe_study.design.plain import flatten, to_plain
from moe_study.errors import StudyError
from moe_study.launch.execute import execute
from moe_study.runs.folder import RunFolder, State
from moe_study.runs.listing import list_runs
from moe_study.training import checkpoint
from moe_study.training.models import load_model
from tests.fixtures import write_tiny_corpus

WRITTEN = Path(__file__).parent / "runs" / "written_by_b58e2ea"
DENSE, SEQUENCE = "2202c40bc83ae675", "14e3f8136cc84dbb"  # seed 0


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The runs where they were trained: beside the texts, which lie at a relative path."""
    shutil.copytree(WRITTEN, tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "runs"


def prepare_texts(folder: RunFolder) -> None:
    """The same texts, prepared by today's code."""
    write_tiny_corpus(Path("texts"), documents=30)
    fingerprint = prepare(folder.read_config().data, progress=False).fingerprint
    result = json.loads(folder.result_file.read_text())
    folder.result_file.write_text(json.dumps(result | {"data_fingerprint": fingerprint}))


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


def test_every_setting_that_is_younger_than_these_runs_says_what_they_were_trained_with() -> None:
    written = flatten(yaml.safe_load(list_runs(WRITTEN)[0].config_file.read_text()))
    young = {name for name in flatten(to_plain(RunConfig())) if name not in written and not is_outside(name)}
    missing = sorted(name for name in young - set(ABSENT) if not name.startswith("data.options"))
    assert not missing, (
        f"{', '.join(missing)}: no row in ABSENT (moe_study/design/identity.py), which says what value runs had before"
        " it was a setting; without one every key moves, and no older run can be read"
    )


@pytest.mark.parametrize("folder", list_runs(WRITTEN), ids=lambda folder: folder.key)
def test_every_setting_has_the_value_that_the_run_was_trained_with(folder: RunFolder) -> None:
    written = flatten(yaml.safe_load(folder.config_file.read_text()))
    read = flatten(to_plain(folder.read_config()))
    added = {name for name in set(read) - set(written) if not is_outside(name)}
    assert {name: read[name] for name in written if name in read and not is_outside(name)} == {
        name: value for name, value in written.items() if not is_outside(name)
    }
    assert added <= set(ABSENT)
    assert read["model.init_std"] == 0.02 != ModelConfig(width=written["model.width"]).weight_std


def test_older_runs_are_listed_with_their_values(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", str(runs)]) == 0
    assert "4 done" in capsys.readouterr().out
    frame = load_frame([runs])
    assert frame["state"].tolist() == ["done"] * 4
    assert sorted(set(frame["label"])) == ["dense 1x", "sequence top-2"]
    assert frame["model.init_std"].tolist() == [0.02] * 4
    assert sorted(frame["key"]) == sorted(path.name for path in WRITTEN.iterdir())


@pytest.mark.long
def test_older_runs_are_drawn(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plots", str(runs), "--out", str(tmp_path / "plots")]) == 0
    assert any((tmp_path / "plots").rglob("*.png"))
    assert "dense 1x" in capsys.readouterr().out


def test_an_older_model_is_opened_with_its_weights(runs: Path) -> None:
    folder = RunFolder(runs / DENSE)
    state = checkpoint.load_newest(folder.checkpoint_folder)
    assert state is not None
    model = load_model(folder)
    assert all(torch.equal(value, state["model"][name]) for name, value in model.state_dict().items())


def test_an_older_leak_is_priced(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = RunFolder(runs / SEQUENCE)
    prepare_texts(folder)
    assert main(["audit", "--cost", SEQUENCE, "--runs-dir", str(runs)]) == 0
    trained = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("as trained"))
    result = folder.result()
    assert result is not None and f"{result['validation_perplexity']:.3f}" in trained  # what that day measured


def test_an_older_model_is_sparsified(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = RunFolder(runs / DENSE)
    prepare_texts(folder)
    assert main(["sparsify", DENSE, "--runs-dir", str(runs), "--experts", "2", "--thresholds", "0.5"]) == 0
    assert DENSE in capsys.readouterr().out


def test_an_older_run_is_not_trained_over(runs: Path) -> None:
    """The same point is another run today, in a folder of its own; the older folder is claimed by nobody."""
    before = contents(runs / DENSE)
    config = RunFolder(runs / DENSE).read_config()
    todays = RunFolder.of(config)
    assert todays.key != DENSE and todays.state() is State.MISSING
    with pytest.raises(StudyError, match="not the folder of this configuration"), RunFolder(runs / DENSE).claim(config):
        pass
    prepare_texts(RunFolder(runs / SEQUENCE))
    assert execute(config).state is State.DONE
    assert contents(runs / DENSE) == before
    assert RunFolder(runs / DENSE).state() is State.DONE
    again = load_frame([runs])
    assert len(again) == 4 and DENSE not in set(again["key"])  # one run, and the one of today's code stands for it


def test_a_checkpoint_of_another_run_is_refused(runs: Path) -> None:
    shutil.copy(runs / SEQUENCE / "checkpoint" / "final.pt", runs / DENSE / "checkpoint" / "final.pt")
    with pytest.raises(StudyError, match=f"holds the checkpoint of run {SEQUENCE}"):
        load_model(RunFolder(runs / DENSE))


def test_a_copy_under_another_name_is_opened_by_its_configuration(runs: Path, tmp_path: Path) -> None:
    prepare_texts(RunFolder(runs / DENSE))
    config = RunFolder(runs / DENSE).read_config()
    execute(config)
    shutil.copytree(RunFolder.of(config).path, tmp_path / "best")
    assert load_model(RunFolder(tmp_path / "best")) is not None
