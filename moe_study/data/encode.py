"""From documents to shards: encode bucket by bucket, then lay the domains of all buckets end to end."""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from moe_study.data.buckets import HashedDocument, read_bucket
from moe_study.data.shards import SPLITS, slug, token_dtype
from moe_study.data.tokenizers import Tokenizer
from moe_study.errors import DataError
from moe_study.files import atomic_file

_CHUNK_BYTES = 4 << 20  # of text encoded at once
_MOST_DOMAINS = 2000

Key = tuple[str, str, str]  # split, language, topic


@dataclass(frozen=True)
class EncodedBucket:
    """A bucket's tokens, documents sorted by split, language, topic and hash, and the index of them."""

    tokens: Path  # ids, one document after another
    index: Path  # parquet: split, language, topic, tokens, text_bytes, hash

    @property
    def is_done(self) -> bool:
        return self.index.exists()


def encoded_bucket(folder: Path, bucket: int) -> EncodedBucket:
    return EncodedBucket(folder / f"{bucket:05d}.bin", folder / f"{bucket:05d}.parquet")


def encode_bucket(
    source: Path,
    target: EncodedBucket,
    tokenizer: Tokenizer,
    fraction: float,
    advance: Callable[[int], object],
) -> None:
    """Encode one bucket. Its index is written last and stands for the whole; `advance` gets bytes of text."""
    documents = [(_key(hashed, fraction), hashed) for hashed in read_bucket(source)]
    documents.sort(key=lambda pair: pair[0])  # stable: hashes stay in order within a key
    dtype = token_dtype(tokenizer.vocab_size)
    lengths: list[int] = []
    with atomic_file(target.tokens, DataError) as handle:
        for chunk in _chunks([hashed.document.text for _, hashed in documents]):
            for ids in tokenizer.encode_batch(chunk):
                handle.write(ids.astype(dtype).tobytes())
                handle.write(dtype.type(tokenizer.end_of_text).tobytes())
                lengths.append(len(ids) + 1)
            advance(sum(len(text.encode()) for text in chunk))
    table = pa.table(
        {
            "split": [key[0] for key, _ in documents],
            "language": [key[1] for key, _ in documents],
            "topic": [key[2] for key, _ in documents],
            "tokens": pa.array(lengths, pa.int64()),
            "text_bytes": pa.array([len(h.document.text.encode()) for _, h in documents], pa.int64()),
            "hash": [hashed.hash.hex() for _, hashed in documents],
        }
    )
    with atomic_file(target.index, DataError) as handle:
        pq.write_table(table, handle)


def _key(hashed: HashedDocument, fraction: float) -> Key:
    split = "validation" if hashed.is_validation(fraction) else "train"
    return split, hashed.document.language, hashed.document.topic


def _chunks(texts: list[str]) -> Iterable[list[str]]:
    chunk: list[str] = []
    size = 0
    for text in texts:
        chunk.append(text)
        size += len(text)
        if size > _CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


@dataclass(frozen=True)
class _Section:
    """The documents of one key in one bucket: rows of its index, and where their ids lie."""

    bucket: EncodedBucket
    index: pa.Table  # the key's rows
    start: int  # ids before it in the bucket


def assemble(buckets: list[EncodedBucket], folder: Path, dtype: np.dtype) -> dict[str, Any]:
    """Write the shards and indexes of both splits; returns the manifest's entries shards and files.

    Raises DataError if the documents do not make two splits, or carry too many different labels.
    """
    sections: dict[Key, list[_Section]] = {}
    for bucket in buckets:
        for key, section in _sections(bucket):
            sections.setdefault(key, []).append(section)
    _check_domains(sections)
    shards: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS}
    files: dict[str, dict[str, Any]] = {}
    for split in SPLITS:
        rows: list[pa.Table] = []
        for number, key in enumerate(sorted(k for k in sections if k[0] == split)):
            path = f"{split}/{number:03d}-{slug(key[1])}-{slug(key[2])}.bin"
            files[path] = _write_shard(folder / path, sections[key], dtype)
            index = pa.concat_tables([section.index for section in sections[key]])
            rows.append(_index_rows(number, index))
            shards[split].append(
                {
                    "path": path,
                    "language": key[1],
                    "topic": key[2],
                    "documents": index.num_rows,
                    "tokens": files[path]["bytes"] // dtype.itemsize,
                    "text_bytes": sum(index["text_bytes"].to_pylist()),
                }
            )
        path = f"{split}/documents.parquet"
        files[path] = write_hashed(folder / path, [_parquet_bytes(pa.concat_tables(rows))])
    return {"shards": shards, "files": files}


def _sections(bucket: EncodedBucket) -> Iterable[tuple[Key, _Section]]:
    table = pq.read_table(bucket.index)
    labels = list(zip(*(table[name].to_pylist() for name in ("split", "language", "topic")), strict=True))
    ends = np.cumsum(table["tokens"].to_numpy())
    first = 0
    for row in range(1, len(labels) + 1):
        if row == len(labels) or labels[row] != labels[first]:
            start = int(ends[first - 1]) if first else 0
            yield labels[first], _Section(bucket, table.slice(first, row - first), start)
            first = row


def _check_domains(sections: dict[Key, list[_Section]]) -> None:
    different = sum(section.index.num_rows for parts in sections.values() for section in parts)
    for split in SPLITS:
        if not any(key[0] == split for key in sections):
            raise DataError(
                f"the {split} split has no document of the {different} that differ; change data.validation_fraction, "
                "or give more documents (one long text can be cut by data.options.separator)"
            )
    domains = {key[1:] for key in sections}
    if len(domains) > _MOST_DOMAINS:
        raise DataError(
            f"the documents carry {len(domains)} different pairs of language and topic, at most "
            f"{_MOST_DOMAINS} can be told apart; choose coarser label fields"
        )


def _write_shard(path: Path, sections: list[_Section], dtype: np.dtype) -> dict[str, Any]:
    def parts() -> Iterable[bytes]:
        for section in sections:
            count = int(np.sum(section.index["tokens"].to_numpy()))
            with open(section.bucket.tokens, "rb") as handle:
                handle.seek(section.start * dtype.itemsize)
                left = count * dtype.itemsize
                while left:
                    block = handle.read(min(left, 16 << 20))
                    if not block:
                        raise DataError(f"{section.bucket.tokens} is damaged; delete it and prepare again")
                    left -= len(block)
                    yield block

    return write_hashed(path, parts())


def write_hashed(path: Path, parts: Iterable[bytes]) -> dict[str, Any]:
    """Write a file atomically; returns its entry in the manifest: bytes and sha256."""
    digest, size = hashlib.sha256(), 0
    with atomic_file(path, DataError) as handle:
        for part in parts:
            handle.write(part)
            digest.update(part)
            size += len(part)
    return {"bytes": size, "sha256": digest.hexdigest()}


def _index_rows(shard: int, index: pa.Table) -> pa.Table:
    tokens = index["tokens"].to_numpy()
    return pa.table(
        {
            "shard": pa.array(np.full(len(tokens), shard, np.int32)),
            "start": pa.array(np.cumsum(tokens) - tokens),
            "tokens": index["tokens"],
            "text_bytes": index["text_bytes"],
            "hash": index["hash"],
        }
    )


def _parquet_bytes(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return sink.getvalue().to_pybytes()

