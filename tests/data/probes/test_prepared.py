"""Probes: labels of words on tokens, the choice of documents, the cache."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from moe_study.data.probes import Probe, ProbeDocument, ProbeRecipe, ProbeSource, Word, prepare_probe, prepared
from moe_study.data.probes.base import encode_documents, labels_of_tokens
from moe_study.data.tokenizers import BpeTokenizer, ByteTokenizer, Tokenizer, train_bpe
from moe_study.errors import ConfigError, DataError

WORDS = (Word(0, 3, "noun"), Word(4, 9, "verb"), Word(9, 10, "."))
DOCUMENT = ProbeDocument("Été coulé.", {"genre": "news"}, WORDS)


def bpe() -> BpeTokenizer:
    return BpeTokenizer(train_bpe(["Été coulé. the river ran, the rain fell. " * 20], 290), 290)


def words_of(document: ProbeDocument, tokenizer: Tokenizer) -> list[str | None]:
    return list(labels_of_tokens(document, tokenizer.encode(document.text), tokenizer.token_bytes()))


def test_every_byte_of_a_word_has_its_label_and_a_blank_has_none() -> None:
    assert words_of(DOCUMENT, ByteTokenizer()) == ["noun"] * 5 + [None] + ["verb"] * 6 + ["."]


def test_a_token_has_the_label_of_the_word_that_it_is_a_part_of() -> None:
    tokenizer = bpe()
    ids, labels = tokenizer.encode(DOCUMENT.text), words_of(DOCUMENT, tokenizer)
    assert len(ids) < 13  # some are longer than a byte, blanks in front among them
    place = 0
    by_byte: list[str | None] = ["noun"] * 5 + [None] + ["verb"] * 6 + ["."]
    for i, label in zip(ids, labels, strict=True):
        size = len(tokenizer.token_bytes()[i])
        assert {label} == set(by_byte[place : place + size]) - {None} or label is None
        place += size
    assert place == len(by_byte)


def test_a_token_that_touches_words_of_two_labels_has_none() -> None:
    document = ProbeDocument("ab", {}, (Word(0, 1, "noun"), Word(1, 2, "verb")))
    assert list(labels_of_tokens(document, [0], [b"ab"])) == [None]
    same = ProbeDocument("ab", {}, (Word(0, 1, "noun"), Word(1, 2, "noun")))
    assert list(labels_of_tokens(same, [0], [b"ab"])) == ["noun"]


def test_documents_and_labels_come_out_as_they_went_in() -> None:
    documents = [ProbeDocument("abc", {"genre": "x"}), ProbeDocument("", {"genre": "y"}), ProbeDocument("d", {})]
    probe = encode_documents("p", "f", documents, ByteTokenizer())
    assert probe.start_D1.tolist() == [0, 3, 4] and bytes(probe.token_T.tolist()) == b"abcd"
    assert probe.document_labels["genre"][0].tolist() == [0, -1] and probe.document_labels["genre"][1] == ("x",)


class Source:
    """A recipe that counts how often its texts are read."""

    def __init__(self, documents: Iterable[ProbeDocument]) -> None:
        self.documents, self.read, self.fingerprint = list(documents), 0, "1"

    def open(self, path: Path | None, data_root: Path, progress: bool) -> ProbeSource:
        return ProbeSource(self.fingerprint, self._read, word_label="part of speech", notes=("mind this",))

    def _read(self) -> list[ProbeDocument]:
        self.read += 1
        return self.documents


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch) -> Source:
    words = (Word(0, 4, "noun"),)
    documents = [ProbeDocument(f"text {n} of many", {"topic": "ab"[n % 5 == 0]}, words) for n in range(20)]
    made = Source([*documents, documents[0], ProbeDocument("  ", {"topic": "a"})])
    monkeypatch.setitem(prepared.PROBES, "made", ProbeRecipe(1, made.open))
    return made


def same(one: Probe, other: Probe) -> bool:
    arrays = [(one.token_T, other.token_T), (one.start_D1, other.start_D1)]
    for mine, others in ((one.document_labels, other.document_labels), (one.token_labels, other.token_labels)):
        if {name: values for name, (_, values) in mine.items()} != {n: v for n, (_, v) in others.items()}:
            return False
        arrays += [(mine[name][0], others[name][0]) for name in mine]
    return all(np.array_equal(a, b) for a, b in arrays) and one.notes == other.notes


def test_what_was_prepared_is_read_again_and_is_the_same(source: Source, tmp_path: Path) -> None:
    first = prepare_probe("made", ByteTokenizer(), tmp_path)
    again = prepare_probe("made", ByteTokenizer(), tmp_path)
    assert source.read == 1 and same(first, again) and again.notes == ("mind this",)
    assert first.documents == 20  # the copy and the blank one are left out


def test_texts_tokenizer_and_budget_each_make_another_probe(source: Source, tmp_path: Path) -> None:
    fingerprints = {prepare_probe("made", ByteTokenizer(), tmp_path).fingerprint}
    fingerprints.add(prepare_probe("made", bpe(), tmp_path).fingerprint)
    fingerprints.add(prepare_probe("made", ByteTokenizer(), tmp_path, tokens=50).fingerprint)
    source.fingerprint = "2"
    fingerprints.add(prepare_probe("made", ByteTokenizer(), tmp_path).fingerprint)
    assert len(fingerprints) == source.read == 4


def test_a_damaged_file_is_made_anew(source: Source, tmp_path: Path) -> None:
    first = prepare_probe("made", ByteTokenizer(), tmp_path)
    (kept,) = (tmp_path / "probes").glob("*.npz")
    kept.write_bytes(kept.read_bytes()[:100])
    assert same(prepare_probe("made", ByteTokenizer(), tmp_path), first) and source.read == 2


def test_the_order_of_the_source_does_not_matter(source: Source, tmp_path: Path) -> None:
    one = prepare_probe("made", ByteTokenizer(), tmp_path / "a", tokens=60)
    source.documents.reverse()
    assert same(prepare_probe("made", ByteTokenizer(), tmp_path / "b", tokens=60), one)


def test_unknown_and_empty_probes_are_refused(source: Source, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no probe wiki; choose one of wiki_topics"):
        prepare_probe("wiki", ByteTokenizer(), tmp_path)
    with pytest.raises(ConfigError, match="0 tokens"):
        prepare_probe("made", ByteTokenizer(), tmp_path, tokens=0)
    source.documents = []
    with pytest.raises(DataError, match="holds no text"):
        prepare_probe("made", ByteTokenizer(), tmp_path)
