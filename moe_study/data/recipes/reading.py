"""Documents out of txt, jsonl and parquet files: the one reader behind local folders and the hub."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from moe_study.data.documents import Document
from moe_study.errors import DataError

SUFFIXES = (".txt", ".jsonl", ".parquet")
_ROWS = 1024  # rows of a parquet file that are in memory at once


@dataclass(frozen=True)
class Fields:
    """Where a record's text and labels stand. A label: its field if the record has one, else the constant."""

    text: str = "text"
    language: str | None = None
    topic: str | None = None
    default_language: str = "unknown"
    default_topic: str = "unknown"
    separator: str | None = None  # cuts a .txt file into documents; None: one file, one document


def stamp_of(root: Path, files: list[Path]) -> str:
    """Changes when one of the files comes, goes, or is written; reads no content."""
    digest = hashlib.sha256()
    for path in files:
        stat = path.stat()
        digest.update(f"{path.relative_to(root).as_posix()}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def read_documents(path: Path, fields: Fields) -> Iterator[Document]:
    """Documents of one file in its own order; empty texts are left out. DataError names file and place."""
    readers = {".txt": _read_txt, ".jsonl": _read_jsonl, ".parquet": _read_parquet}
    if path.suffix not in readers:
        raise DataError(f"{path} cannot be read; give files that end in {', '.join(SUFFIXES)}")
    try:
        yield from readers[path.suffix](path, fields)
    except UnicodeDecodeError:
        raise DataError(f"{path} is not UTF-8; convert it first") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror or error}); correct data.options") from None


def _read_txt(path: Path, fields: Fields) -> Iterator[Document]:
    # Read as bytes: universal newlines would hide which text a file really holds.
    whole = path.read_bytes().decode()
    for text in whole.split(fields.separator) if fields.separator else [whole]:
        if text := text.strip():
            yield Document(text, fields.default_language, fields.default_topic)


def _read_jsonl(path: Path, fields: Fields) -> Iterator[Document]:
    with open(path, encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except json.JSONDecodeError as error:
                raise DataError(f"{path} line {number} is not JSON ({error.msg}); correct the file") from None
            if not isinstance(record, dict):
                raise DataError(f"{path} line {number} is not a JSON object; correct the file")
            if document := _document(record, fields, f"{path} line {number}"):
                yield document


def _read_parquet(path: Path, fields: Fields) -> Iterator[Document]:
    try:
        with pq.ParquetFile(path) as table:
            wanted = [name for name in (fields.text, fields.language, fields.topic) if name]
            present = [name for name in wanted if name in table.schema_arrow.names]
            if fields.text not in present:
                raise DataError(
                    f"{path} has no column {fields.text}; it has {', '.join(table.schema_arrow.names)}: "
                    "set data.options.text_field"
                )
            row = 0
            for batch in table.iter_batches(_ROWS, columns=present):
                for record in batch.to_pylist():
                    row += 1
                    if document := _document(record, fields, f"{path} row {row}"):
                        yield document
    except pa.ArrowException as error:
        raise DataError(f"{path} is no whole parquet file ({str(error).splitlines()[0]})") from None


def _document(record: dict[str, Any], fields: Fields, where: str) -> Document | None:
    text = record.get(fields.text)
    if text is None and fields.text not in record:
        raise DataError(
            f"{where} has no field {fields.text}; it has {', '.join(map(str, record))}: "
            "set data.options.text_field"
        )
    if text is None:
        return None
    if not isinstance(text, str):
        raise DataError(f"{where}: the field {fields.text} holds {type(text).__name__}, not text")
    # A lone surrogate, which JSON can spell, has no UTF-8; it becomes a question mark.
    text = text.strip().encode("utf-8", "replace").decode()
    if not text:
        return None
    return Document(
        text,
        _label(record, fields.language, fields.default_language),
        _label(record, fields.topic, fields.default_topic),
    )


def _label(record: dict[str, Any], field: str | None, default: str) -> str:
    value = record.get(field) if field else None
    return str(value) if value not in (None, "") else default
