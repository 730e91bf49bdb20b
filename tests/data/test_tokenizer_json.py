"""What tokenizer.json says to Hugging Face's library: the ids of our tokenizers, for any text."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as HuggingFace

from moe_study.data.tokenizer_json import merges_of, tokenizer_json
from moe_study.data.tokenizers import (
    END_OF_TEXT,
    BpeTokenizer,
    ByteTokenizer,
    Gpt2Tokenizer,
    Tokenizer,
    byte_of_letter,
    gpt2_ranks,
    train_bpe,
)
from tests.fixtures import tiny_texts

AWKWARD = [
    "",
    " ",
    "\n\n\t",
    "  " * 50 + "x",
    "\u3000\u00a0 x \u2028\u200b",
    f"a{END_OF_TEXT}b{END_OF_TEXT}",
    "it's we'LL 'll'S don''t",
    "naïve – “ok” 🙂👩‍👩‍👧\r\n",
    "日本語 ١٢٣ ½ Ⅷ",
    "e\u0301" * 9,
    "\x00\ud7ff\uffff",
]


def trained() -> BpeTokenizer:
    return BpeTokenizer(train_bpe(tiny_texts("de", "news", 40) + tiny_texts("en", "parliament", 40), 400), 400)


def opened(tokenizer: Tokenizer) -> HuggingFace:
    """As a reader does that takes special tokens in a text for text (split_special_tokens)."""
    found = HuggingFace.from_str(tokenizer_json(tokenizer))
    found.encode_special_tokens = True
    return found


@pytest.fixture(scope="module", params=["bytes", "bpe", "gpt2"])
def pair(request: pytest.FixtureRequest) -> tuple[Tokenizer, HuggingFace]:
    made: Tokenizer
    if request.param == "gpt2":
        downloads: Path = request.getfixturevalue("downloads")
        made = Gpt2Tokenizer(gpt2_ranks(downloads, progress=False))
    else:
        made = trained() if request.param == "bpe" else ByteTokenizer()
    return made, opened(made)


def check(pair: tuple[Tokenizer, HuggingFace], text: str) -> None:
    ours, theirs = pair
    ids = ours.encode(text)
    assert theirs.encode(text, add_special_tokens=False).ids == ids
    assert theirs.decode(ids, skip_special_tokens=False) == text


@pytest.mark.parametrize("text", AWKWARD)
def test_awkward_texts_have_our_ids_and_come_back(text: str, pair: tuple[Tokenizer, HuggingFace]) -> None:
    check(pair, text)


@settings(max_examples=60, deadline=None)
@given(text=st.text())
def test_any_text_has_our_ids_and_comes_back(text: str, pair: tuple[Tokenizer, HuggingFace]) -> None:
    check(pair, text)


def test_the_end_of_text_is_a_special_token_of_our_id(pair: tuple[Tokenizer, HuggingFace]) -> None:
    ours, theirs = pair
    assert theirs.token_to_id(END_OF_TEXT) == ours.end_of_text
    assert theirs.decode([ours.end_of_text], skip_special_tokens=True) == ""
    assert theirs.get_vocab_size() == ours.vocab_size


def test_merges_are_found_again_from_the_tokens_alone() -> None:
    """Those of a trained tokenizer, whose file lists them."""
    tokenizer = trained()
    pieces = tokenizer.token_bytes()[1:]  # in order of rank, behind the end of text
    letter_of = {byte: letter for letter, byte in byte_of_letter().items()}
    spelled = ["".join(letter_of[byte] for byte in piece) for piece in pieces]
    found = [[spelled[left], spelled[right]] for left, right in merges_of(pieces)]
    assert len(found) > 100 and found == json.loads(tokenizer.definition)["model"]["merges"]
