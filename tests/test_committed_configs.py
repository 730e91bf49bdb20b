"""Every file under conf/ and sweeps/: composed, validated, counted, audited, and trained for a few steps at toy size.

What several files mean the same at toy size is audited and trained once.
"""

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from moe_study.audit.audit import audit
from moe_study.audit.shrink import shrink
from moe_study.data import prepare
from moe_study.design.accounting import num_params
from moe_study.design.causality import verdict_of
from moe_study.design.config import DataConfig, LogConfig, RunConfig, RunSettings
from moe_study.design.identity import point_of
from moe_study.design.validation import validate
from moe_study.launch.execute import execute
from moe_study.runs.folder import RunFolder, State
from moe_study.sweeps.compose import Composer, open_composer
from moe_study.sweeps.conf import project_root
from moe_study.sweeps.plan import plan_command
from moe_study.sweeps.sweep_file import sweep_names
from moe_study.training import run
from moe_study.training.models import build_model
from tests.fixtures import tiny_data_config, tiny_digits

ROOT = project_root()
CONF = sorted(str(path.relative_to(ROOT / "conf").with_suffix("")) for path in (ROOT / "conf").glob("*/**/*.yaml"))
SWEEPS = sweep_names(ROOT)
ALSO = {  # what a group or file needs beside it to have something to do
    "match": ["routing=token_top2"],
    "model/vit": ["task=images"],
    "data/digits": ["task=images"],
}
Data = dict[str, DataConfig]  # by task
TRIALS = 6  # enough for these files; the audit's own tests say how often one finds a leak
STEPS = 3

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def composer() -> Iterator[Composer]:
    with open_composer() as opened:
        yield opened


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Data]:
    text = tiny_data_config(tmp_path_factory.mktemp("data"))
    prepare(text, progress=False)
    with pytest.MonkeyPatch.context() as monkeypatch:
        yield {"language": text, "images": tiny_digits(tmp_path_factory.mktemp("images"), monkeypatch)}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.mark.parametrize("file", CONF)
def test_a_file_of_conf_trains(file: str, composer: Composer, data: Data, runs: Path) -> None:
    group, _, name = file.rpartition("/")
    check(composer.run_config([f"{group}={name}", *ALSO.get(group, []), *ALSO.get(file, [])]), data, runs)


@pytest.mark.parametrize("name", SWEEPS)
def test_every_point_of_a_sweep_trains(name: str, composer: Composer, data: Data, runs: Path) -> None:
    plan = plan_command(composer, [f"+sweep={name}", f"log.runs_dir={runs / 'none'}"], ROOT)
    assert plan.runs
    assert not plan.invalid or plan.skip_invalid, plan.invalid_listing()
    points = {point_of(planned.config): planned.config for planned in plan.runs}
    for config in points.values():  # one seed of each
        check(config, data, runs)


def test_the_defaults_train(composer: Composer, data: Data, runs: Path) -> None:
    check(composer.run_config([]), data, runs)


@pytest.fixture(autouse=True)
def fewer_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "RUN_TRIALS", TRIALS)


def check(config: RunConfig, data: Data, runs: Path) -> None:
    validate(config)
    assert_counted(config)
    small = toy(config, data, runs)
    assert_trains(small)
    result = audit(small, TRIALS)  # at hand since the training
    assert result.agrees, f"declared {result.declared}, measured {result.measured}"
    assert result.declared == verdict_of(config)


def assert_counted(config: RunConfig) -> None:
    """The parameters of the full-sized model, built without memory, are those that the configuration counts."""
    with torch.device("meta"):
        model = build_model(config, end_of_text=0)
    assert model.num_parameters() == num_params(config)


def toy(config: RunConfig, data: Data, runs: Path) -> RunConfig:
    """The point as it is audited, on a tiny corpus, with the optimizer, precision and micro-batches of the file.

    Images are small already, and those of large transformers get a small one.
    """
    small = small_transformer(config) if config.task == "images" else shrink(config)
    rows = 4 if config.task == "images" else small.run.batch_size
    settings = RunSettings(
        steps=STEPS,
        batch_size=2 * rows,
        micro_batch=rows if config.run.micro_batch else None,
        precision=config.run.precision,
        eval_every=2 if config.run.eval_every else 0,
        eval_tokens=2 * rows * small.model.context,
        eval_batch=rows,
    )
    routing = dataclasses.replace(small.routing, balance=config.routing.balance)
    log = LogConfig(runs_dir=str(runs), log_every=1, routing_every=1, threads=1, progress=False)
    return dataclasses.replace(
        small, routing=routing, data=data[config.task], optimizer=config.optimizer, run=settings, log=log
    )


def small_transformer(config: RunConfig) -> RunConfig:
    if config.model.layers <= 4:
        return config
    return dataclasses.replace(config, model=dataclasses.replace(config.model, layers=2, width=8 * config.model.heads))


def assert_trains(config: RunConfig) -> None:
    folder = RunFolder.of(config)
    if folder.state() is State.DONE:
        return  # another file means the same
    validate(config)
    assert execute(config).state is State.DONE
    result = folder.result()
    assert result is not None and math.isfinite(result["validation_loss"])
    steps = [record for record in folder.metrics() if record["kind"] == "train"]
    assert len(steps) == STEPS and all(math.isfinite(record["loss"]) for record in steps)
