import json
import os
import signal
import sys
import time
import types

import pytest

from moe_study.errors import ConfigError
from moe_study.launch.execute import execute
from moe_study.runs.folder import RunFolder, State
from moe_study.training.loop import Trainer
from moe_study.training.metrics import Diverged
from moe_study.training.tracking import Mirror, flatten
from tests.training.doubles import tiny_config
from tests.training.harness import assert_same, make_config, outcome
from tests.wandb_files import records


class FakeRun:
    def __init__(self, broken, settings):
        self.logged, self.summary, self.finished, self.broken = [], {}, None, broken
        self.id, self.dir = settings["id"], f"{settings['dir']}/wandb/offline-run-now-{settings['id']}/files"

    def log(self, values, step):
        if self.broken == "log":
            raise ConnectionError("server gone")
        self.logged.append((step, values))

    def finish(self, exit_code):
        if self.broken == "finish":
            raise ConnectionError("server gone")
        self.finished = exit_code


@pytest.fixture
def wandb(monkeypatch):
    """A stand-in for the library that notes how it was called and breaks where told."""
    module = types.ModuleType("wandb")
    module.broken, module.calls = None, []

    def init(**settings):
        if module.broken == "start":
            raise SystemExit("no API key")
        module.calls.append(settings)
        module.run = FakeRun(module.broken, settings)
        return module.run

    module.init, module.Settings = init, dict
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module


def test_off_does_not_even_import_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)  # an import would raise
    mirror = Mirror(tiny_config(tmp_path), tmp_path)
    mirror.log({"kind": "train", "step": 1})
    mirror.finish("done")


def test_the_run_id_is_the_key_and_a_resumed_run_goes_on(tmp_path, data, wandb):
    config = make_config(tmp_path, data, log={"wandb": "offline"})
    execute(config)
    assert wandb.calls[0]["id"] == config.key
    assert wandb.calls[0]["resume"] == "allow"
    assert wandb.calls[0]["mode"] == "offline"
    steps = [step for step, _ in wandb.run.logged]
    assert steps == [record["step"] for record in RunFolder.of(config).metrics()]
    assert wandb.run.summary["validation_loss"] == RunFolder.of(config).result()["validation_loss"]
    assert wandb.run.finished == 0


def stop_after(monkeypatch, step):
    """The run ends by a signal after `step` steps."""
    train_step = Trainer.train_step

    def stopped(self):
        train_step(self)
        if self.step == step:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Trainer, "train_step", stopped)


@pytest.mark.parametrize("mode", ["offline", "online"])
def test_a_resumed_run_has_its_whole_curve_offline_and_no_step_twice_online(tmp_path, data, wandb, monkeypatch, mode):
    config = make_config(tmp_path, data, log={"wandb": mode, "log_every": 1})
    with monkeypatch.context() as patch:
        stop_after(patch, 6)
        execute(config)
    before = [step for step, _ in wandb.run.logged]
    assert max(before) == 6
    execute(config)
    assert [call["id"] for call in wandb.calls] == [config.key] * 2
    steps = [record["step"] for record in RunFolder.of(config).metrics()]
    assert [step for step, _ in wandb.run.logged] == (steps if mode == "offline" else steps[len(before) :])


def test_a_training_from_the_start_has_an_id_of_its_own_and_keeps_it_when_resumed(tmp_path, data, wandb, monkeypatch):
    config = make_config(tmp_path, data, log={"wandb": "offline"})
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train_step", lambda self: (_ for _ in ()).throw(Diverged("the loss", 3)))
        execute(config)
    with monkeypatch.context() as patch:
        stop_after(patch, 6)
        execute(config)
    assert execute(config).state is State.DONE
    assert [call["id"] for call in wandb.calls] == [config.key, f"{config.key}-2", f"{config.key}-2"]
    assert wandb.calls[2]["name"] == f"{config.key}-2"


LATER = [pytest.param(broken, marks=pytest.mark.long) for broken in ("start", "finish")]


@pytest.mark.long
@pytest.mark.parametrize("broken", ["log", *LATER])
def test_whatever_wandb_does_the_run_is_the_same(tmp_path, data, wandb, broken):
    wandb.broken = broken
    config = make_config(tmp_path / "a", data, log={"wandb": "online"})
    with pytest.warns(UserWarning, match=f"wandb could not {broken}"):
        assert execute(config).state is State.DONE
    plain = make_config(tmp_path / "b", data)
    assert plain.key == config.key
    execute(plain)
    assert_same(outcome(config), outcome(plain))


def test_an_unknown_mode_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="choose off, offline or online"):
        Mirror(tiny_config(tmp_path, log={"wandb": "False"}), tmp_path)


def test_records_become_flat_names():
    assert flatten({"kind": "train", "step": 3, "loss": 1.5, "aux": {"z": 2.0}}) == {
        "train/loss": 1.5,
        "train/aux/z": 2.0,
    }
    assert flatten({"kind": "routing", "step": 3, "layer": 1, "share": [0.25, 0.75]}) == {
        "routing/1/share/0": 0.25,
        "routing/1/share/1": 0.75,
    }


def test_the_folder_of_a_resumed_run_takes_the_place_of_those_before_it_and_of_no_other(tmp_path, wandb):
    config = tiny_config(tmp_path, log={"wandb": "offline"})
    place = tmp_path / "wandb"
    others = [f"offline-run-then-{config.key}-2", f"run-then-{config.key}", "offline-run-then-report"]
    for name in (f"offline-run-then-{config.key}", f"offline-run-now-{config.key}", *others):
        (place / name).mkdir(parents=True)
    mirror = Mirror(config, tmp_path)
    assert len(list(place.iterdir())) == 5, "until the new one is whole, all stay"
    mirror.finish("preempted")
    assert {path.name for path in place.iterdir()} == {f"offline-run-now-{config.key}", *others}


def logged(file):
    """(step, values by name) of each line of history in a .wandb file."""
    for record in records(file):
        if record.HasField("history"):
            items = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
            yield items["_step"], items


@pytest.mark.long
def test_the_real_library_keeps_a_preempted_run_in_one_piece(tmp_path, data, monkeypatch):
    config = make_config(tmp_path, data, log={"wandb": "offline", "log_every": 1})
    for step in (4, 9):
        with monkeypatch.context() as patch:
            stop_after(patch, step)
            execute(config)
    assert execute(config).state is State.DONE
    folder = RunFolder.of(config)
    (file,) = (folder.path / "wandb").glob(f"offline-run-*/run-{config.key}.wandb")
    curve: dict[int, dict] = {}
    for record in folder.metrics():
        curve.setdefault(record["step"], {}).update(flatten(record))
    found = list(logged(file))
    assert [step for step, _ in found] == sorted(curve), "every step once, in order"
    for step, items in found:
        values = {name: value for name, value in items.items() if not name.startswith("_")}
        assert values == pytest.approx(curve[step], nan_ok=True)


@pytest.mark.long
def test_the_real_library_writes_an_offline_run(tmp_path, data):
    config = make_config(tmp_path, data, log={"wandb": "offline"})
    execute(config)
    written = list((RunFolder.of(config).path / "wandb").glob(f"offline-run-*/run-{config.key}.wandb"))
    assert len(written) == 1
    deadline = time.monotonic() + 60  # its own process writes behind ours
    while b"validation_perplexity" not in written[0].read_bytes():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert config.key.encode() in written[0].read_bytes()
