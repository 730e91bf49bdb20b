"""A dense run and its export, asked by the same harness: by our class, and by the harness's own Hugging Face loader."""

import dataclasses
import json

import numpy as np
import pytest

from moe_study.data import fingerprint, open_corpus, prepare
from moe_study.data.run_tokenizer import keep_tokenizer
from moe_study.design.config import ModelConfig, TokenizerConfig
from moe_study.design.normal import normalised
from moe_study.design.routing import Routing, Selection
from moe_study.posthoc.export import export_run
from moe_study.posthoc.lm_eval.harness import ask, local_task
from moe_study.posthoc.lm_eval.model import StudyLM
from moe_study.runs.folder import RunFolder
from tests.analysis.planted import plant_run
from tests.fixtures import tiny_data_config, tiny_texts
from tests.posthoc.lm_eval.test_harness import own_task
from tests.posthoc.runs import save_weights
from tests.training.doubles import tiny_config

pytestmark = pytest.mark.long  # transformers alone takes seconds to be imported


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A dense run with a trained tokenizer and large initial weights."""
    root, tokenizer = tmp_path_factory.mktemp("data"), TokenizerConfig("bpe", 320)
    data = tiny_data_config(root, tokenizer=tokenizer)
    prepare(data, progress=False)
    base = tiny_config(root / "runs", steps=2, batch_size=4)
    model = ModelConfig(layers=2, heads=2, width=16, context=32, init_std=0.5)
    routing = Routing(selection=Selection.DENSE)
    config = normalised(dataclasses.replace(base, data=data, model=model, routing=routing))
    folder = RunFolder(plant_run(root / "runs", config, 4.0, np.random.default_rng(0)))
    save_weights(folder, config)
    folder.add_provenance(data_fingerprint=fingerprint(data))
    keep_tokenizer(open_corpus(data), folder)
    return folder


@pytest.fixture(scope="module")
def models(folder, tmp_path_factory):
    from lm_eval.models.huggingface import HFLM

    out = export_run(folder, tmp_path_factory.mktemp("exported") / "run").folder
    settings = {"device": "cpu", "dtype": "float32", "batch_size": 4}
    return StudyLM(folder), HFLM(pretrained=str(out), tokenizer=str(out), **settings)


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    """Choices, whole texts beyond the context, and text to be generated."""
    place = tmp_path_factory.mktemp("tasks")
    texts = tiny_texts("en", "news", 12, seed=3)
    choices = [text.split()[-3:] for text in tiny_texts("de", "news", 12, seed=4)]
    questions = [
        {"id": str(n), "context": text[: 40 + 20 * n], "choices": own, "answer": 0}
        for n, (text, own) in enumerate(zip(texts, choices, strict=True))
    ]
    (place / "cloze-0.jsonl").write_text("".join(json.dumps(question) + "\n" for question in questions))
    rolling = {"output_type": "loglikelihood_rolling", "doc_to_text": "", "doc_to_target": "{{text}}"}
    rolling["metric_list"] = [{"metric": "byte_perplexity"}]
    asked = {"output_type": "generate_until", "doc_to_text": "{{text}}", "doc_to_target": "x"}
    asked |= {"generation_kwargs": {"until": [","], "max_gen_toks": 6}, "metric_list": [{"metric": "exact_match"}]}
    rows = [{"id": str(n), "text": text} for n, text in enumerate(texts)]
    short = [{"id": row["id"], "text": row["text"][:30]} for row in rows]
    return [
        local_task("cloze", place / "cloze-0.jsonl"),
        own_task(place, "rolling", rows, **rolling),
        own_task(place, "generate", short, **asked),
    ]


def test_scores_of_a_dense_export_are_those_of_the_run(models, tasks):
    ours, theirs = ([answers for _, answers in ask(model, tasks)] for model in models)
    for own, other in zip(ours, theirs, strict=True):
        assert own.facts == {**other.facts, "metrics": own.facts["metrics"]}
        for name, found in own.facts["metrics"].items():
            assert found["value"] == pytest.approx(other.facts["metrics"][name]["value"], rel=1e-5)
        np.testing.assert_allclose(own.table["value"], other.table["value"], rtol=1e-5)
        assert list(own.table["item"]) == list(other.table["item"])


def test_answers_of_both_are_the_same_one_by_one(models, tasks):
    """Accuracies could agree by luck: log-likelihoods and generated texts, request by request."""
    for one in tasks:
        one.task.build_all_requests(rank=0, world_size=1)
        kind = one.task.instances[0].request_type
        ours, theirs = (getattr(model, kind)(one.task.instances) for model in models)
        if kind == "generate_until":
            assert ours == theirs and len(set(ours)) > 3
        elif kind == "loglikelihood":
            assert [a[0] for a in ours] == pytest.approx([b[0] for b in theirs], abs=1e-4)
            assert [a[1] for a in ours] == [b[1] for b in theirs]
        else:
            assert ours == pytest.approx(theirs, abs=1e-3)
