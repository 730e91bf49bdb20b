import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from moe_study.data import PreparedCorpus, prepare
from moe_study.data.documents import Document
from moe_study.data.recipes import recipe_of
from moe_study.data.recipes.reading import Fields, read_documents
from moe_study.data.tally import Tally
from moe_study.design.config import DataConfig, TokenizerConfig
from moe_study.design.data_options import read_options
from moe_study.errors import ConfigError, DataError
from tests.fixtures import tiny_texts

DOMAINS = [(language, topic) for language in ("de", "en") for topic in ("news", "parliament")]
RECORDS = [
    {"text": text, "language": language, "topic": topic}
    for language, topic in DOMAINS
    for text in tiny_texts(language, topic, 30)
]


def write_txt(folder: Path) -> dict[str, Any]:
    for number, record in enumerate(RECORDS):
        path = folder / record["language"] / record["topic"] / f"{number}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(record["text"] + "\n", encoding="utf-8")
    return {"path": str(folder), "folders": ["language", "topic"]}


def write_jsonl(folder: Path) -> dict[str, Any]:
    folder.mkdir(parents=True)
    lines = [json.dumps(record, ensure_ascii=number % 2 == 0) for number, record in enumerate(RECORDS)]
    (folder / "all.jsonl").write_text("\n".join(lines) + "\n\n", encoding="utf-8")
    return {"path": str(folder)}


def write_parquet(folder: Path, records: list[dict[str, str]] = RECORDS, files: int = 3) -> dict[str, Any]:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(files):
        table = pa.Table.from_pylist(records[number::files])
        pq.write_table(table, folder / f"part-{number}.parquet", row_group_size=7)
    return {"path": str(folder)}


def prepared(tmp_path: Path, recipe: str, options: dict[str, Any]) -> PreparedCorpus:
    config = DataConfig("here", recipe, options, TokenizerConfig("bytes"), 0.2, str(tmp_path / "data"))
    return prepare(config, progress=False)


def content(corpus: PreparedCorpus) -> dict[str, bytes]:
    shards = [*corpus.train.shards, *corpus.validation.shards]
    return {f"{s.path.parent.name}/{s.path.name}": s.tokens.tobytes() for s in shards}


def documents(recipe: str, options: dict[str, Any]) -> list[Document]:
    typed = read_options(DataConfig(recipe=recipe, options=options))
    return list(recipe_of(recipe).open(typed, Path("unused"), False).documents())


def test_txt_jsonl_parquet_and_the_hub_code_give_the_same_corpus(tmp_path: Path) -> None:
    """Four ways to the same texts: the shards are equal byte by byte."""
    hub = {
        "sources": [
            {"folder": str(tmp_path / "parquet"), "files": ["part-*.parquet"], "language_field": "language",
             "topic_field": "topic"}
        ]
    }  # fmt: skip
    corpora = [
        prepared(tmp_path, "local_files", write_txt(tmp_path / "txt")),
        prepared(tmp_path, "local_files", write_jsonl(tmp_path / "jsonl")),
        prepared(tmp_path, "local_files", write_parquet(tmp_path / "parquet")),
        prepared(tmp_path, "hub_parquet", hub),
    ]
    first = content(corpora[0])
    assert len(first) == 8
    assert all(content(corpus) == first for corpus in corpora[1:])
    of_folders, of_lines, of_rows, of_hub = (corpus.fingerprint for corpus in corpora)
    assert of_lines == of_rows, "the same texts, asked for in the same words, are the same data"
    assert len({of_folders, of_lines, of_hub}) == 3


def test_a_record_knows_its_labels_better_than_its_folder_and_that_better_than_the_constant(
    tmp_path: Path,
) -> None:
    (tmp_path / "fr" / "x").mkdir(parents=True)
    lines = [{"text": "a", "language": "nl"}, {"text": "b"}, {"text": "c", "language": None, "topic": ""}]
    (tmp_path / "fr" / "x" / "a.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (tmp_path / "top.txt").write_text("d")
    options = {"path": str(tmp_path), "folders": ["language", "_"], "language": "en", "topic": "law"}
    assert [document[:3] for document in documents("local_files", options)] == [
        ("a", "nl", "law"),
        ("b", "fr", "law"),
        ("c", "fr", "law"),
        ("d", "en", "law"),
    ]


def test_a_separator_cuts_a_txt_file_into_documents(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\ntwo\n\n\nthree\n\n \n\nfour")
    for separator in ("\n\n", "\\n\\n"):  # from a file, and as a shell passes it on
        found = documents("local_files", {"path": str(tmp_path), "separator": separator})
        assert [d.text for d in found] == ["one\ntwo", "three", "four"]


def test_only_files_that_fit_the_pattern_are_read(tmp_path: Path) -> None:
    for name in ("a.txt", "b.txt", "notes.md"):
        (tmp_path / name).write_text(name)
    assert [d.text for d in documents("local_files", {"path": str(tmp_path)})] == ["a.txt", "b.txt"]
    assert [d.text for d in documents("local_files", {"path": str(tmp_path), "pattern": "b*"})] == ["b.txt"]


def test_half_a_character_spelt_in_json_becomes_a_question_mark(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "a \\ud83d b"}')
    assert documents("local_files", {"path": str(tmp_path)})[0].text == "a ? b"


@pytest.mark.parametrize(
    ("name", "raw", "sentence"),
    [
        ("a.jsonl", b'{"text": "a"}\n{"text": ', r"a\.jsonl line 2 is not JSON"),
        ("a.jsonl", b'["text"]', r"a\.jsonl line 1 is not a JSON object"),
        ("a.jsonl", b'{"body": "a"}', r"a\.jsonl line 1 has no field text; it has body"),
        ("a.jsonl", b'{"text": 3}', r"a\.jsonl line 1: the field text holds a whole number, not text"),
        ("a.txt", b"gr\xfc\xdfe", r"a\.txt line 1 is not UTF-8"),
        ("a.jsonl", b'{"text": "gr\xfc\xdfe"}', r"a\.jsonl line 1 is not UTF-8"),
        ("a.parquet", b"PAR1 and then nothing", r"a\.parquet is not a whole parquet file"),
        ("a.csv", b"text\n", r"a\.csv cannot be read; give files that end in \.txt"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_with_the_place(
    tmp_path: Path, name: str, raw: bytes, sentence: str
) -> None:
    (tmp_path / name).write_bytes(raw)
    with pytest.raises(DataError, match=sentence):
        list(read_documents(tmp_path / name, Fields()))


def test_a_parquet_file_without_the_column_names_those_it_has(tmp_path: Path) -> None:
    pq.write_table(pa.table({"body": ["a"], "title": ["b"]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"no column text; it has body, title: set data\.options"):
        list(read_documents(tmp_path / "a.parquet", Fields()))
    assert [d.text for d in read_documents(tmp_path / "a.parquet", Fields(text="body"))] == ["a"]


def test_a_folder_that_is_missing_or_empty_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere is not a folder"):
        documents("local_files", {"path": str(tmp_path / "nowhere")})
    with pytest.raises(DataError, match=r"has no \.txt, \.jsonl, \.parquet file"):
        documents("local_files", {"path": str(tmp_path)})


def hub_sources(tmp_path: Path, **shares: float) -> list[dict[str, Any]]:
    """A folder laid out like a multilingual data set, with sources for the named languages."""
    for language in shares:
        texts = [{"text": text} for text in tiny_texts("en", "news", 80, seed=ord(language[0]))]
        write_parquet(tmp_path / "wiki" / f"2023.{language}", texts, files=4)
    return [
        {"folder": str(tmp_path / "wiki"), "files": [f"2023.{language}/*.parquet"], "language": language,
         "topic": "encyclopedia", "share": share}
        for language, share in shares.items()
    ]  # fmt: skip


def test_the_hub_mix_keeps_to_its_shares(tmp_path: Path) -> None:
    options = {"max_bytes": 16_000, "sources": hub_sources(tmp_path, en=3, fr=1)}
    found = documents("hub_parquet", options)
    size = {la: sum(len(d.text.encode()) for d in found if d.language == la) for la in ("en", "fr")}
    longest = max(len(d.text.encode()) for d in found)
    assert 12_000 - longest < size["en"] <= 12_000
    assert 4_000 - longest < size["fr"] <= 4_000
    assert {d.topic for d in found} == {"encyclopedia"}


def test_only_as_many_files_are_opened_as_the_limit_asks_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []

    def reading(path: Path, fields: Fields, tally: Tally) -> Iterator[Document]:
        opened.append(path.name)
        return read_documents(path, fields, tally)

    monkeypatch.setattr("moe_study.data.recipes.hub_parquet.read_documents", reading)
    documents("hub_parquet", {"max_bytes": 7_000, "sources": hub_sources(tmp_path, en=1)})
    assert opened == ["part-0.parquet", "part-1.parquet"]


def test_a_changed_local_copy_of_the_hub_is_noticed(tmp_path: Path) -> None:
    options = read_options(
        DataConfig(recipe="hub_parquet", options={"max_bytes": 16_000, "sources": hub_sources(tmp_path, en=1)})
    )
    before = recipe_of("hub_parquet").stamp(options, tmp_path)
    assert recipe_of("hub_parquet").stamp(options, tmp_path) == before != ""
    write_parquet(tmp_path / "wiki" / "2023.en", [{"text": "other"}] * 5, files=1)
    assert recipe_of("hub_parquet").stamp(options, tmp_path) != before


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({}, "needs data.options.sources"),
        ({"sources": [{"files": ["*"]}]}, "exactly one of repo and folder"),
        ({"sources": [{"repo": "a/b", "folder": "c", "files": ["*"]}]}, "exactly one of repo and folder"),
        ({"sources": [{"repo": "a/b"}]}, "files is empty"),
        ({"sources": [{"repo": "a/b", "files": ["*"], "share": 1.0}]}, "needs data.options.max_bytes"),
        ({"sources": [{"repo": "a/b", "files": ["*"]}] * 2, "max_bytes": 10}, "needs a share"),
        ({"sources": [{"repo": "a/b", "files": ["*"]}], "max_bytes": 0}, "must be above 0"),
        ({"sources": [{"repo": "a/b", "file": ["*"]}]}, "unknown key data.options.sources.file"),
    ],
)
def test_hub_options_without_meaning_are_refused(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_options(DataConfig(recipe="hub_parquet", options=options))
    assert sentence in str(caught.value)
