import codecs
import datetime
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from moe_study.data.documents import Document
from moe_study.data.recipes.reading import EMPTY, Fields, clean_text, read_documents
from moe_study.data.tally import Tally
from moe_study.errors import DataError

LABELLED = Fields(language="language", topic="topic", default_language="en", default_topic="misc")


def read(path: Path, content: bytes | str | pa.Table, fields: Fields = LABELLED) -> list[Document]:
    if isinstance(content, pa.Table):
        pq.write_table(content, path)
    else:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return list(read_documents(path, fields))


def texts(documents: list[Document]) -> list[str]:
    return [document.text for document in documents]


# Line ends and byte-order marks ---------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", [b"", codecs.BOM_UTF8])
def test_line_ends_and_marks_of_any_system_give_the_same_documents(tmp_path: Path, end: str, mark: bytes) -> None:
    paragraphs = [f"Erste Zeile {n},\nzweite – Zeile." for n in range(180)]
    raw = mark + "\n\n".join(paragraphs).replace("\n", end).encode()
    assert texts(read(tmp_path / "a.txt", raw, Fields(separator="\n\n"))) == paragraphs
    whole = texts(read(tmp_path / "b.txt", raw))
    assert whole == ["\n\n".join(paragraphs)]
    lines = mark + end.join(json.dumps({"text": text.replace("\n", end)}) for text in paragraphs).encode()
    assert texts(read(tmp_path / "a.jsonl", lines)) == paragraphs
    table = pa.table({"text": [mark.decode() + text.replace("\n", end) for text in paragraphs]})
    assert texts(read(tmp_path / "a.parquet", table)) == paragraphs


def test_marks_within_joined_files_begin_no_text(tmp_path: Path) -> None:
    raw = b"\xef\xbb\xbfone\n\n\xef\xbb\xbf two\n\n \xef\xbb\xbf\n"
    assert texts(read(tmp_path / "a.txt", raw, Fields(separator="\n\n"))) == ["one", "two"]
    assert texts(read(tmp_path / "a.jsonl", b'\xef\xbb\xbf{"text": "a"}\n\xef\xbb\xbf{"text": "b"}\n')) == ["a", "b"]


def test_a_text_of_nothing_but_blanks_and_marks_is_empty() -> None:
    assert clean_text(" \ufeff \r\n\u2003\ufeff\t") == ""
    assert clean_text("a\ufeffb\r\r\n c ") == "a\ufeffb\n\n c"


@pytest.mark.parametrize("name", ["A.TXT", "a.Jsonl", "a.PARQUET"])
def test_suffixes_may_be_in_capitals(tmp_path: Path, name: str) -> None:
    content = {"t": "a", "l": '{"text": "a"}', "T": pa.table({"text": ["a"]})}
    key = "T" if name.endswith("PARQUET") else name[-1].lower()
    assert texts(read(tmp_path / name, content[key])) == ["a"]


# Labels ---------------------------------------------------------------------------------------------------------

MISSING = [None, "", "  ", "\t\n", "\u00a0", "\ufeff", float("nan")]
PADDED = [" law", "law ", "\tlaw\r\n", "\u00a0law\u00a0", "\ufefflaw"]


@pytest.mark.parametrize("value", MISSING)
def test_a_missing_label_is_missing(tmp_path: Path, value: Any) -> None:
    (line,) = read(tmp_path / "a.jsonl", json.dumps({"text": "a", "topic": value, "language": value}))
    assert line == Document("a", "en", "misc")
    rows = read(tmp_path / "a.parquet", pa.Table.from_pylist([{"text": "a", "topic": value, "language": value}]))
    assert rows == [line]


@pytest.mark.parametrize("value", PADDED)
def test_a_padded_label_is_the_label(tmp_path: Path, value: str) -> None:
    assert read(tmp_path / "a.jsonl", json.dumps({"text": "a", "topic": value}))[0].topic == "law"


def test_nan_in_a_column_of_numbers_is_no_label_and_years_stay_years(tmp_path: Path) -> None:
    frame = pd.DataFrame({"text": ["a", "b", "c"], "topic": [2023.0, np.nan, 2024.0]})
    pq.write_table(pa.Table.from_pandas(frame), tmp_path / "a.parquet")
    assert [d.topic for d in read_documents(tmp_path / "a.parquet", LABELLED)] == ["2023", "misc", "2024"]
    lines = '{"text": "a", "topic": 2023}\n{"text": "b", "topic": NaN}\n{"text": "c", "topic": 2024.0}'
    assert [d.topic for d in read(tmp_path / "a.jsonl", lines)] == ["2023", "misc", "2024"]


def test_labels_that_look_the_same_are_the_same(tmp_path: Path) -> None:
    labels = ["Caf\u00e9", "Cafe\u0301", "x \ud83d"]
    lines = [{"text": str(number), "topic": label} for number, label in enumerate(labels)]
    found = read(tmp_path / "a.jsonl", "\n".join(json.dumps(line) for line in lines))
    assert [d.topic for d in found] == ["Caf\u00e9", "Caf\u00e9", "x ?"]


def test_min_nan_is_a_language(tmp_path: Path) -> None:
    assert read(tmp_path / "a.jsonl", '{"text": "a", "language": "nan"}')[0].language == "nan"


# Odd types of parquet -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "column",
    [
        pa.array(["a", "b"], pa.large_string()),
        pa.array(["a", "b"]).dictionary_encode(),
        pa.array([b"a", b"b"], pa.binary()),
        pa.array([b"a", b"b"], pa.large_binary()),
    ],
)
def test_text_in_any_arrow_type_is_text(tmp_path: Path, column: pa.Array) -> None:
    found = read(tmp_path / "a.parquet", pa.table({"text": column, "topic": column}))
    assert found == [Document("a", "en", "a"), Document("b", "en", "b")]


@pytest.mark.parametrize(
    ("value", "label"),
    [(datetime.date(2024, 5, 1), "2024-05-01"), (Decimal("1.50"), "1.50"), (7, "7"), (True, "True"), (0.5, "0.5")],
)
def test_a_label_of_another_type_is_spelt(tmp_path: Path, value: Any, label: str) -> None:
    assert read(tmp_path / "a.parquet", pa.table({"text": ["a"], "topic": [value]}))[0].topic == label


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        (pa.table({"text": [1, 2]}), "row 1: the field text holds a whole number, not text"),
        (pa.table({"text": [["a"], ["b"]]}), "row 1: the field text holds a list, not text"),
        (pa.table({"text": [{"a": "b"}]}), "row 1: the field text holds a mapping, not text"),
        (pa.table({"text": ["a", "b"], "topic": [None, ["law"]]}), "row 2: the field topic holds a list, not a label"),
        (pa.table({"text": [b"a", b"\xff"]}), "row 2: the field text holds bytes that are not UTF-8"),
        (pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], ["text", "text"]), "several columns named text"),
    ],
)
def test_a_row_that_cannot_be_read_is_named(tmp_path: Path, table: pa.Table, sentence: str) -> None:
    with pytest.raises(DataError, match=sentence) as caught:
        read(tmp_path / "a.parquet", table)
    assert "a.parquet" in str(caught.value)


def test_strings_that_are_no_utf8_are_named_by_row(tmp_path: Path) -> None:
    """Arrow does not check: a column of strings may hold any bytes."""
    column = pa.array([b"a"] * 1200 + [b"gr\xfc\xdfe"] + [b"b"]).cast(pa.binary())
    unchecked = pa.Array.from_buffers(pa.string(), len(column), column.buffers())
    pq.write_table(pa.table({"text": unchecked}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet row 1201 is not UTF-8"):
        list(read_documents(tmp_path / "a.parquet", Fields()))


# What cannot be read ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "raw", "sentence"),
    [
        ("a.txt", "one\ntwo\n".encode("utf-16"), "line 1 is UTF-16, not UTF-8; convert it"),
        ("a.txt", "one".encode("utf-32"), "line 1 is UTF-32, not UTF-8"),
        ("a.txt", "one\ntwo".encode("utf-16-le"), "line 1 holds a NUL byte"),
        ("a.txt", b"one\ntwo\x00\n", "line 2 holds a NUL byte"),
        ("a.txt", b"one\r\ntwo\rgr\xfc\xdfe\n", "line 3 is not UTF-8"),
        ("a.txt", b"\x89PNG\r\n\x1a\n\x00", "line 1 is not UTF-8"),
        ("a.jsonl", '{"text": "a"}'.encode("utf-16"), "line 1 is UTF-16"),
        ("a.jsonl", b'{"text": "a"}\r\n\r\n{"text": "gr\xfc\xdfe"}', "line 3 is not UTF-8"),
        ("a.jsonl", b'{"text": "a"}\r["a"]', "line 2 is not a JSON object; write one record a line"),
        ("a.jsonl", b"[" * 100_000, "line 1 is nested too deeply"),
        ("a.jsonl", b'{"text": "a"}\n{"text": "b", "n": ' + b"9" * 5000 + b"}", "line 2 cannot be read: a number"),
        ("a.jsonl", b'{"text": "a", "text": "b"}', "line 1 cannot be read: the field text stands twice in it"),
        ("a.jsonl", b'{"text": ["a", ["b"]]}', "line 1: the field text holds a list, not text"),
        ("a.jsonl", b'{"text": "a", "topic": {"x": 1}}', "line 1: the field topic holds a mapping, not a label"),
        ("a.jsonl", b'{"text": true}', "line 1: the field text holds true or false, not text"),
        ("a.jsonl", b"{}", "line 1 has no field text; it has none"),
        ("a.jsonl", b'[\n{"text": "a"}\n]', "line 1 is not JSON"),
        ("a.parquet", b"", "is not a whole parquet file"),
    ],
)
def test_what_cannot_be_read_is_one_sentence_with_file_and_line(
    tmp_path: Path, name: str, raw: bytes, sentence: str
) -> None:
    with pytest.raises(DataError) as caught:
        read(tmp_path / name, raw)
    assert str(caught.value).startswith(f"{tmp_path / name} {sentence}")
    assert "\n" not in str(caught.value)


def test_fields_that_are_not_asked_for_may_hold_anything(tmp_path: Path) -> None:
    line = '{"id": 1, "id": 2, "meta": [[[{}]], NaN, {"text": 1, "text": 2}], "text": "a"}'
    with pytest.raises(DataError, match="stands twice"):  # even if further in: it cannot be told apart
        read(tmp_path / "a.jsonl", line)
    assert texts(read(tmp_path / "a.jsonl", line.replace(', "text": 2', ""))) == ["a"]


def test_a_file_that_vanished_is_one_sentence(tmp_path: Path) -> None:
    for name in ("a.txt", "a.jsonl", "a.parquet"):
        with pytest.raises(DataError, match=rf"{name} cannot be read \(.*No such file"):
            list(read_documents(tmp_path / name, Fields()))


def test_empty_files_and_texts_are_counted(tmp_path: Path) -> None:
    tally = Tally()
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbf \r\n")
    (tmp_path / "a.jsonl").write_text('\n{"text": ""}\n{"text": null}\n{"text": NaN}\n{"text": "a"}\n')
    (tmp_path / "b.jsonl").write_text("\n \n")
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / "a.parquet")
    for name in ("a.txt", "a.jsonl", "b.jsonl", "a.parquet"):
        list(read_documents(tmp_path / name, Fields(), tally))
    assert tally.files == 4
    assert tally.left_out[EMPTY].count == 6
    assert tally.left_out[EMPTY].examples == ["a.txt", "a.jsonl line 2", "a.jsonl line 3"]
