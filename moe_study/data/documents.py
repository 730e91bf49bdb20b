"""What a corpus is made of before tokens: documents, their identity and the split they belong to."""

import hashlib
from typing import NamedTuple

HASH_BYTES = 16


class Document(NamedTuple):
    """One text with its two labels; a label is never empty.

    group   names what the text is a part of, or a translation of: all of it falls on one side of the split.
    """

    text: str
    language: str
    topic: str
    group: str = ""  # "": the text stands alone


def text_hash(text: str) -> bytes:
    """HASH_BYTES bytes that stand for a text: they find duplicates, choose the split and order a stream."""
    return hashlib.sha256(text.encode()).digest()[:HASH_BYTES]


def split_hash(document: Document, hashed: bytes) -> bytes:
    """What decides the side of a document with the text hash `hashed`: its group if it has one, else its text."""
    return text_hash(document.group) if document.group else hashed


def is_validation(hashed: bytes, fraction: float) -> bool:
    """Whether the document with this `split_hash` belongs to the validation split.

    It depends on nothing but the text, or the name of its group, so a document never changes sides when others come
    or go. The bytes read here are not those that order a stream: the two choices stay independent.
    """
    return int.from_bytes(hashed[-8:], "big") < fraction * 2**64
