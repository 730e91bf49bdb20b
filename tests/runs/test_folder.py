"""A run's folder: who may own it, what a killed process leaves, what a reader sees."""

import ast
import dataclasses
import json
import math
import multiprocessing
import os
import signal
import socket
import time
from pathlib import Path

import pytest
import yaml

import moe_study
from moe_study.design.config import LogConfig, RunConfig, RunSettings, read_record
from moe_study.design.plain import to_plain
from moe_study.errors import StudyError
from moe_study.runs.folder import RunFolder, State, list_runs


def config_in(runs_dir, **run) -> RunConfig:
    return RunConfig(run=RunSettings(**{"steps": 10, **run}), log=LogConfig(runs_dir=str(runs_dir)))


@pytest.fixture
def config(tmp_path):
    return config_in(tmp_path)


@pytest.fixture
def started(config):
    folder = RunFolder.of(config)
    with folder.claim(config):
        folder.start(10)
        yield folder


def test_key_tells_seeds_apart_and_ignores_paths_and_logging(tmp_path):
    base = config_in(tmp_path)
    assert config_in(tmp_path, seed=1).key != base.key
    assert config_in(tmp_path / "elsewhere").key == base.key
    moved = dataclasses.replace(base, data=dataclasses.replace(base.data, root="/elsewhere"))
    assert moved.key == base.key


def test_key_survives_the_trip_through_config_yaml(started, config):
    assert read_record(yaml.safe_load(started.config_file.read_text())).key == config.key
    assert started.read_config() == config


def test_second_claim_is_refused_and_names_the_owner(started, config):
    with pytest.raises(StudyError, match=f"process {os.getpid()}"), RunFolder.of(config).claim(config):
        pass


def test_claim_of_another_configurations_folder_is_refused(config, tmp_path):
    folder = RunFolder(tmp_path / config_in(tmp_path, seed=1).key)
    with pytest.raises(StudyError, match="not the folder of this configuration"), folder.claim(config):
        pass


def test_claim_refuses_a_config_file_that_was_edited(config):
    folder = RunFolder.of(config)
    with folder.claim(config):
        pass
    plain = to_plain(config)
    plain["run"]["seed"] = 7
    folder.config_file.write_text(yaml.safe_dump(plain))
    with pytest.raises(StudyError, match=r"config\.yaml was changed"), folder.claim(config):
        pass


def test_life_of_a_run(config):
    folder = RunFolder.of(config)
    assert folder.state() is State.MISSING
    with folder.claim(config):
        folder.start(10)
        assert folder.state() is State.RUNNING
        folder.preempt(4)
        assert folder.state() is State.PREEMPTED
        folder.start(10)
        assert folder.status().attempts == 2
        assert folder.status().step == 4
        folder.finish({"validation_loss": 1.5, "by_language": {"xx": {"loss": math.nan}}})
    assert folder.state() is State.DONE
    assert folder.status().step == 10
    assert folder.result() == {"validation_loss": 1.5, "by_language": {"xx": {"loss": None}}}


def test_failure_keeps_the_traceback(started):
    try:
        raise ValueError("first\nlast line")
    except ValueError as error:
        started.fail(error)
    status = started.status()
    assert status.state is State.FAILED
    assert status.message == "first"
    assert status.error["type"] == "ValueError"
    assert "test_folder.py" in status.error["traceback"]


def hold(config, ready):
    folder = RunFolder.of(config)
    with folder.claim(config):
        folder.start(10)
        ready.set()
        time.sleep(60)


def test_killed_process_leaves_a_stale_run_that_can_be_claimed(config):
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    process = context.Process(target=hold, args=(config, ready))
    process.start()
    assert ready.wait(10)
    folder = RunFolder.of(config)
    assert folder.state() is State.RUNNING
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert folder.status().state is State.RUNNING  # the file cannot know
    assert folder.state() is State.STALE
    with folder.claim(config):
        folder.start(10)
    assert folder.status().attempts == 2


def test_run_on_another_host_is_stale_only_after_a_long_silence(config):
    folder = RunFolder.of(config)
    with folder.claim(config):
        folder.start(10)
    plain = json.loads(folder.status_file.read_text())
    for age, state in ((1.0, State.RUNNING), (1e6, State.STALE)):
        folder.status_file.write_text(
            json.dumps({**plain, "host": "not-" + socket.gethostname(), "updated": time.time() - age})
        )
        assert folder.state() is state


def test_done_without_a_result_is_not_done(config):
    folder = RunFolder.of(config)
    with folder.claim(config):
        folder.start(10)
        folder.finish({})
    folder.result_file.unlink()
    assert folder.state() is State.STALE


def test_metrics_after_the_resumed_step_are_dropped_and_the_torn_line_too(started):
    for step in (2, 4, 6):
        started.append_metrics({"kind": "train", "step": step, "loss": math.inf if step == 4 else 1.0})
    with open(started.metrics_file, "a") as handle:
        handle.write('{"kind": "train", "st')
    assert [record["step"] for record in started.metrics()] == [2, 4, 6]
    started.drop_metrics_after(4)
    started.append_metrics({"kind": "train", "step": 5, "loss": 0.5})
    assert [(r["step"], r["loss"]) for r in started.metrics()] == [(2, 1.0), (4, None), (5, 0.5)]


def test_damaged_files_are_named(started):
    started.metrics_file.write_text('{"kind": "train", "step": 1}\nnonsense\n')
    with pytest.raises(StudyError, match=r"metrics\.jsonl is damaged at line 2"):
        started.metrics()
    started.status_file.write_text("{")
    with pytest.raises(StudyError, match=r"status\.json cannot be read"):
        started.state()
    started.status_file.write_text('{"state": "dancing"}')
    with pytest.raises(StudyError, match=r"status\.json is damaged"):
        started.state()
    started.config_file.write_text("just text")
    with pytest.raises(StudyError, match=r"config\.yaml is damaged"):
        started.read_config()


@pytest.mark.parametrize(
    ("field", "value"),
    [("error", '"boom"'), ("updated", '"soon"'), ("step", '"7"'), ("attempts", "[1]"), ("pid", "true")],
)
def test_a_status_of_other_types_is_damaged(started, field, value):
    started.status_file.write_text(f'{{"state": "running", "{field}": {value}}}')
    with pytest.raises(StudyError, match=rf"status\.json is damaged \({field} must be"):
        started.state()


def test_progress_is_written_at_most_once_a_second(started):
    started.progress(1)
    assert started.status().step == 0
    started.progress(2, force=True)
    assert started.status().step == 2


def test_forget_training_keeps_identity_and_attempts(started):
    started.checkpoint_folder.mkdir()
    started.append_metrics({"kind": "train", "step": 1})
    started.diverge("the loss is not finite at step 1", 1)
    started.forget_training()
    started.start(10)
    assert not started.checkpoint_folder.exists()
    assert started.metrics() == []
    assert (started.status().step, started.status().attempts) == (0, 2)
    assert started.config_file.exists()


def test_what_was_measured_of_earlier_weights_can_be_forgotten_alone(started):
    measured = (started.traces_folder, started.findings_folder, started.scores_folder)
    for folder in (*measured, started.routes_folder, started.export_folder):
        (folder / "brown-1").mkdir(parents=True)
    started.sparsify_file.write_text("{}")
    started.append_metrics({"kind": "train", "step": 1})
    started.forget_measured()
    assert not any(folder.exists() for folder in measured) and not started.sparsify_file.exists()
    assert started.routes_folder.exists() and started.export_folder.exists() and started.metrics()


def test_provenance_keeps_earlier_attempts(started):
    started.write_provenance()
    started.add_provenance(device="cpu", data_fingerprint="abc")
    started.write_provenance()
    now = started.provenance()
    assert now["versions"]["torch"]
    assert now["host"] == socket.gethostname()
    assert [entry["device"] for entry in now["earlier"]] == ["cpu"]


def test_list_runs_finds_run_folders_only(config, tmp_path):
    with RunFolder.of(config).claim(config):
        pass
    (tmp_path / "notes").mkdir()
    (tmp_path / ("0" * 16)).mkdir()  # no config.yaml
    assert [folder.key for folder in list_runs(tmp_path)] == [config.key]
    assert list_runs(tmp_path / "absent") == []


def test_no_code_outside_of_runs_spells_the_name_of_a_run_s_file():
    root = Path(moe_study.__file__).parent
    names = {path.name for path in vars(RunFolder("run")).values() if isinstance(path, Path)} - {"run", ".lock"}
    assert {"config.yaml", "metrics.jsonl", "checkpoint", "scores"} <= names
    for path in root.rglob("*.py"):
        if root / "runs" not in path.parents and any(name in (source := path.read_text()) for name in names):
            nodes = list(ast.walk(ast.parse(source)))
            texts = {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
            joined = {node.right.value for node in nodes if isinstance(node, ast.BinOp) and _is_joining(node)}
            words = {name for name in names if name.isalpha()}  # what else is called "scores" may be
            assert not (names - words) & texts and not words & joined, path


def _is_joining(node):
    return isinstance(node.op, ast.Div) and isinstance(node.right, ast.Constant)
