"""What a corpus is made of before tokens: documents, their identity and the split they belong to."""

import hashlib
from typing import NamedTuple

HASH_BYTES = 16


class Document(NamedTuple):
    """One text with its two labels; a label is never empty."""

    text: str
    language: str
    topic: str


def text_hash(text: str) -> bytes:
    """HASH_BYTES bytes that stand for a text: they find duplicates, choose the split and order a stream."""
    return hashlib.sha256(text.encode()).digest()[:HASH_BYTES]


def is_validation(hashed: bytes, fraction: float) -> bool:
    """Whether the document with this hash belongs to the validation split.

    It depends on nothing but the text, so a document never changes sides when others come or go. The bytes
    read here are not those that order a stream: the two choices stay independent.
    """
    return int.from_bytes(hashed[-8:], "big") < fraction * 2**64
