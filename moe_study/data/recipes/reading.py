"""Documents out of txt, jsonl and parquet files: the one reader behind local folders and the hub.

Text is UTF-8. Byte-order marks are dropped and every line's end becomes one \\n before anything is cut or hashed,
so that a text is the same text whatever machine it was written on. What cannot be read is one DataError that names
the file and the line.
"""

import codecs
import hashlib
import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from moe_study.data.documents import Document
from moe_study.data.tally import Tally
from moe_study.design.data_options import UNKNOWN, label_of
from moe_study.errors import DataError, reason_of

SUFFIXES = (".txt", ".jsonl", ".parquet")
EMPTY = "without text"
_ROWS = 1024  # rows of a parquet file that are in memory at once
_OTHER_UNICODE = {
    "UTF-32": (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE),  # first: the mark of UTF-16 begins one of them
    "UTF-16": (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE),
}
_TYPE_NAMES = {int: "a whole number", float: "a number", bool: "true or false", list: "a list", dict: "a mapping"}


@dataclass(frozen=True)
class Fields:
    """Where a record's text and labels stand. A label: its field if the record has one, else the constant."""

    text: str = "text"
    language: str | None = None
    topic: str | None = None
    default_language: str = UNKNOWN
    default_topic: str = UNKNOWN
    separator: str | None = None  # cuts a .txt file into documents; None: one file, one document


def stamp_of(root: Path, files: list[Path]) -> str:
    """Changes when one of the files comes, goes, or is written, with whatever times; reads no content."""
    digest = hashlib.sha256()
    for path in files:
        status = _stat(path)
        digest.update(os.fsencode(path.relative_to(root)))
        digest.update(f"\0{status.st_size}\0{status.st_mtime_ns}\0{status.st_ctime_ns}\n".encode())
    return digest.hexdigest()


def size_of(path: Path) -> int:
    """Bytes of a file; DataError if it is gone."""
    return _stat(path).st_size


def _stat(path: Path) -> os.stat_result:
    try:
        return path.stat()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror or error})") from None


def is_readable(path: Path) -> bool:
    """Whether the file's name ends as one of SUFFIXES, in capitals or not."""
    return path.suffix.lower() in SUFFIXES


def read_documents(path: Path, fields: Fields, tally: Tally | None = None) -> Iterator[Document]:
    """Documents of one file in its own order, counted in `tally`. DataError names file and line."""
    tally = tally if tally is not None else Tally()
    readers = {".txt": _read_txt, ".jsonl": _read_jsonl, ".parquet": _read_parquet}
    if not is_readable(path):
        raise DataError(f"{path} cannot be read; give files that end in {', '.join(SUFFIXES)}")
    tally.files += 1
    try:
        yield from readers[path.suffix.lower()](path, fields, tally)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror or error})") from None


def clean_text(text: str) -> str:
    """One \\n for every line's end; no blanks and no byte-order marks at either end.

    A lone surrogate, which JSON can spell, has no UTF-8; it becomes a question mark.
    """
    text = text.encode("utf-8", "replace").decode().replace("\r\n", "\n").replace("\r", "\n")
    while (stripped := text.strip().strip("\ufeff")) != text:
        text = stripped
    return text


def _read_txt(path: Path, fields: Fields, tally: Tally) -> Iterator[Document]:
    raw = path.read_bytes()
    whole = _decoded(raw, path).replace("\r\n", "\n").replace("\r", "\n")
    if "\0" in whole:
        line = whole[: whole.index("\0")].count("\n") + 1
        raise DataError(f"{path} line {line} holds a NUL byte: it is no text, or UTF-16 without its mark; {_CONVERT}")
    empty = True
    for text in whole.split(fields.separator) if fields.separator else [whole]:
        if text := clean_text(text):
            empty = False
            yield Document(text, fields.default_language, fields.default_topic)
    if empty:
        tally.leave_out(EMPTY, path.name)


_CONVERT = "convert it to UTF-8, or remove it"


def _decoded(raw: bytes, path: Path, line: int = 1) -> str:
    """Bytes that begin with line `line` of `path`, as text."""
    if line == 1:
        for name, marks in _OTHER_UNICODE.items():
            if raw.startswith(marks):
                raise DataError(f"{path} line 1 is {name}, not UTF-8; {_CONVERT}")
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        line += len(raw[: error.start + 1].splitlines()) - 1
        raise DataError(f"{path} line {line} is not UTF-8; {_CONVERT}") from None


def _read_jsonl(path: Path, fields: Fields, tally: Tally) -> Iterator[Document]:
    wanted = [name for name in (fields.text, fields.language, fields.topic) if name]

    def record_of(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        record = dict(pairs)
        if len(record) < len(pairs):
            names = [name for name, _ in pairs]
            for name in wanted:
                if names.count(name) > 1:
                    raise ValueError(f"the field {name} stands twice in it")
        return record

    decoder = json.JSONDecoder(object_pairs_hook=record_of)
    empty = True
    for number, line in _lines(path):
        empty = False
        try:
            record = decoder.decode(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{path} line {number} is not JSON ({error.msg}); correct the file") from None
        except RecursionError:
            raise DataError(f"{path} line {number} is nested too deeply; correct the file") from None
        except ValueError as error:  # among them a number of more digits than Python reads
            reason = "a number in it has too many digits" if "digits" in str(error) else str(error)
            raise DataError(f"{path} line {number} cannot be read: {reason}; correct the file") from None
        if not isinstance(record, dict):
            raise DataError(f"{path} line {number} is not a JSON object; write one record a line")
        if document := _document(record, fields, f"{path} line {number}", tally):
            yield document
    if empty:
        tally.leave_out(EMPTY, path.name)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Numbers and text of the lines that are not blank; \\n, \\r\\n and \\r end a line."""
    number = 0
    with open(path, "rb") as handle:
        for block in handle:
            for raw in block.splitlines():
                number += 1
                if line := _decoded(raw, path, number).strip().lstrip("\ufeff"):
                    yield number, line


def _read_parquet(path: Path, fields: Fields, tally: Tally) -> Iterator[Document]:
    try:
        with pq.ParquetFile(path) as table:
            names = table.schema_arrow.names
            wanted = [name for name in (fields.text, fields.language, fields.topic) if name]
            present = [name for name in dict.fromkeys(wanted) if name in names]
            if fields.text not in present:
                raise DataError(
                    f"{path} has no column {fields.text}; it has {', '.join(names)}: set data.options.text_field"
                )
            if twice := [name for name in present if names.count(name) > 1]:
                raise DataError(f"{path} has several columns named {twice[0]}; correct the file")
            row = 0
            for batch in table.iter_batches(_ROWS, columns=present):
                for record in _rows(batch, path, row):
                    row += 1
                    if document := _document(record, fields, f"{path} row {row}", tally):
                        yield document
            if row == 0:
                tally.leave_out(EMPTY, path.name)
    except pa.ArrowException as error:
        raise DataError(f"{path} is not a whole parquet file ({reason_of(error)})") from None


def _rows(batch: pa.RecordBatch, path: Path, before: int) -> list[dict[str, Any]]:
    """The rows of a batch, `before` of the file's rows before it; DataError names a row that Python cannot hold."""
    try:
        rows: list[dict[str, Any]] = batch.to_pylist()
        return rows
    except (ValueError, OverflowError):  # UTF-8 that is none, a time beyond the calendar
        for number in range(batch.num_rows):
            try:
                batch.slice(number, 1).to_pylist()
            except (ValueError, OverflowError) as error:
                reason = "is not UTF-8" if isinstance(error, UnicodeDecodeError) else f"cannot be read ({error})"
                raise DataError(f"{path} row {before + number + 1} {reason}; correct the file") from None
        raise


def _document(record: dict[str, Any], fields: Fields, where: str, tally: Tally) -> Document | None:
    if fields.text not in record:
        raise DataError(
            f"{where} has no field {fields.text}; it has {', '.join(map(str, record)) or 'none'}: "
            "set data.options.text_field"
        )
    text = record[fields.text]
    if _is_missing(text):
        text = ""
    if isinstance(text, bytes):
        text = _from_bytes(text, fields.text, where)
    if not isinstance(text, str):
        raise DataError(f"{where}: the field {fields.text} holds {_type_name(text)}, not text")
    if not (text := clean_text(text)):
        tally.leave_out(EMPTY, where.rpartition("/")[2])
        return None
    tally.fields.update(name for name in (fields.language, fields.topic) if name and name in record)
    return Document(
        text,
        _label(record, fields.language, fields.default_language, where),
        _label(record, fields.topic, fields.default_topic, where),
    )


def _label(record: dict[str, Any], field: str | None, default: str, where: str) -> str:
    """The record's label, or `default` where it has none: null, NaN and blanks name nothing."""
    value = record.get(field) if field else None
    if field is None or _is_missing(value):
        return default
    if isinstance(value, bytes):
        value = _from_bytes(value, field, where)
    if isinstance(value, list | dict | tuple):
        raise DataError(f"{where}: the field {field} holds {_type_name(value)}, not a label")
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # a column of years with a gap comes as 2024.0
    return label_of(str(value)) or default


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _from_bytes(value: bytes, field: str, where: str) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise DataError(f"{where}: the field {field} holds bytes that are not UTF-8") from None


def _type_name(value: Any) -> str:
    return _TYPE_NAMES.get(type(value), type(value).__name__)
