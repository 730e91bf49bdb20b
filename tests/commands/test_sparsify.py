"""moe-study sparsify on runs that were trained for a moment."""

import dataclasses
import json
import math

import pandas as pd
import pytest

from moe_study.cli import main
from moe_study.data import prepare
from moe_study.design.accounting import flops_per_token
from moe_study.design.config import ModelConfig
from moe_study.design.plain import from_plain
from moe_study.design.routing import Routing
from moe_study.launch.execute import execute
from moe_study.runs.folder import RunFolder
from tests.fixtures import tiny_data_config, write_tiny_corpus
from tests.training.doubles import tiny_config

DENSE = {"selection": "dense"}
ALL = {"selection": "all", "num_experts": 1, "granularity": 8}


def config_of(tmp_path, data, routing):
    config = tiny_config(tmp_path, steps=8, batch_size=8, eval_every=0)
    model = ModelConfig(layers=2, heads=2, width=16, context=16, dropout=0.1)
    return dataclasses.replace(config, data=data, model=model, routing=from_plain(Routing, routing))


@pytest.fixture(scope="module")
def folders(tmp_path_factory, data):
    """A dense run, one with every expert on, and one of top-1 routing."""
    configs = [config_of(tmp_path_factory.mktemp("runs"), data, routing) for routing in (DENSE, ALL, {})]
    for config in configs:
        execute(config)
    return [RunFolder.of(config) for config in configs]


def check_curve(points, folder, trained):
    experts, flops = ([point[name] for point in points] for name in ("experts_per_token", "flops_per_token"))
    assert experts == sorted(experts)
    assert experts[0] == 1.0 and experts[-1] == 8.0
    assert flops == sorted(flops) and flops[0] < flops[-1]
    config, result = folder.read_config(), folder.result()
    hidden_flops = 2 * 4 * 16 * 8  # 2 layers, 4 * width * expert size
    for point in points:
        assert flops[-1] - point["flops_per_token"] == pytest.approx((8 - point["experts_per_token"]) * hidden_flops)
        assert point["flops_share"] == pytest.approx(point["flops_per_token"] / flops_per_token(config))
        assert point["perplexity"] == pytest.approx(math.exp(point["loss"]))
    assert points[-1]["loss"] == pytest.approx(result["validation_loss"], rel=1e-6)
    assert trained == pytest.approx(result["validation_loss"], rel=1e-6)
    assert points[0]["loss"] != points[-1]["loss"]


@pytest.mark.long
def test_a_dense_run_is_split_and_compared_with_a_random_split(folders, capsys):
    folder = folders[0]
    assert main(["sparsify", str(folder.path), "--control", "random", "--thresholds", "1,0.1,0.5,0.9"]) == 0
    report = json.loads(folder.sparsify_file.read_text())
    by_split = {name: [p for p in report["points"] if p["split"] == name] for name in ("clusters", "random")}
    for points in by_split.values():
        assert [point["threshold"] for point in points] == [0.1, 0.5, 0.9, 1.0]
        check_curve(points, folder, report["trained_loss"])
        router = 2 * 2 * 16 * 8
        assert points[-1]["flops_per_token"] == report["trained_flops_per_token"] + router
    assert by_split["clusters"][0]["loss"] != by_split["random"][0]["loss"]
    out = capsys.readouterr().out
    assert "as trained" in out and "100.0%" in out and str(folder.sparsify_file) in out


def test_a_run_with_every_expert_on_is_lowered_as_it_was_trained(folders, tmp_path):
    folder, out = folders[1], tmp_path / "curve.csv"
    assert main(["sparsify", folder.key, "--runs-dir", str(folder.path.parent), "--out", str(out)]) == 0
    points = pd.read_csv(out).to_dict("records")
    assert [point["threshold"] for point in points] == [0.1, 0.25, 0.5, 0.75, 0.9, 1.0]
    assert {point["key"] for point in points} == {folder.key}
    check_curve(points, folder, folder.result()["validation_loss"])
    assert not folder.sparsify_file.exists()
    assert points[-1]["flops_share"] == 1.0


@pytest.mark.parametrize(
    ("run", "options", "words"),
    [
        (0, ["--experts", "7"], "divide the 64 hidden units"),
        (0, ["--experts", "1"], "at least 2"),
        (0, ["--thresholds", "0.5,1.5"], "must lie in [0, 1]"),
        (0, ["--thresholds", "half"], "numbers with commas"),
        (0, ["--thresholds", "nan"], "must lie in [0, 1]"),
        (0, ["--out", "curve.txt"], ".json or .csv"),
        (1, ["--experts", "4"], "trained as experts already"),
        (2, [], "not routing.selection=top_k"),
    ],
)
def test_what_cannot_be_evaluated_is_one_sentence(folders, capsys, run, options, words):
    assert main(["sparsify", str(folders[run].path), *options]) == 1
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1 and "Traceback" not in error


def test_a_run_without_checkpoint_or_folder_is_one_sentence(tmp_path, data, capsys):
    config = config_of(tmp_path, data, DENSE)
    folder = RunFolder.of(config)
    with folder.claim(config):
        folder.start(8)
    for path, words in ((folder.path, "no checkpoint"), (tmp_path / "nothing", "is not a run's folder")):
        assert main(["sparsify", str(path)]) == 1
        error = capsys.readouterr().err
        assert words in error and error.count("\n") == 1


def test_a_run_whose_data_changed_since_is_one_sentence(tmp_path, capsys):
    """Another tokenizer gives its ids another meaning: the same weights would be judged on other tokens."""
    data = tiny_data_config(tmp_path)
    prepare(data, progress=False)
    config = config_of(tmp_path, data, DENSE)
    execute(config)
    write_tiny_corpus(tmp_path / "texts", documents=50)
    prepare(data, progress=False)
    assert main(["sparsify", str(RunFolder.of(config).path)]) == 1
    assert "the prepared data changed" in capsys.readouterr().err
