import itertools
import json
import os
import random
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moe_study.data.download import sha256_of
from moe_study.data.tokenizers import (
    GPT2_CACHE_NAME,
    GPT2_RANKS_SHA256,
    LONGEST_BLANKS,
    LONGEST_WORD,
    BpeTokenizer,
    ByteTokenizer,
    Gpt2Tokenizer,
    Tokenizer,
    cut_words,
    gpt2_ranks,
    load_tokenizer,
    train_bpe,
)
from moe_study.design.config import TokenizerConfig
from moe_study.errors import ConfigError, DataError
from tests.fixtures import tiny_texts
from tests.part import every

TEXTS = tiny_texts("de", "news", 40) + tiny_texts("en", "parliament", 40)
AWKWARD = ["", " ", "\n\n\t", "<|endoftext|>", "a<|endoftext|>b", "naïve – “ok” 🙂\r\n", "日本語", "\x00\ud7ff￿"]

LOSSLESS_BPE = BpeTokenizer(train_bpe(TEXTS, 300), 300)


@pytest.fixture(scope="module")
def bpe() -> BpeTokenizer:
    return BpeTokenizer(train_bpe(TEXTS, 400), 400)


@pytest.fixture(scope="module")
def gpt2(downloads: Path) -> Gpt2Tokenizer:
    return Gpt2Tokenizer(gpt2_ranks(downloads, progress=False))


def check_lossless(tokenizer: Tokenizer, text: str) -> None:
    """Ids decode to the same text, never hold the end of text, and their bytes add up."""
    ids = tokenizer.encode(text)
    pieces = tokenizer.token_bytes()
    assert tokenizer.decode(ids) == text
    assert tokenizer.end_of_text not in ids
    assert b"".join(pieces[i] for i in ids) == text.encode()
    assert len(pieces) == tokenizer.vocab_size and pieces[tokenizer.end_of_text] == b""


@settings(max_examples=40, deadline=None)
@given(st.text())
def test_bytes_and_bpe_are_lossless(text: str) -> None:
    check_lossless(ByteTokenizer(), text)
    check_lossless(LOSSLESS_BPE, text)



@pytest.mark.parametrize("text", AWKWARD)
def test_awkward_texts_are_lossless(text: str, gpt2: Gpt2Tokenizer, bpe: BpeTokenizer) -> None:
    for tokenizer in (gpt2, bpe, ByteTokenizer()):
        check_lossless(tokenizer, text)


def test_gpt2_gives_the_known_ids(gpt2: Gpt2Tokenizer) -> None:
    assert gpt2.encode("Hello world") == [15496, 995]
    fox = [464, 2068, 7586, 21831, 18045, 625, 262, 16931, 3290, 13]
    assert gpt2.encode("The quick brown fox jumps over the lazy dog.") == fox
    assert (gpt2.vocab_size, gpt2.end_of_text) == (50257, 50256)
    assert gpt2.decode([15496, 50256, 995]) == "Hello<|endoftext|> world"


def test_gpt2_is_what_tiktoken_makes_of_the_kept_file(
    gpt2: Gpt2Tokenizer, downloads: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kept file serves as tiktoken's own cache: its loader checks the hash and never asks the network."""
    import tiktoken

    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(downloads / "tiktoken"))
    theirs = tiktoken.get_encoding("r50k_base")
    for text in [*TEXTS, *AWKWARD]:
        assert gpt2.encode(text) == theirs.encode(text, disallowed_special=())


def test_gpt2_is_taken_from_a_tiktoken_cache_without_a_download(
    gpt2: Gpt2Tokenizer, downloads: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(downloads / "tiktoken"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    gpt2_ranks(tmp_path, progress=False)
    assert sha256_of(tmp_path / "tiktoken" / GPT2_CACHE_NAME) == GPT2_RANKS_SHA256


def test_a_damaged_gpt2_file_is_named(tmp_path: Path) -> None:
    kept = tmp_path / "tiktoken" / GPT2_CACHE_NAME
    kept.parent.mkdir()
    kept.write_bytes(b"IQ== 0\n")
    with pytest.raises(DataError, match=GPT2_CACHE_NAME):
        gpt2_ranks(tmp_path, progress=False)


def test_a_bpe_learns_its_corpus(bpe: BpeTokenizer) -> None:
    text = " ".join(TEXTS)
    assert len(bpe.encode(text)) < 0.45 * len(text.encode())
    assert bpe.end_of_text == 0
    assert max(bpe.encode(text)) < 400


@pytest.mark.long
def test_training_a_bpe_twice_gives_the_same_bytes() -> None:
    """In processes of their own, with other hash seeds and numbers of threads."""
    code = (
        "import hashlib; from moe_study.data.tokenizers import train_bpe; from tests.fixtures import tiny_texts\n"
        "texts = tiny_texts('de', 'news', 200) + tiny_texts('en', 'news', 200)\n"
        "print(hashlib.sha256(train_bpe(texts, 600).encode()).hexdigest())"
    )
    digests = set()
    for threads, seed in (("1", "1"), ("2", "2"), ("4", "3")):
        environment = {**os.environ, "RAYON_NUM_THREADS": threads, "PYTHONHASHSEED": seed,
                       "PYTHONPATH": os.pathsep.join(sys.path)}  # fmt: skip
        digests.add(subprocess.check_output([sys.executable, "-c", code], env=environment))
    assert len(digests) == 1


def test_a_bpe_depends_on_its_corpus() -> None:
    assert train_bpe(TEXTS, 400) != train_bpe(tiny_texts("en", "news", 80), 400)


def test_a_bpe_has_every_byte_even_if_the_corpus_has_not(bpe: BpeTokenizer) -> None:
    alphabet = {piece for piece in bpe.token_bytes() if len(piece) == 1}
    assert alphabet == {bytes([b]) for b in range(256)}


def test_too_little_text_leaves_ids_without_use() -> None:
    tokenizer = BpeTokenizer(train_bpe(["ab ab ab"], 5000), 5000)
    check_lossless(tokenizer, "ab ab ß")
    assert tokenizer.vocab_size == 5000
    assert sum(1 for piece in tokenizer.token_bytes() if piece) < 270


RUNS = ["日", " ", "\n", "\t \n", "a", "7", "-", "_", "=!", "ab1"]  # the slowest first


@pytest.mark.parametrize("run", every(len(RUNS), RUNS))
def test_a_million_of_anything_in_a_row_is_encoded_and_trained_on_in_seconds(run: str, gpt2: Gpt2Tokenizer) -> None:
    text = "before " + run * (1_000_000 // len(run)) + " after"
    started = time.process_time()
    ids = gpt2.encode(text)
    trained = BpeTokenizer(train_bpe([text, *TEXTS], 300), 300)
    assert time.process_time() - started < 20
    assert gpt2.decode(ids) == text
    fifth = text[: len(text) // 5] + " after"  # each of its tokens is an object of its own library
    assert trained.decode(trained.encode(fifth)) == fifth
    assert time.process_time() - started < 30


@pytest.mark.parametrize("blank", [" ", "\n"])
@pytest.mark.parametrize("length", [LONGEST_BLANKS - 1, LONGEST_BLANKS, LONGEST_BLANKS + 1, 200_001])
def test_long_blanks_keep_the_ids_that_gpt2_gives_them(gpt2: Gpt2Tokenizer, blank: str, length: int) -> None:
    """As long as tiktoken encodes them at all."""
    for after in ("word", ""):
        text = "a" + blank * length + after
        assert gpt2.encode(text) == gpt2._encoding.encode(text)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(RUNS), st.sampled_from([1, 3, 999, 1000, 1001, 2500]))))
def test_words_are_cut_only_where_they_are_too_long(runs: list[tuple[str, int]]) -> None:
    text = "".join(run * length for run, length in runs)
    parts = cut_words(text)
    assert "".join(parts) == text
    for pattern in (r"\s+", r"[^\W_]+", r"(?:[^\w\s]|_)+"):
        assert all(len(found) <= LONGEST_WORD for part in parts for found in re.findall(pattern, part))
        if all(len(found) <= LONGEST_WORD for found in re.findall(pattern, text)):
            inside = [part for part in parts[1:] if re.match(pattern, part)]
            assert not any(re.search(pattern + r"\Z", before) and part in inside
                           for before, part in itertools.pairwise(parts))  # fmt: skip


def test_texts_with_words_of_any_usual_length_are_not_cut() -> None:
    text = " ".join(["a" * LONGEST_WORD, "日本語" * 300, "-" * LONGEST_WORD, *TEXTS])
    assert cut_words(text) == [text]


def test_a_vocabulary_smaller_than_the_bytes_is_refused() -> None:
    with pytest.raises(ConfigError, match="vocab_size=100"):
        train_bpe(TEXTS, 100)


def test_a_definition_is_json_that_is_read_back(bpe: BpeTokenizer, tmp_path: Path) -> None:
    definition = train_bpe(TEXTS, 400)
    json.loads(definition)
    (tmp_path / "tokenizer.json").write_text(definition, encoding="utf-8")
    loaded = load_tokenizer(TokenizerConfig("bpe", 400), tmp_path)
    text = random.Random(0).choice(TEXTS)
    np.testing.assert_array_equal(loaded.encode(text), bpe.encode(text))
    (tmp_path / "tokenizer.json").write_text(definition[:-20])
    with pytest.raises(DataError, match=r"tokenizer\.json is damaged"):
        load_tokenizer(TokenizerConfig("bpe", 400), tmp_path)
    with pytest.raises(DataError, match=r"tokenizer\.json is missing"):
        load_tokenizer(TokenizerConfig("bpe", 400), tmp_path / "elsewhere")
