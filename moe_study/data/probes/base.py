"""What a probe is: labelled documents that no run trains on, as token ids of a run's own tokenizer.

Shape suffixes: T tokens, D documents.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from moe_study.data.tokenizers import Tokenizer

MISSING = -1  # the code of what has no label
Array = NDArray[Any]
Labels = dict[str, tuple[Array, tuple[str, ...]]]  # name -> (codes, what the codes stand for)


class Word(NamedTuple):
    """Where a labelled word stands in its document's text."""

    start: int  # characters
    end: int
    label: str


class ProbeDocument(NamedTuple):
    """One text with its labels by name (language, topic, genre, ...), and its labelled words in order."""

    text: str
    labels: dict[str, str]
    words: tuple[Word, ...] = ()


@dataclass(frozen=True)
class ProbeSource:
    """A probe's texts, ready to be read."""

    fingerprint: str  # stands for every text and label
    documents: Callable[[], Iterable[ProbeDocument]]
    word_label: str | None = None  # what the labels of words are: part of speech
    notes: tuple[str, ...] = ()  # what a reader should know, said when it is prepared


@dataclass(frozen=True)
class ProbeRecipe:
    """How to get a probe. `version` goes up whenever the same source would give other documents or labels.

    open  (path or None, data root, progress) -> ProbeSource; fetches what is needed. `path` is the user's folder,
          for the recipe that takes one.
    """

    version: int
    open: Callable[[Path | None, Path, bool], ProbeSource]


@dataclass(frozen=True)
class Probe:
    """A probe's tokens: documents one after another, without end-of-text tokens."""

    name: str
    fingerprint: str  # of the texts, the labels, the tokenizer and the choice of documents
    token_T: Array
    start_D1: Array  # where each document starts, and the end
    document_labels: Labels = field(default_factory=dict)
    token_labels: Labels = field(default_factory=dict)
    notes: tuple[str, ...] = ()  # what a reader should know

    @property
    def documents(self) -> int:
        return len(self.start_D1) - 1


def tokenizer_fingerprint(tokenizer: Tokenizer) -> str:
    """sha256 over what every id stands for, in the order of merges for a byte-pair encoding."""
    digest = hashlib.sha256(f"{type(tokenizer).__name__} {tokenizer.end_of_text}".encode())
    for piece in tokenizer.token_bytes():
        digest.update(len(piece).to_bytes(4, "little") + piece)
    return digest.hexdigest()


def encode_documents(
    name: str,
    fingerprint: str,
    documents: Sequence[ProbeDocument],
    tokenizer: Tokenizer,
    word_label: str | None = None,
    notes: tuple[str, ...] = (),
) -> Probe:
    """Tokens and labels of documents; those without a token are left out."""
    encoded = tokenizer.encode_batch([document.text for document in documents])
    pairs = [(document, ids) for document, ids in zip(documents, encoded, strict=True) if len(ids)]
    lengths_D = np.array([len(ids) for _, ids in pairs], np.int64)
    names = list(dict.fromkeys(name for document, _ in pairs for name in document.labels))
    token_labels: Labels = {}
    if word_label is not None:
        pieces = tokenizer.token_bytes()
        labels = [label for document, ids in pairs for label in labels_of_tokens(document, ids, pieces)]
        token_labels[word_label] = as_codes(labels)
    return Probe(
        name=name,
        fingerprint=fingerprint,
        token_T=np.concatenate([ids for _, ids in pairs]).astype(np.int64) if pairs else np.empty(0, np.int64),
        start_D1=np.concatenate([[0], lengths_D.cumsum()]),
        document_labels={name: as_codes([document.labels.get(name) for document, _ in pairs]) for name in names},
        token_labels=token_labels,
        notes=notes,
    )


def as_codes(labels: Sequence[str | None]) -> tuple[Array, tuple[str, ...]]:
    """Codes of labels, and the labels in the order of their names; None is MISSING."""
    values = tuple(sorted({label for label in labels if label is not None}))
    code = {value: n for n, value in enumerate(values)}
    return np.array([MISSING if label is None else code[label] for label in labels], np.int16), values


def labels_of_tokens(document: ProbeDocument, ids: Iterable[int], pieces: Sequence[bytes]) -> Iterator[str | None]:
    """The label of the word that each token is a part of.

    A token that touches words of different labels has none, as has one of blanks alone.
    """
    label_of_byte: list[str | None] = [None] * len(document.text.encode())
    offsets = _byte_offsets(document.text)
    for word in document.words:
        start, end = offsets[word.start], offsets[word.end]
        label_of_byte[start:end] = [word.label] * (end - start)
    place = 0
    for i in ids:
        end = place + len(pieces[int(i)])
        found = {label for label in label_of_byte[place:end] if label is not None}
        yield found.pop() if len(found) == 1 else None
        place = end


def _byte_offsets(text: str) -> list[int]:
    """Where each character of `text` starts in its UTF-8, and the end."""
    offsets = [0]
    for character in text:
        offsets.append(offsets[-1] + len(character.encode()))
    return offsets
