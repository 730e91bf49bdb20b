"""Scores of runs: asked once, kept in their folders, asked again when questions or weights are others."""

import dataclasses
import re
import shutil

import numpy as np
import pytest

from moe_study.analysis.frame import load_frame
from moe_study.analysis.scores import score_table
from moe_study.data import fingerprint, prepare
from moe_study.design.config import ModelConfig
from moe_study.design.normal import normalised
from moe_study.design.plain import from_plain
from moe_study.design.routing import Routing
from moe_study.errors import ConfigError, DataError, StudyError
from moe_study.posthoc.lm_eval import harness, items
from moe_study.posthoc.lm_eval.score import ScoreWish, score_runs
from moe_study.runs.folder import RunFolder
from moe_study.runs.scores import all_scores
from tests.analysis.planted import plant_run
from tests.fixtures import tiny_data_config
from tests.posthoc.runs import save_weights
from tests.training.doubles import tiny_config

POINTS = ({"k": 2}, {"selection": "dense"}, {"k": 2, "unit": "sequence", "context": "unit_mean"})
CLOZE = ScoreWish(tasks=("cloze",), items=12)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A mixture, a dense run and one that leaks, with their initial weights as if they were trained."""
    data = tiny_data_config(tmp_path_factory.mktemp("data"))
    prepare(data, progress=False)
    root = tmp_path_factory.mktemp("runs")
    base = tiny_config(root, steps=2, batch_size=4)
    model = ModelConfig(layers=2, heads=2, width=16, context=24, init_std=0.3)
    base = dataclasses.replace(base, data=data, model=model)
    for routing in POINTS:
        config = normalised(dataclasses.replace(base, routing=from_plain(Routing, routing)))
        folder = RunFolder(plant_run(root, config, 4.0, np.random.default_rng(0)))
        save_weights(folder, config)
        folder.add_provenance(data_fingerprint=fingerprint(data))
    return root


@pytest.fixture
def runs(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(items, "CONTEXT_WORDS", 4)  # the texts are short
    monkeypatch.setattr(items, "SHORTEST_WORD", 4)
    return shutil.copytree(trained, tmp_path / "runs")


def score(runs, wish=CLOZE):
    said = []
    return score_runs(load_frame([runs]), wish, said.append), said


def test_scores_are_kept_and_not_asked_again(runs, monkeypatch):
    found, said = score(runs)
    assert len(found.keys) == 2 and len(found.left_out) == 1 and "reads later tokens" in found.left_out[0]
    assert sum("cloze acc" in line for line in said) == 2
    kept = {key: next(all_scores(RunFolder(runs / key))) for key in found.keys}
    assert {len(one.table) for one in kept.values()} == {24} and {one.facts["items"] for one in kept.values()} == {12}
    assert len({tuple(one.table["item"]) for one in kept.values()}) == 1, "all runs get the same questions"
    monkeypatch.setattr(harness, "_answers", lambda *_: pytest.fail("asked again"))
    again, said = score(runs)
    assert again == found and sum("scored before" in line for line in said) == 2


def test_a_leaking_run_is_scored_by_growing_prefixes_and_marked(runs):
    found, _ = score(runs, dataclasses.replace(CLOZE, growing_prefixes=True))
    assert len(found.keys) == 3 and not found.left_out
    table = score_table(load_frame([runs]), "dense 1x")
    passes = dict(zip(table["label"], table["passes"], strict=True))
    assert sorted(passes.values()) == ["", "", "growing prefixes"]
    assert table.set_index("label")["leaks"].to_dict() == {label: bool(words) for label, words in passes.items()}


def test_other_questions_and_other_weights_are_asked_anew(runs):
    found, _ = score(runs)
    more, _ = score(runs, dataclasses.replace(CLOZE, items=15))
    folder = RunFolder(runs / found.keys[0])
    assert more.keys == found.keys and [one.facts["items"] for one in all_scores(folder)] in ([12, 15], [15, 12])
    config = folder.read_config()
    save_weights(folder, dataclasses.replace(config, run=dataclasses.replace(config.run, seed=7)))
    _, said = score(runs)
    assert sum("scored before" in line for line in said) == 1
    assert len(list(all_scores(folder))) == 2, "the score of the new weights has taken the old one's place"


def test_scores_go_when_a_run_is_trained_anew(runs):
    found, _ = score(runs)
    folder = RunFolder(runs / found.keys[0])
    folder.forget_training()
    assert not list(all_scores(folder))


def test_a_corpus_that_is_gone_leaves_its_task_out(runs, trained):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("moe_study.posthoc.lm_eval.score.training_corpus", lambda folder: None)
        found, _ = score(runs)
    assert not found.keys and re.search(r"trained on is not in .*leave the task out of --tasks", found.left_out[0])


def test_a_label_is_told_to_routers_by_label_and_to_nobody_else(runs, trained):
    with pytest.raises(ConfigError, match="none of these runs is routed by label"):
        score(runs, dataclasses.replace(CLOZE, label="en"))
    plain = RunFolder(next(iter(load_frame([runs]).query("`routing.context` == 'own'")["folder"]))).read_config()
    routing = from_plain(Routing, {"k": 1, "unit": "sequence", "router": "label", "context": "label"})
    config = normalised(dataclasses.replace(plain, routing=routing))
    folder = RunFolder(plant_run(runs, config, 4.0, np.random.default_rng(0)))
    save_weights(folder, config)
    folder.add_provenance(data_fingerprint=fingerprint(config.data))
    found, _ = score(runs, dataclasses.replace(CLOZE, label="en"))
    labels = {key: next(all_scores(RunFolder(runs / key))).facts["label"] for key in found.keys}
    assert len(labels) == 3 and {key for key, label in labels.items() if label == "en"} == {folder.key}


def test_a_source_that_cannot_be_had_is_asked_for_once(runs, monkeypatch):
    calls = []

    def unreachable(languages, root, items):
        calls.append(root)
        raise DataError("no network")

    monkeypatch.setattr("moe_study.posthoc.lm_eval.score.topic_items", unreachable)
    found, _ = score(runs, dataclasses.replace(CLOZE, tasks=("topic",)))
    assert not found.keys and [line.rpartition(": ")[2] for line in found.left_out] == ["no network"] * 3
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        (ScoreWish(tasks=()), "name at least one task"),
        (ScoreWish(tasks=("",)), "name at least one task"),
        (ScoreWish(items=0), "asks nothing"),
    ],
)
def test_a_wish_that_no_run_could_meet_is_refused(wish, said):
    with pytest.raises(ConfigError, match=said):
        wish.check()


def test_without_the_harness_there_is_one_sentence(monkeypatch):
    def missing(name):
        raise harness.importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(harness.importlib.metadata, "version", missing)
    with pytest.raises(StudyError, match=r"pip install 'moe-study\[score\]'"):
        ScoreWish().check()
