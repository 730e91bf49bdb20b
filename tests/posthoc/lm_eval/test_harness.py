"""The harness's own arithmetic on models of which it is known what they answer, and our reading of it."""

import json
import math
import os
import subprocess
import sys

import pytest
import torch
from lm_eval.api.model import LM
from lm_eval.tasks import TaskManager

from moe_study.design.config import TokenizerConfig
from moe_study.design.routing import Routing
from moe_study.errors import ConfigError, StudyError
from moe_study.posthoc.lm_eval import harness
from moe_study.posthoc.lm_eval.harness import LOCAL, Asked, ask, harness_tasks, local_task
from moe_study.posthoc.lm_eval.model import StudyLM
from tests.posthoc.runs import untrained_run

QUESTIONS = [
    {"id": f"q{n}", "context": f"context {n}", "choices": ["aa", "bb", "cc", "dd"][: 2 + n % 3], "answer": n % 2}
    for n in range(12)
]
CHANCE = (1 / 2 + 1 / 3 + 1 / 4) / 3


class Knows(LM):
    """Gives the right choice the higher probability, but for the questions in `wrong`."""

    def __init__(self, wrong=()):
        super().__init__()
        self.answer = {q["context"]: (q["choices"][q["answer"]], q["id"] not in wrong) for q in QUESTIONS}

    def loglikelihood(self, requests):
        return [(self._of(*request.args), False) for request in requests]

    def _of(self, context, continuation):
        if context not in self.answer:
            return -5.0
        right, known = self.answer[context]
        return -1.0 if (continuation.strip() == right) == known else -2.0

    def loglikelihood_rolling(self, requests):
        raise AssertionError

    def generate_until(self, requests):
        raise AssertionError


@pytest.fixture(scope="module", params=LOCAL)
def asked(request, tmp_path_factory):
    questions = tmp_path_factory.mktemp("tasks") / f"{request.param}-0.jsonl"
    questions.write_text("".join(json.dumps(question) + "\n" for question in QUESTIONS))
    return local_task(request.param, questions)


@pytest.mark.parametrize("wrong", [(), ("q1", "q2", "q7")])
def test_a_model_that_knows_the_answers_has_their_share_as_accuracy(asked, wrong):
    ((one, (table, facts)),) = ask(Knows(wrong), [asked])
    share = 1 - len(wrong) / 12
    assert one is asked and facts["items"] == 12 and facts["chance"] == pytest.approx(CHANCE)
    assert facts["harness"] == harness.harness_version() and facts["task"] == asked.name
    assert set(facts["metrics"]) == {"acc", "acc_mutual_info"}
    for metric, found in facts["metrics"].items():
        own = table[table["metric"] == metric].set_index("item")["value"]
        assert found["value"] == pytest.approx(share) == pytest.approx(own.mean())
        assert found["stderr"] == pytest.approx(math.sqrt(share * (1 - share) / 11))
        assert found["is_mean"] is True and found["higher_is_better"] is True
        assert {item for item, value in own.items() if not value} == set(wrong)


def test_a_model_can_be_asked_twice_in_a_row(asked):
    first, again = ([answers.facts for _, answers in ask(Knows(("q3",)), [asked])] for _ in range(2))
    assert first == again


@pytest.fixture(scope="module")
def uniform(tmp_path_factory):
    """A byte-level run whose every token is as probable as any other."""
    folder = untrained_run(tmp_path_factory.mktemp("runs"), Routing(k=2), tokenizer=TokenizerConfig("bytes", None))
    model = StudyLM(folder)
    with torch.no_grad():
        for parameter in model.reader.tracer.model.parameters():
            parameter.zero_()
    return model


def own_task(folder, name, rows, **settings):
    """A task of a user's own."""
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = {"data_files": {"test": str(path)}, "cache_dir": str(folder / "arrow")}
    spec = {"task": name, "dataset_path": "json", "dataset_kwargs": data, "test_split": "test", **settings}
    (task,) = TaskManager(include_defaults=False).load([spec])["tasks"].values()
    return Asked(name, task, name, None)


def test_perplexities_of_a_uniform_model_are_those_of_the_vocabulary(uniform, tmp_path):
    texts = [{"text": "one two three"}, {"text": "a text that is longer than the context of the model"}]
    metrics = [{"metric": name} for name in ("word_perplexity", "byte_perplexity", "bits_per_byte")]
    rolling = {"output_type": "loglikelihood_rolling", "doc_to_text": "", "doc_to_target": "{{text}}"}
    ((_, (table, facts)),) = ask(uniform, [own_task(tmp_path, "rolling", texts, **rolling, metric_list=metrics)])
    found = {name: own["value"] for name, own in facts["metrics"].items()}
    letters = sum(len(row["text"]) for row in texts)
    words = sum(len(row["text"].split()) for row in texts)
    assert found["byte_perplexity"] == pytest.approx(257)
    assert found["bits_per_byte"] == pytest.approx(math.log2(257))
    assert found["word_perplexity"] == pytest.approx(257 ** (letters / words))
    assert facts["chance"] is None and not any(own["is_mean"] for own in facts["metrics"].values())
    own = table[table["metric"] == "byte_perplexity"]
    assert list(own["value"]) == pytest.approx([-len(row["text"]) * math.log(257) for row in texts])
    assert list(own["weight"]) == [len(row["text"]) for row in texts]


def test_generated_text_is_judged_and_questions_that_are_the_same_are_told_apart(uniform, tmp_path):
    rows = [{"question": "say", "answer": answer} for answer in ("\x00" * 4, "x", "x")]
    settings = {"output_type": "generate_until", "doc_to_text": "question", "doc_to_target": "answer"}
    settings |= {"generation_kwargs": {"until": ["\n"], "max_gen_toks": 4}, "metric_list": [{"metric": "exact_match"}]}
    ((_, (table, facts)),) = ask(uniform, [own_task(tmp_path, "generate", rows, **settings)])
    assert facts["metrics"]["exact_match"]["value"] == pytest.approx(1 / 3)
    assert len(set(table["item"])) == 3 and list(table["value"]) == [1.0, 0.0, 0.0]


def test_the_questions_decide_what_a_score_is_kept_under(tmp_path):
    prints = set()
    for stem in ("cloze-1", "cloze-2"):
        path = tmp_path / f"{stem}.jsonl"
        path.write_text(json.dumps(QUESTIONS[0]) + "\n")
        prints.add(local_task("cloze", path).fingerprint)
    assert len(prints) == 2


class NoHub:
    """The harness's index, on a machine without a network."""

    all_tasks = ("hellaswag", "lambada")

    def load(self, names):
        if names[0] not in self.all_tasks:
            raise KeyError(names[0])
        raise ConnectionError("Couldn't reach 'Rowan/hellaswag' on the Hub (OfflineModeIsEnabled)\nmore")


def test_an_unknown_task_and_a_hub_out_of_reach_are_a_sentence(monkeypatch):
    monkeypatch.setattr(harness, "_manager", lambda with_its_own_tasks: NoHub())
    with pytest.raises(ConfigError, match="no task hellasweg; did you mean hellaswag"):
        harness_tasks(["hellasweg"], None)
    with pytest.raises(
        StudyError, match=r"hellaswag could not be loaded.*OfflineModeIsEnabled\).*HF_HUB_OFFLINE.*cloze"
    ):
        harness_tasks(["hellaswag"], None)
    assert harness_tasks([], None) == []


@pytest.mark.long
def test_the_real_index_names_what_is_near_and_gives_up_at_once_where_the_hub_is_off():
    """In a process of its own, since the hub's client reads its environment once."""
    code = "from moe_study.posthoc.lm_eval.harness import harness_tasks; harness_tasks(['{}'], None)"
    for name, said in (("hellasweg", "did you mean hellaswag"), ("hellaswag", "HF_HUB_OFFLINE")):
        environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
        line = [sys.executable, "-c", code.format(name)]
        done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=120)
        assert said in done.stderr.splitlines()[-1], done.stderr
