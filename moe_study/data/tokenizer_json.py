"""A tokenizer as Hugging Face's libraries read it: the content of tokenizer.json.

All three kinds are byte-level: bytes and GPT-2's tokens are written as a byte-pair encoding of the same ids. What is
encoded is the same but for one thing that GPT-2's own pattern cannot do: more than 65,536 blanks in a row
(data/tokenizers.py cuts them).
"""

import json
from itertools import pairwise
from typing import Any

from moe_study.data.tokenizers import END_OF_TEXT, BpeTokenizer, Gpt2Tokenizer, Tokenizer, byte_of_letter


def tokenizer_json(tokenizer: Tokenizer) -> str:
    """The JSON of a Hugging Face tokenizer that gives the ids of `tokenizer`, with the end of text as special token.

    A text that spells the end of text is taken as ordinary characters only by a reader that splits special tokens
    (`split_special_tokens`, in tokenizer_config.json).
    """
    if isinstance(tokenizer, BpeTokenizer):
        return tokenizer.definition
    is_gpt2 = isinstance(tokenizer, Gpt2Tokenizer)
    pieces = tokenizer.token_bytes()[: tokenizer.end_of_text]  # the end of text comes last in both
    letter_of = {byte: letter for letter, byte in byte_of_letter().items()}
    spelled = ["".join(letter_of[byte] for byte in piece) for piece in pieces]
    merges = [[spelled[left], spelled[right]] for left, right in merges_of(pieces)]
    return _byte_level(spelled, merges, tokenizer.end_of_text, cuts_words=is_gpt2)


def merges_of(pieces: list[bytes]) -> list[tuple[int, int]]:
    """The pair of ids that each token of several bytes was merged from, in order; an id is its token's rank.

    A token's pair is what its bytes come to by the merges of lower rank.
    """
    rank = {piece: number for number, piece in enumerate(pieces)}
    return [_pair(piece, rank) for piece in pieces if len(piece) > 1]


def _pair(piece: bytes, rank: dict[bytes, int]) -> tuple[int, int]:
    parts = [bytes([byte]) for byte in piece]
    while len(parts) > 2:
        joined = [rank.get(left + right, len(rank)) for left, right in pairwise(parts)]
        first = joined.index(min(joined))
        parts[first : first + 2] = [parts[first] + parts[first + 1]]
    return rank[parts[0]], rank[parts[1]]


def _byte_level(spelled: list[str], merges: list[list[str]], end_of_text: int, cuts_words: bool) -> str:
    special = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    pre_tokenizer: dict[str, Any] = {"add_prefix_space": False, "trim_offsets": True, "use_regex": cuts_words}
    definition = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": end_of_text, "content": END_OF_TEXT, **special}],
        "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", **pre_tokenizer},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {piece: number for number, piece in enumerate(spelled)} | {END_OF_TEXT: end_of_text},
            "merges": merges,
        },
    }
    return json.dumps(definition, ensure_ascii=False)
