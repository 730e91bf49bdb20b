"""Data before anything starts: whether it is there and whole, and whether finished runs were trained on it."""

import dataclasses
import shutil

import pytest

from moe_study.cli import main
from moe_study.data import fingerprint, prepare
from moe_study.design.config import LogConfig, RunConfig, RunSettings
from moe_study.errors import DataError
from moe_study.launch.data import about_other_data, check_data, check_finished
from moe_study.launch.execute import TRAINING, Job
from moe_study.runs.folder import RunFolder
from moe_study.sweeps.plan import plan_overrides
from tests.fixtures import tiny_data_config
from tests.launch.driving import train


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A prepared corpus, and another one of the same configuration from other texts, elsewhere."""
    one = tiny_data_config(tmp_path_factory.mktemp("one"))
    other = dataclasses.replace(tiny_data_config(tmp_path_factory.mktemp("other"), documents=50))
    for config in (one, other):
        prepare(config, progress=False)
    return one, other


def done_on(runs_dir, data, seed=0, like=None, **result):
    """The configuration of a finished run (`like` that one) whose result says that it was trained on `data`."""
    config = like or RunConfig(
        data=data, run=RunSettings(seed=seed, steps=10), log=LogConfig(runs_dir=str(runs_dir))
    )
    folder = RunFolder.of(config)
    with folder.claim(config):
        folder.start(10)
        folder.finish({"data_fingerprint": fingerprint(data), "validation_perplexity": 2.0, **result})
    return config


def on(config, data):
    return dataclasses.replace(config, data=data)


def test_a_finished_run_counts_with_its_own_data_only(tmp_path, data):
    one, other = data
    config = done_on(tmp_path, one)
    assert on(config, other).key == config.key  # where data lies makes no other run
    assert about_other_data([config]) is None
    sentence = about_other_data([on(config, other)])
    assert sentence.startswith("1 finished run was trained on other data")
    assert f"(moe-study remove --results {RunFolder.of(config).path})" in sentence
    with pytest.raises(DataError, match="other data"):
        check_finished([on(config, other)], TRAINING)
    check_finished([on(config, other)], Job(dict, reads_data=False))


def test_it_counts_where_nothing_can_be_compared(tmp_path, data):
    one, _ = data
    config = done_on(tmp_path / "runs", one)
    nowhere = dataclasses.replace(one, root=str(tmp_path / "nowhere"))
    assert about_other_data([on(config, nowhere)]) is None
    assert about_other_data([done_on(tmp_path / "runs", one, seed=1, data_fingerprint=None)]) is None
    unfinished = dataclasses.replace(config, run=dataclasses.replace(config.run, seed=2))
    assert about_other_data([unfinished]) is None


def test_many_runs_are_one_sentence(tmp_path, data):
    one, other = data
    configs = [on(done_on(tmp_path, one, seed), other) for seed in range(7)]
    assert "7 finished runs were" in about_other_data(configs)
    assert "and 2 more" in about_other_data(configs)


def test_removed_data_is_not_other_data(tmp_path, data):
    """Results can be looked at after their corpus was deleted."""
    copied = dataclasses.replace(data[0], root=str(tmp_path / "data"))
    shutil.copytree(data[0].root, copied.root)
    config = done_on(tmp_path / "runs", copied)
    shutil.rmtree(copied.root)
    assert about_other_data([config]) is None


@pytest.mark.parametrize("mode", [(), pytest.param(("-m",), marks=pytest.mark.long)])
def test_train_refuses_and_plan_warns(tmp_path, data, mode, capsys):
    one, other = data
    runs_dir = tmp_path / "runs"
    settings = ["data=local_files", "data.name=tiny", "data.tokenizer.kind=bytes", "data.validation_fraction=0.2"]
    settings += [f"data.options.path={other.options['path']}", f"data.root={other.root}"]
    overrides = [*settings, "run.steps=900", "run.tokens=null", f"log.runs_dir={runs_dir}"]
    (planned,) = plan_overrides(overrides).runs
    done_on(runs_dir, one, like=planned.config)
    refused = train(None, runs_dir, *mode, *settings)
    assert refused.returncode == 1
    assert refused.stderr.startswith("error: 1 finished run was trained on other data")
    assert refused.stderr.count("\n") == 1
    assert main(["plan", *overrides]) == 0
    assert "1 finished run was trained on other data" in capsys.readouterr().out
    home = (f"data.root={one.root}", f"data.options.path={one.options['path']}")
    at_home = train(None, runs_dir, *mode, *settings, *home)
    assert at_home.returncode == 0, at_home.stderr


def test_domains_too_short_to_be_trained_on_are_named_before_a_run_and_damage_stops_it(tmp_path, capsys):
    data = tiny_data_config(tmp_path)
    corpus = prepare(data, progress=False)
    config = RunConfig(data=data, run=RunSettings(steps=1))
    longest = max(len(shard.tokens) for shard in corpus.train.shards)
    for context, named in ((16, []), (longest - 1, ["trained on", "judged"])):
        sized = dataclasses.replace(config, model=dataclasses.replace(config.model, context=context))
        check_data([sized, dataclasses.replace(sized, run=RunSettings(seed=1, steps=1))], TRAINING)
        said = capsys.readouterr().err.splitlines()
        assert [line.split(" are never ")[1].split(",")[0] for line in said] == named
    shard = corpus.validation.shards[1].path
    shard.write_bytes(shard.read_bytes()[::-1])
    with pytest.raises(DataError, match=f"{shard.name} is damaged"):
        check_data([config], TRAINING)
