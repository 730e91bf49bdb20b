"""A prepared corpus on disk: one memory-mapped file of token ids for each split and domain.

    ROOT/NAME-HASH/
      manifest.json                     written last: without it nothing here counts as prepared
      train/000-de-parliament.bin       token ids, uint16 or uint32, little-endian
      train/documents.parquet           one row a document: shard, start, tokens, text_bytes, hash
      validation/...
      .verified.json                    when each file was last found to be what the manifest says
      token_bytes.npy                   bytes that each token id stands for, (V,)
      tokenizer.json or gpt2.tiktoken   unless the tokenizer is plain bytes
      ATTRIBUTION.md                    where the texts came from, where a recipe can say

A domain is a pair (language, topic). Within a shard documents stand one after another in the order of the
hashes of their texts, each followed by the end of text.
"""

import hashlib
import json
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from moe_study.data.places import data_root
from moe_study.data.recipes import recipe_of
from moe_study.data.tokenizers import Tokenizer, load_tokenizer
from moe_study.data.verify import check_files
from moe_study.design.config import DataConfig, TokenizerConfig
from moe_study.design.data_options import place_options, without_defaults
from moe_study.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

FORMAT = 1  # of the files; goes up when older prepared corpora cannot be read any more
MANIFEST = "manifest.json"
ATTRIBUTION = "ATTRIBUTION.md"
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
    fingerprint: str  # sha256 over the recipe, its options, the tokenizer, every token and label
    languages: list[str]
    topics: list[str]
    vocab_size: int
    end_of_text: int
    train: Split
    validation: Split
    tokenizer_config: TokenizerConfig
    read: dict[str, Any] | None = None  # what prepare came across: files, documents, duplicates, left_out, notes

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
    """Everything in the configuration and the code that decides what is prepared; no places."""
    sized = config.tokenizer.kind == "bpe"  # the others have one size
    return {
        "format": FORMAT,
        "recipe": config.recipe,
        "recipe_version": recipe_of(config.recipe).version,
        "options": without_defaults(config),
        "tokenizer": {"kind": config.tokenizer.kind, "vocab_size": config.tokenizer.vocab_size if sized else None},
        "validation_fraction": config.validation_fraction,
    }


def canonical_json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def corpus_folder(config: DataConfig) -> Path:
    """Where this configuration's corpus lies: its name, for people, and a hash of its identity and its places."""
    decides = identity(config)
    if places := place_options(config):  # two folders of texts make two corpora that live side by side
        decides["places"] = places
    digest = hashlib.sha256(canonical_json(decides).encode()).hexdigest()
    return data_root(config) / f"{config.name}-{digest[:12]}"


def token_dtype(vocab_size: int) -> np.dtype:
    """The smallest of uint16 and uint32 that holds every id, in little-endian order."""
    return np.dtype("<u2") if vocab_size <= 1 << 16 else np.dtype("<u4")


def fingerprint_of(manifest: dict[str, Any]) -> str:
    """sha256 over what was asked for and what came of it: every token and every label, wherever it lies.

    The index of documents follows from the rest, and where a text came from does not change it. A label is in the
    name of its shard; one that a name cannot spell is added.
    """
    parts: dict[str, Any] = {path: entry["sha256"] for path, entry in manifest["files"].items() if _is_content(path)}
    for split in SPLITS:
        for shard in manifest["shards"][split]:
            labels = [shard["language"], shard["topic"]]
            if labels != [slug(label) for label in labels]:
                parts[f"{shard['path']}: labels"] = labels
    return hashlib.sha256(canonical_json([manifest["identity"], parts]).encode()).hexdigest()


def _is_content(path: str) -> bool:
    return not path.endswith(".parquet") and path != ATTRIBUTION


def slug(label: str) -> str:
    """A label as a part of a file name; the number before it makes the name unique."""
    return re.sub(r"[^A-Za-z0-9]+", "_", label).strip("_")[:40] or "x"


def checksum_of(manifest: dict[str, Any]) -> str:
    """sha256 over the whole manifest, its own checksum apart."""
    rest = {name: value for name, value in manifest.items() if name != "checksum"}
    return hashlib.sha256(canonical_json(rest).encode()).hexdigest()


def open_corpus(config: DataConfig, *, verify: bool = False) -> PreparedCorpus:
    """Open what `prepare` wrote, once every file is known to be what was written (data/verify.py).

    Raises DataError if the corpus was not prepared, or names the file that is missing or damaged. `verify` hashes
    even files that were verified before and have not been touched since.
    """
    folder = corpus_folder(config)
    manifest = read_manifest(folder)
    again = f"run `moe-study prepare data={config.name}`"
    settings = ", with the same data.* settings" if place_options(config) else ""  # else it would be another corpus
    if manifest is None:
        raise DataError(f"the corpus {config.name} is not prepared in {config.root}; {again} first{settings}")
    if manifest["identity"] != identity(config):
        raise DataError(
            f"{folder / MANIFEST} is damaged: it belongs to another corpus; {again} to make it again{settings}"
        )
    check_files(folder, manifest["files"], f"{again} to make it again{settings}", again=verify)
    return _corpus(config, folder, manifest)


def corpus_fingerprint(config: DataConfig) -> str | None:
    """The fingerprint of the corpus that is prepared for this configuration; None where none is. Reads no tokens."""
    try:
        manifest = read_manifest(corpus_folder(config))
    except DataError:
        return None
    return str(manifest["fingerprint"]) if manifest and manifest["identity"] == identity(config) else None


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest, or None if there is no whole corpus in that folder."""
    path = folder / MANIFEST
    try:
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        whole = fingerprint_of(manifest) == manifest["fingerprint"]
        whole &= manifest.get("checksum") in (None, checksum_of(manifest))  # older corpora have none
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror or error})") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        whole = False
    if not whole:
        raise DataError(f"{path} is damaged; delete it and prepare this corpus again")
    return manifest


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
        read=manifest.get("read"),
    )
