"""`moe-study knockout` as it is typed, on runs that were trained for a moment and the user's own labelled files."""

import dataclasses
import shutil
from pathlib import Path

import pandas as pd
import pytest

from moe_study.cli import main
from moe_study.data import prepare
from moe_study.design.config import ModelConfig
from moe_study.design.plain import from_plain
from moe_study.design.routing import Routing
from moe_study.launch.execute import execute
from moe_study.runs.findings import all_findings
from moe_study.runs.folder import RunFolder
from tests.fixtures import tiny_data_config, tiny_texts
from tests.training.doubles import tiny_config

RUNS = (({"k": 2, "num_experts": 3}, 0), ({"k": 2, "num_experts": 3}, 1), ({"selection": "dense"}, 0))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Two seeds of one point and a dense run, in one folder."""
    runs_dir = tmp_path_factory.mktemp("runs")
    data = tiny_data_config(tmp_path_factory.mktemp("data"))
    prepare(data, progress=False)
    base = tiny_config(runs_dir, steps=3, batch_size=4, eval_every=0)
    base = dataclasses.replace(base, data=data, model=ModelConfig(layers=2, heads=2, width=16, context=16))
    for routing, seed in RUNS:
        settings = dataclasses.replace(base.run, seed=seed)
        execute(dataclasses.replace(base, routing=from_plain(Routing, routing), run=settings))
    return Path(base.log.runs_dir)


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """Two languages by two topics, four files each."""
    folder = tmp_path_factory.mktemp("probe")
    for language in ("de", "en"):
        for topic in ("news", "parliament"):
            place = folder / language / topic
            place.mkdir(parents=True)
            for n, text in enumerate(tiny_texts(language, topic, 4, seed=7)):
                (place / f"{n}.txt").write_text(text[:60], encoding="utf-8")
    return folder


@pytest.fixture
def runs(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "runs")


@pytest.fixture
def knockout(texts, tmp_path, capsys):
    """Runs the command: exit code, what was printed, what was complained about."""

    def command(runs_dir, *arguments, probe="local_files"):
        places = ["--path", str(texts), "--data-root", str(tmp_path / "data"), "--out", str(tmp_path / "out")]
        code = main(["knockout", str(runs_dir), "--probe", probe, *places, "--draws", "1", *arguments])
        return code, *capsys.readouterr()

    return command


@pytest.mark.long
def test_runs_are_knocked_out_over_seeds_and_what_was_found_is_kept(runs, knockout, tmp_path):
    code, out, _ = knockout(runs, "--kinds", "remove,random_routes")
    assert code == 0
    lines = out.splitlines()
    assert lines[0].startswith("3 runs, 3 finished")
    (sentence,) = [line for line in lines if line.startswith("left out: ")]
    assert "a dense run has no experts, so nothing can be taken away from it" in sentence
    (broken,) = [line for line in lines if line.startswith("  token top-2, layer 1: an expert removed ")]
    assert ", random routes " in broken and "swapped" not in broken
    place = lines.index("Which expert is needed for which language?")
    assert lines[place + 1].startswith("  token top-2: that one language loses more is ")
    assert lines[place + 1].endswith("(2 seeds)") and lines[place + 2].startswith("    seed")
    assert "Which expert is needed for which topic?" in lines
    table = pd.read_csv(tmp_path / "out" / "knockout_runs.csv", keep_default_na=False)
    assert set(table["domain"]) == {"", "de", "en", "news", "parliament"} and set(table["seed"]) == {0, 1}
    assert len(pd.read_csv(tmp_path / "out" / "knockout.csv")) == 2 * 2
    assert "Which expert" in (tmp_path / "out" / "knockout.md").read_text(encoding="utf-8")
    kept = [finding for path in runs.iterdir() for finding in all_findings(RunFolder(path).findings_folder, "knockout")]
    assert len(kept) == 2
    for path in runs.rglob("checkpoint"):
        shutil.rmtree(path)
    assert answers(knockout(runs, "--kinds", "remove,random_routes")[1]) == answers(out)  # needs the models no more
    code, _, err = knockout(runs, "--kinds", "swap")
    assert code == 1 and "no run could be knocked out; the first:" in err and "checkpoint" in err


def answers(out):
    return [line for line in out.splitlines() if line.startswith("  ")]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--probe", "wiki"], "there is no probe wiki; choose one of wiki_topics"),
        (["--tokens", "0"], "a probe of 0 tokens holds nothing"),
        (["--draws", "0"], "0 draws give no null; take at least 1"),
        (["--kinds", "remove,kill"], "--kinds: there is no kill; choose of remove, reroute, swap"),
        (["--layers", "0,x"], "--layers 0,x must be numbers from 0 with commas between them, such as 0,1"),
        (["--layers", "-1"], "--layers -1 must be numbers from 0"),
        (["--sweep", "never"], "no sweep never was launched"),
    ],
)
def test_a_wrong_wish_is_one_sentence_before_anything_is_read(trained, knockout, arguments, sentence):
    code, out, err = knockout(trained, *arguments)
    assert code == 1 and sentence in err and out == "" and len(err.splitlines()) == 1


def test_a_layer_that_no_run_has_is_one_sentence(runs, knockout):
    code, _, err = knockout(runs, "--layers", "7", "--kinds", "remove")
    assert code == 1 and "layer 7 decides nothing here; choose of 0, 1" in err and len(err.splitlines()) == 1


def test_dense_runs_alone_are_one_sentence(runs, knockout):
    for path in runs.iterdir():
        if (path / "config.yaml").exists() and RunFolder(path).read_config().routing.selection != "dense":
            shutil.rmtree(path)
    code, _, err = knockout(runs)
    assert code == 1 and len(err.splitlines()) == 1
    assert "no run could be knocked out; the first: dense 1x: a dense run has no experts" in err


# Lazy experts ---------------------------------------------------------------------------------------------------------


def test_lazy_experts_are_counted_over_seeds_and_kept(runs, tmp_path, capsys):
    arguments = ["knockout", str(runs), "--lazy", "--tokens", "64", "--draws", "1", "--out", str(tmp_path / "out")]
    assert main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("3 runs, 3 finished") and sum(": asked in " in line for line in lines) == 2
    (row,) = [line for line in lines if line.startswith("token top-2  ")]
    assert " of 6 " in row  # three experts in each of two layers
    assert sum("lazy (under 0.1 of an even share" in line for line in lines) == 1
    experts = pd.read_csv(tmp_path / "out" / "lazy_experts.csv")
    assert experts.groupby(["seed", "layer"])["share"].sum().tolist() == pytest.approx([1.0] * 4)
    assert (tmp_path / "out" / "lazy.md").exists() and (tmp_path / "out" / "lazy_drops.csv").exists()
    kept = [finding for path in runs.glob("*/findings") for finding in all_findings(path, "lazy_drops")]
    assert [finding.facts["tokens"] for finding in kept] == [64, 64]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--lazy", "--probe", "brown"], "--lazy asks all layers, on the runs' own validation text; leave out --probe"),
        (["--lazy", "--kinds", "remove"], "leave out --kinds"),
        (["--lazy", "2"], "--lazy 2: an expert is lazy below a part of an even share, which lies between 0 and 1"),
        (["--lazy", "--tokens", "0"], "--tokens 0 measures nothing; take at least 1"),
    ],
)
def test_what_lazy_experts_cannot_be_asked_is_one_sentence(trained, capsys, arguments, sentence):
    assert main(["knockout", str(trained), *arguments]) != 0
    assert sentence in capsys.readouterr().err
