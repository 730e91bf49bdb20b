"""A prepared corpus on disk: one memory-mapped file of token ids for each split and domain.

    ROOT/NAME-HASH/
      manifest.json                     written last: without it nothing here counts as prepared
      train/000-de-parliament.bin       token ids, uint16 or uint32, little-endian
      train/documents.parquet           one row a document: shard, start, tokens, text_bytes, hash
      validation/...
      token_bytes.npy                   bytes that each token id stands for, (V,)
      tokenizer.json or gpt2.tiktoken   unless the tokenizer is plain bytes

A domain is a pair (language, topic). Within a shard documents stand one after another in the order of the
hashes of their texts, each followed by the end of text.
"""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from moe_study.data.download import sha256_of
from moe_study.data.recipes import recipe_of
from moe_study.data.tokenizers import Tokenizer, load_tokenizer
from moe_study.design.config import DataConfig, TokenizerConfig
from moe_study.design.plain import to_plain
from moe_study.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

FORMAT = 1  # of the files; goes up when older prepared corpora cannot be read any more
MANIFEST = "manifest.json"
SPLITS = ("train", "validation")


@dataclass(frozen=True)
class Shard:
    """One domain of one split."""

    path: Path
    language: int  # index into the corpus's languages
    topic: int  # index into the corpus's topics
    tokens: np.ndarray  # ids, read-only memory map
    documents: int
    text_bytes: int  # UTF-8


@dataclass(frozen=True)
class Split:
    """Train or validation: its shards in the order of their names."""

    name: str
    shards: tuple[Shard, ...]
    end_of_text: int

    @property
    def tokens(self) -> int:
        """Token ids in all shards, ends of text included."""
        return sum(len(shard.tokens) for shard in self.shards)

    def documents(self) -> "pa.Table":
        """The index of documents: shard (index), start (in the shard), tokens, text_bytes, hash."""
        import pyarrow.parquet as pq

        return pq.read_table(self.shards[0].path.parent / "documents.parquet")


@dataclass(frozen=True)
class PreparedCorpus:
    """A corpus ready to be sampled from."""

    name: str
    folder: Path
    fingerprint: str  # sha256 over the recipe, its options, the tokenizer and every token
    languages: list[str]
    topics: list[str]
    vocab_size: int
    end_of_text: int
    train: Split
    validation: Split
    tokenizer_config: TokenizerConfig

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """Encodes and decodes; loaded when first asked for."""
        return load_tokenizer(self.tokenizer_config, self.folder)

    @cached_property
    def token_bytes_V(self) -> np.ndarray:
        """Bytes of text that each token id stands for, int64 (V,); 0 for the end of text."""
        return np.load(self.folder / "token_bytes.npy")

    def table(self) -> list[dict[str, Any]]:
        """Split, language, topic, documents, tokens and text_bytes of every shard."""
        return [
            {
                "split": split.name,
                "language": self.languages[shard.language],
                "topic": self.topics[shard.topic],
                "documents": shard.documents,
                "tokens": len(shard.tokens),
                "text_bytes": shard.text_bytes,
            }
            for split in (self.train, self.validation)
            for shard in split.shards
        ]


def identity(config: DataConfig) -> dict[str, Any]:
    """Everything in the configuration and the code that decides what is prepared."""
    return {
        "format": FORMAT,
        "recipe": config.recipe,
        "recipe_version": recipe_of(config.recipe).version,
        "options": to_plain(config.options),
        "tokenizer": to_plain(config.tokenizer),
        "validation_fraction": config.validation_fraction,
    }


def canonical_json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def corpus_folder(config: DataConfig) -> Path:
    """Where this configuration's corpus lies: its name, for people, and a hash of its identity."""
    digest = hashlib.sha256(canonical_json(identity(config)).encode()).hexdigest()
    return Path(config.root).expanduser() / f"{config.name}-{digest[:12]}"


def token_dtype(vocab_size: int) -> np.dtype:
    """The smallest of uint16 and uint32 that holds every id, in little-endian order."""
    return np.dtype("<u2") if vocab_size <= 1 << 16 else np.dtype("<u4")


def fingerprint_of(manifest: dict[str, Any]) -> str:
    """sha256 over what was asked for and what came of it, file by file (the index of documents follows)."""
    parts = {path: entry["sha256"] for path, entry in manifest["files"].items() if _is_content(path)}
    return hashlib.sha256(canonical_json([manifest["identity"], parts]).encode()).hexdigest()


def _is_content(path: str) -> bool:
    return not path.endswith(".parquet")


def open_corpus(config: DataConfig, *, verify: bool = False) -> PreparedCorpus:
    """Open what `prepare` wrote; checks that every file is there in its size, and its sha256 if `verify`.

    Raises DataError if the corpus was not prepared, or names the file that is missing or damaged.
    """
    folder = corpus_folder(config)
    manifest = read_manifest(folder)
    if manifest is None:
        raise DataError(
            f"the corpus {config.name} is not prepared in {config.root}; run "
            f"`moe-study prepare data={config.name}` first"
        )
    for name, entry in manifest["files"].items():
        _check_file(folder / name, entry, config, verify)
    return _corpus(config, folder, manifest)


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest, or None if there is no whole corpus in that folder."""
    path = folder / MANIFEST
    try:
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        whole = fingerprint_of(manifest) == manifest["fingerprint"]
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, KeyError, TypeError, AttributeError):
        whole = False
    if not whole:
        raise DataError(f"{path} is damaged; delete it and prepare this corpus again")
    return manifest


def _check_file(path: Path, entry: dict[str, Any], config: DataConfig, verify: bool) -> None:
    again = f"run `moe-study prepare data={config.name}` to make it again"
    if not path.is_file():
        raise DataError(f"{path} is missing; {again}")
    size = path.stat().st_size
    if size != entry["bytes"]:
        raise DataError(f"{path} is damaged ({size} bytes, expected {entry['bytes']}); {again}")
    if verify and sha256_of(path) != entry["sha256"]:
        raise DataError(f"{path} is damaged (its sha256 is not that of {MANIFEST}); delete it and {again}")


def _corpus(config: DataConfig, folder: Path, manifest: dict[str, Any]) -> PreparedCorpus:
    dtype = np.dtype(manifest["dtype"])
    languages, topics = manifest["languages"], manifest["topics"]

    def split(name: str) -> Split:
        shards = tuple(
            Shard(
                path=folder / s["path"],
                language=languages.index(s["language"]),
                topic=topics.index(s["topic"]),
                tokens=np.memmap(folder / s["path"], dtype, "r"),
                documents=s["documents"],
                text_bytes=s["text_bytes"],
            )
            for s in manifest["shards"][name]
        )
        return Split(name, shards, manifest["end_of_text"])

    return PreparedCorpus(
        name=config.name,
        folder=folder,
        fingerprint=manifest["fingerprint"],
        languages=languages,
        topics=topics,
        vocab_size=manifest["vocab_size"],
        end_of_text=manifest["end_of_text"],
        train=split("train"),
        validation=split("validation"),
        tokenizer_config=config.tokenizer,
    )
