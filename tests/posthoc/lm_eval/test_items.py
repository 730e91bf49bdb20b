"""The questions of the tasks that ship: what is right is what the text says, and nothing else tells it."""

import json
from collections import Counter

import pytest

from moe_study.data import open_corpus, prepare
from moe_study.data.probes import ProbeDocument, ProbeRecipe, ProbeSource
from moe_study.errors import DataError
from moe_study.posthoc.lm_eval import items
from moe_study.posthoc.lm_eval.items import Passage, cloze_items, topic_items
from tests.fixtures import tiny_data_config

WORDS = [f"{a}{b}{c}en" for a in "bdfglmnprst" for b in "aeiou" for c in "dklmnrst"]


def text_of(number: int, words: int = 80) -> str:
    return " ".join(WORDS[(number * 7919 + place * (number + 3)) % len(WORDS)] for place in range(words)) + "."


PASSAGES = [Passage(text_of(n), "de" if n % 2 else "en", "news" if n % 3 else "law") for n in range(60)]


def test_a_cloze_asks_for_the_word_that_stands_there():
    made = items._cloze(PASSAGES, 40)
    assert len(made) == 40 == len({item["id"] for item in made})
    for item in made:
        right = item["choices"][item["answer"]]
        (own,) = [p for p in PASSAGES if f"{item['context']} {right}" in p.text and p.language == item["language"]]
        assert own.topic == item["topic"] and len(item["context"].split()) == items.CONTEXT_WORDS
        assert len(set(item["choices"])) == items.CHOICES
        assert all(word in {w for p in PASSAGES if p.language == own.language for w in p.text.split()} | {right}
                   for word in item["choices"])  # fmt: skip


def test_wrong_words_are_as_frequent_as_the_right_one():
    rare, often = (WORDS[first : first + 14] for first in (0, 14))
    alike = items._Alike(Counter(dict.fromkeys(rare, 1) | dict.fromkeys(often, 500)))
    for group, place in ((rare, 6), (often, 20)):
        (right,) = [word for word in group if alike.place[word] == place]
        wrong = alike.wrong(right, "a question")
        assert len(wrong) == 3 and set(wrong) <= set(group) - {right}
        assert alike.wrong(right, "a question") == wrong != alike.wrong(right, "another")


def test_questions_do_not_depend_on_the_order_of_texts_and_domains_take_turns():
    made = items._cloze(PASSAGES, 24)
    assert items._cloze(PASSAGES[::-1], 24) == made
    domains = Counter((item["language"], item["topic"]) for item in made)
    assert set(domains.values()) == {6}
    assert items._cloze(PASSAGES, 12) == made[:12]
    places = Counter(item["answer"] for item in items._cloze(PASSAGES, 60))
    assert set(places) == {0, 1, 2, 3} and max(places.values()) < 30


@pytest.mark.parametrize("text", ["", "too short", "字" * 500, "a1 b2 " * 100, "word " * 30])
def test_a_text_without_words_to_ask_for_gives_no_question(text):
    assert items._cloze([Passage(text, "en", "news")], 5) == []


DOCUMENTS = [
    ProbeDocument(text_of(n, 40), {"language": language, "topic": topic})
    for n, (language, topic) in enumerate(
        (language, topic) for language in ("en", "fr") for topic in "abcde" for _ in range(6)
    )
]


def test_a_topic_question_is_about_the_article_that_goes_on():
    made = items._topic(DOCUMENTS, ["en"], 20)
    assert len(made) == 20 and {item["language"] for item in made} == {"en"}
    for item in made:
        right = item["choices"][item["answer"]]
        (own,) = [d for d in DOCUMENTS if d.text.startswith(f"{item['context']} {right}")]
        assert own.labels["topic"] == item["about"] and "topic" not in item
        for wrong in set(item["choices"]) - {right}:
            (other,) = [d for d in DOCUMENTS if wrong in d.text and d.labels["language"] == "en"]
            assert other.labels["topic"] != item["about"]
    assert {item["language"] for item in items._topic(DOCUMENTS, ["xx"], 20)} == {"en", "fr"}
    assert items._topic(DOCUMENTS[::-1], ["en"], 20) == made


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    config = tiny_data_config(tmp_path_factory.mktemp("data"))
    prepare(config, progress=False)
    return open_corpus(config)


def test_questions_are_kept_and_made_once(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(items, "CONTEXT_WORDS", 5)
    path = cloze_items(corpus, tmp_path, 10)
    made = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert 0 < len(made) <= 10 and path.parent == tmp_path / "tasks"
    monkeypatch.setattr(items, "_cloze", lambda *_: pytest.fail("made again"))
    assert cloze_items(corpus, tmp_path, 10) == path


def test_a_corpus_without_questions_is_an_error_that_says_so(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(items, "CONTEXT_WORDS", 10**6)
    with pytest.raises(DataError, match=r"gives no questions for the task cloze.*--tasks"):
        cloze_items(corpus, tmp_path)
    assert not list(tmp_path.rglob("*.jsonl"))


def test_topic_questions_come_from_the_probe_and_follow_its_text(tmp_path, monkeypatch):
    def probe(fingerprint):
        return ProbeRecipe(1, lambda path, root, progress: ProbeSource(fingerprint, lambda: DOCUMENTS))

    monkeypatch.setitem(items.PROBES, "wiki_topics", probe("one"))
    paths = [topic_items(languages, tmp_path, 8) for languages in (["en"], ["en", "fr"], ["fr", "en"])]
    monkeypatch.setitem(items.PROBES, "wiki_topics", probe("two"))
    paths.append(topic_items(["en"], tmp_path, 8))
    assert len(set(paths)) == 3 and paths[1] == paths[2]
    assert all(len(path.read_text(encoding="utf-8").splitlines()) == 8 for path in paths)
