"""`moe-study specialise` as it is typed, on runs that were trained for a moment and the user's own labelled files."""

import dataclasses
import shutil
from pathlib import Path

import pandas as pd
import pytest

from moe_study.cli import main
from moe_study.data import prepare
from moe_study.design.config import LogConfig, ModelConfig, RunConfig, RunSettings
from moe_study.design.plain import from_plain
from moe_study.design.routing import Routing
from moe_study.launch.execute import execute
from moe_study.runs.folder import RunFolder
from moe_study.runs.members import Launch, record_launch
from tests.fixtures import tiny_data_config, tiny_digits, tiny_texts
from tests.training.doubles import tiny_config

ROUTINGS = {
    "token": {"k": 2},
    "leaking": {"unit": "sequence", "context": "unit_mean", "k": 1},
    "dense": {"selection": "dense"},
}
SEEDS = {"token": (0, 1), "leaking": (0,), "dense": (0,)}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Runs of two seeds, of one leaking seed, and a dense one, in one folder."""
    runs_dir = tmp_path_factory.mktemp("runs")
    data = tiny_data_config(tmp_path_factory.mktemp("data"))
    prepare(data, progress=False)
    base = dataclasses.replace(
        tiny_config(runs_dir, steps=4, batch_size=4, eval_every=0),
        data=data,
        model=ModelConfig(layers=2, heads=2, width=16, context=16),
    )
    for name, seeds in SEEDS.items():
        for seed in seeds:
            execute(
                dataclasses.replace(
                    base,
                    routing=from_plain(Routing, ROUTINGS[name]),
                    run=dataclasses.replace(base.run, seed=seed),
                )
            )
    return Path(base.log.runs_dir)


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """Two languages by two topics, eight files each."""
    folder = tmp_path_factory.mktemp("probe")
    for language in ("de", "en"):
        for topic in ("news", "parliament"):
            place = folder / language / topic
            place.mkdir(parents=True)
            for n, text in enumerate(tiny_texts(language, topic, 8, seed=7)):
                (place / f"{n}.txt").write_text(text[:90], encoding="utf-8")
    return folder


@pytest.fixture
def runs(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "runs")


@pytest.fixture
def specialise(texts, tmp_path, capsys):
    """Runs the command: exit code, what was printed, what was complained about."""

    def command(runs_dir, *arguments, probe="local_files"):
        places = ["--path", str(texts), "--data-root", str(tmp_path / "data"), "--out", str(tmp_path / "out")]
        small = ["--permutations", "19", "--jobs", "1"]
        code = main(["specialise", str(runs_dir), "--probe", probe, *places, *small, *arguments])
        return code, *capsys.readouterr()

    return command


def test_runs_are_traced_measured_over_seeds_and_written(runs, specialise, tmp_path):
    code, out, _ = specialise(runs)
    assert code == 0
    lines = out.splitlines()
    assert lines[0].startswith("4 runs, 4 finished") and [line[:5] for line in lines[1:5]] == [
        f"[{n}/4]" for n in range(1, 5)
    ]
    assert lines.count("dense 1x: no experts, so there is nothing that they could follow") == 1
    place = lines.index("Do experts follow topic beyond token id?")
    answers = {line.strip().partition(":")[0]: line for line in lines[place + 1 : place + 3]}
    assert answers["token top-2"].endswith("(2 seeds)")
    (leaking,) = [line for name, line in answers.items() if name.endswith(" †")]
    assert leaking.endswith("(one seed: described, not tested)")
    table = pd.read_csv(tmp_path / "out" / "specialisation.csv", keep_default_na=False)
    assert set(table["layer"]) == {0, 1} and set(table["label"]) == {"language", "topic", "position", "token id"}
    assert dict(zip(table["point"], table["seeds"], strict=True))["token top-2"] == 2
    assert "Do experts follow topic?" in (tmp_path / "out" / "specialisation.md").read_text(encoding="utf-8")


def test_traces_are_kept_and_used_again_even_without_the_checkpoint(runs, specialise):
    first = specialise(runs)[1]
    manifests = {path: path.stat().st_mtime_ns for path in runs.rglob("traces/*/manifest.json")}
    assert len(manifests) == 4
    for path in runs.rglob("checkpoint"):
        shutil.rmtree(path)
    code, again, _ = specialise(runs)
    assert code == 0 and answers_of(again) == answers_of(first)
    assert {path: path.stat().st_mtime_ns for path in runs.rglob("traces/*/manifest.json")} == manifests


def answers_of(out):
    return [line for line in out.splitlines() if line.startswith("  ")]


def test_a_run_without_checkpoint_is_named_and_the_others_go_on(runs, specialise):
    (gone,) = [path for path in runs.iterdir() if (path / "result.json").exists() and is_dense(path)]
    shutil.rmtree(gone / "checkpoint")
    code, out, _ = specialise(runs)
    assert code == 0
    (sentence,) = [line for line in out.splitlines() if line.startswith("left out: ")]
    assert gone.name in sentence and "checkpoint" in sentence
    assert len(answers_of(out)) > 0 and "no experts" not in out


def is_dense(path):
    return RunFolder(path).read_config().routing.selection == "dense"


def test_a_sweep_is_its_own_runs_alone(runs, specialise):
    (dense,) = [path.name for path in runs.iterdir() if (path / "config.yaml").exists() and is_dense(path)]
    tokens = [path.name for path in runs.iterdir() if (path / "config.yaml").exists() and is_of_token(path)]
    record_launch(runs, "mine", Launch(runs=(*tokens, "0" * 16)))
    code, out, _ = specialise(runs, "--sweep", "mine")
    assert code == 0 and out.startswith("3 runs, 2 finished") and dense not in out
    assert len(tokens) == 2 and all(f"({key}): measured in" in out for key in tokens)


def is_of_token(path):
    routing = RunFolder(path).read_config().routing
    return routing.selection == "top_k" and routing.unit == "token"


def test_runs_on_images_are_named_and_the_others_go_on(runs, specialise, tmp_path, monkeypatch):
    config = RunConfig(
        task="images",
        model=ModelConfig(layers=1, heads=2, width=16, context=16, patch=7),
        routing=from_plain(Routing, ROUTINGS["dense"]),
        data=tiny_digits(tmp_path / "images", monkeypatch),
        run=RunSettings(steps=1, batch_size=4, eval_tokens=160, eval_batch=4),
        log=LogConfig(runs_dir=str(runs), threads=1, progress=False),
    )
    execute(config)
    code, out, _ = specialise(runs)
    assert code == 0 and out.startswith("5 runs, 5 finished") and len(answers_of(out)) > 0
    (sentence,) = [line for line in out.splitlines() if line.startswith("left out: ")]
    assert config.key in sentence and "was trained on images" in sentence


def test_a_folder_of_which_no_run_can_be_traced_is_one_sentence(runs, specialise):
    for path in runs.rglob("checkpoint"):
        shutil.rmtree(path)
    code, _, err = specialise(runs)
    assert code == 1 and "no run could be measured; the first:" in err and len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--probe", "wiki"], "there is no probe wiki; choose one of wiki_topics"),
        (["--tokens", "0"], "a probe of 0 tokens holds nothing"),
        (["--permutations", "0"], "0 permutations give no null"),
        (["--sweep", "never"], "no sweep never was launched"),
    ],
)
def test_a_wrong_wish_is_one_sentence_before_anything_is_read(trained, specialise, arguments, sentence):
    code, out, err = specialise(trained, *arguments)
    assert code == 1 and sentence in err and out == "" and len(err.splitlines()) == 1


def test_a_folder_without_a_finished_run_is_one_sentence(runs, specialise):
    for path in runs.iterdir():
        if (path / "status.json").exists() and not is_dense(path):
            shutil.rmtree(path)
    (left,) = [path for path in runs.iterdir() if (path / "config.yaml").exists()]
    (left / "status.json").unlink()
    code, _, err = specialise(runs)
    assert code == 1 and "no run is finished yet" in err and len(err.splitlines()) == 1
