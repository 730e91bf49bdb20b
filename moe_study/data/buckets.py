"""Documents on their way to tokens: scattered by hash into buckets that fit in memory.

Bucket b of n holds the hashes from b/n to (b+1)/n of their range. So equal texts meet in one bucket, where
duplicates are dropped, and the buckets one after another, each sorted, are the whole corpus in the order of
its hashes, whatever n was.
"""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from moe_study.data.documents import HASH_BYTES, Document, is_validation, split_hash, text_hash
from moe_study.errors import DataError
from moe_study.files import make_folder

_BYTES_PER_BUCKET = 64 << 20
_MOST_BUCKETS = 192  # open files at once
_FLUSH_BYTES = 2 << 20

_SCHEMA = pa.schema(
    {
        "hash": pa.binary(HASH_BYTES),
        "text": pa.string(),
        "language": pa.string(),
        "topic": pa.string(),
        "group": pa.string(),
    }
)


@dataclass(frozen=True)
class HashedDocument:
    """A document with the hash of its text."""

    hash: bytes
    document: Document

    def is_validation(self, fraction: float) -> bool:
        """Whether it belongs to the validation split, of which `fraction` is the expected share."""
        return is_validation(split_hash(self.document, self.hash), fraction)


def bucket_count(approximate_bytes: int) -> int:
    """Buckets for a corpus of that many bytes of text."""
    return min(max(1, -(-approximate_bytes // _BYTES_PER_BUCKET)), _MOST_BUCKETS)


def bucket_path(folder: Path, bucket: int) -> Path:
    return folder / f"{bucket:05d}.arrow"


def scatter(documents: Iterable[Document], folder: Path, count: int) -> tuple[int, int]:
    """Write documents to `count` buckets in `folder`; returns how many there were and their bytes of text."""
    make_folder(folder, DataError)
    rows: list[list[tuple[bytes, Document]]] = [[] for _ in range(count)]
    waiting = [0] * count
    documents_seen = bytes_seen = 0
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with ExitStack() as stack:
        files = [stack.enter_context(open(bucket_path(folder, b), "wb")) for b in range(count)]
        writers = [stack.enter_context(pa.ipc.new_stream(f, _SCHEMA, options=options)) for f in files]
        for document in documents:
            hashed, size = text_hash(document.text), len(document.text.encode())
            bucket = int.from_bytes(hashed[:8], "big") * count >> 64
            rows[bucket].append((hashed, document))
            waiting[bucket] += size
            documents_seen += 1
            bytes_seen += size
            if waiting[bucket] > _FLUSH_BYTES:
                writers[bucket].write_batch(_batch(rows[bucket]))
                rows[bucket], waiting[bucket] = [], 0
        for writer, rest in zip(writers, rows, strict=True):
            if rest:
                writer.write_batch(_batch(rest))
    return documents_seen, bytes_seen


def _batch(rows: list[tuple[bytes, Document]]) -> pa.RecordBatch:
    columns = [
        [hashed for hashed, _ in rows],
        [document.text for _, document in rows],
        [document.language for _, document in rows],
        [document.topic for _, document in rows],
        [document.group for _, document in rows],
    ]
    arrays = [pa.array(column, field.type) for column, field in zip(columns, _SCHEMA, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=_SCHEMA)


def read_bucket(path: Path) -> Iterator[HashedDocument]:
    """A bucket's documents in the order of their hashes, each text once: the first that came."""
    with open(path, "rb") as handle, pa.ipc.open_stream(handle) as reader:
        table = reader.read_all()
    hashes = table["hash"].to_pylist()
    texts = table["text"]
    languages, topics, groups = (table[name].to_pylist() for name in ("language", "topic", "group"))
    last = b""
    for row in sorted(range(len(hashes)), key=hashes.__getitem__):  # stable: the first that came stays first
        if hashes[row] != last:
            last = hashes[row]
            yield HashedDocument(last, Document(texts[row].as_py(), languages[row], topics[row], groups[row]))
