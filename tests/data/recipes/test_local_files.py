import dataclasses
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from moe_study.data import fingerprint, prepare
from moe_study.data.documents import Document
from moe_study.data.recipes import local_files
from moe_study.data.recipes.local_files import RECIPE
from moe_study.data.tally import Tally
from moe_study.design.config import DataConfig, TokenizerConfig
from moe_study.design.data_options import read_options
from moe_study.errors import DataError, StudyError
from tests.fixtures import tiny_texts


def source(folder: Path, **options: Any) -> tuple[list[Document], Tally]:
    typed = read_options(DataConfig(recipe="local_files", options={"path": str(folder), **options}))
    found = RECIPE.open(typed, Path("unused"), False)
    return list(found.documents()), found.tally


def config(tmp_path: Path, folder: Path, **options: Any) -> DataConfig:
    options = {"path": str(folder), **options}
    return DataConfig("mine", "local_files", options, TokenizerConfig("bytes"), 0.2, str(tmp_path / "data"))


@pytest.mark.parametrize("separator", ["\n\n", "\\n\\n", "\r\n\r\n", "\\r\\n\\r\\n", "\r\r"])
def test_a_text_of_any_system_is_the_same_data_cut_by_any_separator(tmp_path: Path, separator: str) -> None:
    paragraphs = tiny_texts("de", "news", 180)
    found = set()
    for name, end in (("unix", "\n"), ("windows", "\r\n"), ("mac", "\r")):
        (tmp_path / name).mkdir()
        mark = "\ufeff" if name == "windows" else ""
        (tmp_path / name / "a.txt").write_bytes((mark + (end * 2).join(paragraphs)).encode())
        corpus = prepare(config(tmp_path, tmp_path / name, separator=separator), progress=False)
        assert sum(shard["documents"] for shard in corpus.table()) == 180
        found.add(corpus.fingerprint)
    assert len(found) == 1


def test_a_separator_of_tabs_is_a_separator(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\t\ttwo\tthree")
    assert [d.text for d in source(tmp_path, separator="\\t\\t")[0]] == ["one", "two\tthree"]
    assert [d.text for d in source(tmp_path, separator=".*")[0]] == ["one\t\ttwo\tthree"], "it is no pattern"


def test_labels_of_folders_are_labels_like_others(tmp_path: Path) -> None:
    for number, folder in enumerate((" law ", "law", "\u00a0", "\ufefflaw")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.txt").write_text(f"text {number}")
    found = {d.topic for d in source(tmp_path, folders=["topic"], topic=" misc ")[0]}
    assert found == {"law", "misc"}


def test_a_folder_whose_name_is_no_utf8_is_read(tmp_path: Path) -> None:
    folder = bytes(tmp_path) + b"/gr\xfc\xdfe"
    Path(folder.decode("utf-8", "surrogateescape")).mkdir()
    (Path(folder.decode("utf-8", "surrogateescape")) / "a.txt").write_text("a " * 500)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "b.txt").write_text("b")
    assert {d.topic for d in source(tmp_path, folders=["topic"])[0]} == {"gr??e", "b"}
    assert len(RECIPE.stamp(read_options(config(tmp_path, tmp_path)), tmp_path / "data")) == 64


def test_every_file_that_cannot_be_read_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"gr\xfc\xdfe")
    (tmp_path / "b.txt").write_text("good")
    (tmp_path / "c.jsonl").write_text('{"text": "a"}\n{')
    (tmp_path / "d.parquet").write_text("")
    with pytest.raises(DataError) as caught:
        source(tmp_path)
    first, second, third = str(caught.value).splitlines()
    assert "a.txt line 1 is not UTF-8" in first
    assert "c.jsonl line 2 is not JSON" in second
    assert "d.parquet is not a whole parquet file" in third


def test_of_many_files_that_cannot_be_read_the_first_are_told(tmp_path: Path) -> None:
    for number in range(30):
        (tmp_path / f"{number:02d}.txt").write_bytes(b"\xff")
    with pytest.raises(DataError) as caught:
        source(tmp_path)
    assert len(str(caught.value).splitlines()) == local_files.MOST_PROBLEMS + 1


def test_what_is_left_out_is_counted_by_reason(tmp_path: Path) -> None:
    for name in ("a.txt", "b.csv", "c.md", ".d.txt", "e/f.TXT", "e/g.txt.gz"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    documents, tally = source(tmp_path)
    assert [d.text for d in documents] == ["a.txt", "e/f.TXT"]
    assert tally.files == 2
    assert {reason: entry.count for reason, entry in tally.left_out.items()} == {
        "hidden": 1,
        "not .txt, .jsonl or .parquet": 3,
    }
    assert tally.left_out["not .txt, .jsonl or .parquet"].examples == ["b.csv", "c.md", "e/g.txt.gz"]


def test_the_data_root_may_lie_among_the_texts(tmp_path: Path) -> None:
    for number in range(20):
        (tmp_path / f"{number}.txt").write_text(f"text {number}")
    first = prepare(config(tmp_path, tmp_path), progress=False)
    again = prepare(config(tmp_path, tmp_path), progress=False)
    assert again.fingerprint == first.fingerprint
    assert again.read == first.read, "it was found, not made again"
    (tmp_path / "20.txt").write_text("text 20")
    assert prepare(config(tmp_path, tmp_path), progress=False).read["files"] == 21


def test_a_folder_without_a_file_to_read_says_what_lies_there(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text\n")
    (tmp_path / ".b.txt").write_text("b")
    with pytest.raises(DataError, match=r"left out: 1 hidden, 1 not \.txt, \.jsonl or \.parquet"):
        source(tmp_path)


def test_a_label_field_that_no_record_has_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "a", "subject": null}')
    assert source(tmp_path)[1].notes == [], "the fields looked for by default need not be there"
    assert source(tmp_path, topic_field="subject")[1].notes == []
    assert source(tmp_path, topic_field="subjct")[1].notes == [
        "no record has the field subjct (data.options.topic_field)"
    ]


def test_a_source_that_was_overwritten_and_kept_its_times_is_prepared_again(tmp_path: Path) -> None:
    texts = tmp_path / "texts"
    texts.mkdir()
    lines = [json.dumps({"text": text}) for text in tiny_texts("en", "news", 40)]
    (texts / "a.jsonl").write_text("\n".join(lines))
    before = prepare(config(tmp_path, texts), progress=False)
    times = (texts / "a.jsonl").stat()
    time.sleep(0.02)
    (texts / "a.jsonl").write_text("\n".join(lines).replace("market", "MARKET"))
    os.utime(texts / "a.jsonl", ns=(times.st_atime_ns, times.st_mtime_ns))
    assert (texts / "a.jsonl").stat().st_size == times.st_size
    after = prepare(config(tmp_path, texts), progress=False)
    assert after.fingerprint != before.fingerprint
    assert fingerprint(dataclasses.replace(config(tmp_path, texts), name="other")) is None


@pytest.mark.parametrize("name", ["~nobody_of_this_name/texts", "a" * 5000, "a\0b"])
def test_a_path_that_can_be_none_is_one_sentence(name: str) -> None:
    with pytest.raises(StudyError, match=r"data\.options\.path") as caught:
        source(Path("unused"), path=name)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300
