"""`moe-study specialise` as it is typed, on runs that were trained for a moment and the user's own labelled files."""

import contextlib
import dataclasses
import io
import shutil
from pathlib import Path

import pandas as pd
import pytest

from moe_study.cli import main
from moe_study.data import prepare
from moe_study.data.probes import wiki_topics
from moe_study.design.config import LogConfig, ModelConfig, RunConfig, RunSettings
from moe_study.design.plain import from_plain
from moe_study.design.routing import Routing
from moe_study.errors import DataError
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
ON_FILES = ["--probe", "local_files", "--permutations", "19", "--jobs", "1"]
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


@pytest.fixture(scope="module")
def answered(trained, texts, tmp_path_factory):
    """The folder of runs after the command, what it printed, and where it wrote."""
    folder = tmp_path_factory.mktemp("answered")
    runs_dir, printed = shutil.copytree(trained, folder / "runs"), io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert main(["specialise", str(runs_dir), *ON_FILES, *places_in(folder, texts)]) == 0
    return runs_dir, printed.getvalue(), folder / "out"


def places_in(folder, texts):
    return ["--path", str(texts), "--data-root", str(folder / "data"), "--out", str(folder / "out")]


@pytest.fixture
def untouched(trained, tmp_path):
    """Runs that nothing is known of yet."""
    return shutil.copytree(trained, tmp_path / "runs")


@pytest.fixture
def runs(answered, tmp_path):
    """Runs that were measured before."""
    return shutil.copytree(answered[0], tmp_path / "runs")


@pytest.fixture
def specialise(texts, tmp_path, capsys):
    """Runs the command: exit code, what was printed, what was complained about."""

    def command(runs_dir, *arguments):
        code = main(["specialise", str(runs_dir), *ON_FILES, *places_in(tmp_path, texts), *arguments])
        return code, *capsys.readouterr()

    return command


def test_runs_are_traced_measured_over_seeds_and_written(answered):
    _, out, folder = answered
    lines = out.splitlines()
    assert lines[0].startswith("4 runs, 4 finished")
    assert [line[:5] for line in lines[1:5]] == [f"[{n}/4]" for n in range(1, 5)]
    assert lines.count("dense 1x: no experts, so there is nothing that they could follow") == 1
    for heading in ("What is left of what experts know", "Where do tokens go as a router by label", "How even is"):
        (place,) = [number for number, line in enumerate(lines) if line.startswith(heading)]
        names = [line.strip().partition(":")[0] for line in lines[place + 1 : place + 3]]
        assert sorted(name.endswith(" †") for name in names) == [False, True] and "token top-2" in names
    table = pd.read_csv(folder / "specialisation.csv", keep_default_na=False)
    assert set(table["layer"]) == {0, 1} and set(table["label"]) == {"language", "topic", "position", "token id"}
    assert dict(zip(table["point"], table["seeds"], strict=True))["token top-2"] == 2
    load = pd.read_csv(folder / "by_run" / "load.csv")
    assert sorted(load["seed"]) == [0, 0, 0, 0, 1, 1] and set(load["experts"]) == {4}
    text = (folder / "specialisation.md").read_text(encoding="utf-8")
    assert "Do experts follow topic beyond token id?" in text and "## Agreement with a router by label" in text
    assert lines[-1].endswith("/out: specialisation.md, and 17 tables")


def test_findings_are_used_again_without_traces_and_checkpoints(answered, runs, specialise, monkeypatch):
    for path in (*runs.rglob("traces"), *runs.rglob("checkpoint")):
        shutil.rmtree(path)
    code, out, _ = specialise(runs)
    assert code == 0 and "4 of 4 runs were measured before; what was found is in their folders" in out.splitlines()
    assert answers_of(out) == answers_of(answered[1]) and not list(runs.rglob("traces/*"))


def test_traces_are_used_again_for_other_permutations(runs, specialise):
    manifests = {path: path.stat().st_mtime_ns for path in runs.rglob("traces/*/manifest.json")}
    assert len(manifests) == 4
    found = {path: path.stat().st_mtime_ns for path in runs.rglob("findings/*/load.parquet")}
    code, _, _ = specialise(runs, "--permutations", "9", "--brief", "--tokens", "200000")
    changed = [path for path, time in found.items() if path.stat().st_mtime_ns != time]
    assert code == 0 and len(changed) == 3  # all but the run without experts
    assert {path: path.stat().st_mtime_ns for path in runs.rglob("traces/*/manifest.json")} == manifests


def test_only_runs_that_are_not_measured_are(runs, specialise):
    (dense,) = [path for path in runs.iterdir() if (path / "result.json").exists() and is_dense(path)]
    shutil.rmtree(dense / "findings")
    code, out, _ = specialise(runs)
    assert code == 0 and "3 of 4 runs were measured before; what was found is in their folders" in out.splitlines()
    (line,) = [line for line in out.splitlines() if ": measured in " in line]
    assert line.startswith("[1/1] dense 1x, seed 0") and dense.name in line


def answers_of(out):
    return [line for line in out.splitlines() if line.startswith("  ")]


def test_a_run_without_checkpoint_is_named_and_the_others_go_on(runs, specialise):
    (gone,) = [path for path in runs.iterdir() if (path / "result.json").exists() and is_dense(path)]
    for name in ("checkpoint", "traces", "findings"):
        shutil.rmtree(gone / name)
    code, out, _ = specialise(runs)
    assert code == 0
    (sentence,) = [line for line in out.splitlines() if line.startswith("left out: ")]
    assert gone.name in sentence and "checkpoint" in sentence
    assert len(answers_of(out)) > 0 and "no experts" not in out


def is_dense(path):
    return RunFolder(path).read_config().routing.selection == "dense"


def test_a_first_look_is_brief_and_leaves_runs_without_experts_alone(untouched, specialise):
    code, out, err = specialise(untouched, "--brief")
    lines = out.splitlines()
    assert code == 0 and len(lines) == 6 and err == ""
    assert lines[0].startswith("What do experts attend to? ")
    names = [line.partition(":")[0].strip() for line in sorted(lines[1:3])]
    assert names == ["sequence top-1 † (1 seed)", "token top-2 (2 seeds)"]
    assert all(" of its language in layer " in line and " of its topic in layer " in line for line in lines[1:3])
    assert lines[-1] == "More: moe-study specialise"
    assert len(list(untouched.rglob("traces/*/manifest.json"))) == 3
    names = {path.stem for path in untouched.rglob("findings/*/*.parquet")}
    assert names == {"information", "shares", "load", "co_activation"}


def test_a_first_look_without_the_probe_is_one_sentence_after_one_attempt(untouched, tmp_path, monkeypatch, capsys):
    attempts = []

    def offline(*_, **__):
        attempts.append(1)
        raise DataError("could not download it; check the network")

    monkeypatch.setattr(wiki_topics, "fetch_pinned", offline)
    arguments = ["specialise", str(untouched), "--data-root", str(tmp_path / "data"), "--jobs", "1"]
    assert main([*arguments, "--brief"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("What do experts attend to? Not measured: ") and "check the network" in line
    assert len(attempts) == 1
    assert main(arguments) == 1
    assert "no run could be measured; the first:" in capsys.readouterr().err and len(attempts) == 2


@pytest.mark.long
def test_processes_side_by_side_find_what_one_finds(answered, untouched, specialise):
    code, out, _ = specialise(untouched, "--jobs", "2")
    assert code == 0 and answers_of(out) == answers_of(answered[1])
    assert sorted(line[:5] for line in out.splitlines() if line.startswith("[")) == [f"[{n}/4]" for n in range(1, 5)]


def test_a_sweep_is_its_own_runs_alone(runs, specialise):
    (dense,) = [path.name for path in runs.iterdir() if (path / "config.yaml").exists() and is_dense(path)]
    tokens = [path.name for path in runs.iterdir() if (path / "config.yaml").exists() and is_of_token(path)]
    record_launch(runs, "mine", Launch(runs=(*tokens, "0" * 16)))
    code, out, _ = specialise(runs, "--sweep", "mine")
    assert code == 0 and out.startswith("3 runs, 2 finished") and dense not in out
    assert len(tokens) == 2 and "2 of 2 runs were measured before" in out


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


def test_a_folder_of_which_no_run_can_be_traced_is_one_sentence(untouched, specialise):
    for path in untouched.rglob("checkpoint"):
        shutil.rmtree(path)
    code, _, err = specialise(untouched)
    assert code == 1 and "no run could be measured; the first:" in err and len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--probe", "wiki"], "there is no probe wiki; choose one of wiki_topics"),
        (["--tokens", "0"], "a probe of 0 tokens holds nothing"),
        (["--permutations", "0"], "0 permutations give no null"),
        (["--jobs", "0"], "--jobs 0 measures nothing"),
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
