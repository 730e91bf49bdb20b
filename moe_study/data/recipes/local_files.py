"""local_files: a folder of .txt, .jsonl and .parquet files, with or without language and topic labels."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from moe_study.data.documents import Document
from moe_study.data.recipes.base import Recipe, Source
from moe_study.data.recipes.reading import SUFFIXES, Fields, read_documents, stamp_of
from moe_study.design.plain import from_plain
from moe_study.errors import ConfigError, DataError


@dataclass(frozen=True)
class Options:
    """data.options of recipe local_files.

    A label is, in this order: the record's field, the name of a folder under `path`, the constant.
    """

    path: str
    pattern: str = "**/*"  # glob under path
    text_field: str = "text"
    language_field: str | None = "language"
    topic_field: str | None = "topic"
    folders: tuple[str, ...] = ()  # what the folders under path name, outermost first: language, topic, _
    language: str = "unknown"
    topic: str = "unknown"
    separator: str | None = None  # cuts .txt files into documents, \n for a line's end; null: one file, one


def _check(options: dict[str, Any]) -> Options:
    if "path" not in options:
        raise ConfigError("data=local_files needs a folder: set data.options.path")
    read: Options = from_plain(Options, options, "data.options.")
    for name in read.folders:
        if name not in ("language", "topic", "_"):
            raise ConfigError(f"data.options.folders: {name} is unknown; use language, topic or _ (neither)")
    if read.separator == "":
        raise ConfigError("data.options.separator must not be empty; use null for one document a file")
    return read


def _files(options: Options) -> list[Path]:
    root = Path(options.path).expanduser()
    if not root.is_dir():
        raise DataError(f"{root} is not a folder; set data.options.path to one that holds text")
    files = sorted(p for p in root.glob(options.pattern) if p.suffix in SUFFIXES and p.is_file())
    if not files:
        raise DataError(f"{root} has no {', '.join(SUFFIXES)} file that fits {options.pattern}")
    return files


def _stamp(options: dict[str, Any]) -> str:
    read = _check(options)
    return stamp_of(Path(read.path).expanduser(), _files(read))


def _open(options: dict[str, Any], downloads: Path, progress: bool) -> Source:
    read = _check(options)
    files = _files(read)
    return Source(
        documents=partial(_documents, files, read),
        approximate_bytes=sum(path.stat().st_size for path in files),
        pins={"files": len(files)},
    )


def _documents(files: list[Path], options: Options) -> Iterator[Document]:
    fields = Fields(
        text=options.text_field,
        language=options.language_field,
        topic=options.topic_field,
        default_language=options.language,
        default_topic=options.topic,
        separator=options.separator.replace("\\n", "\n") if options.separator else None,  # shells pass "\\n"
    )
    for path in files:
        yield from read_documents(path, _with_folder_labels(fields, path, options))


def _with_folder_labels(fields: Fields, path: Path, options: Options) -> Fields:
    folders = path.relative_to(Path(options.path).expanduser()).parts[:-1]
    labels = dict(zip(options.folders, folders, strict=False))
    return replace(
        fields,
        default_language=labels.get("language", fields.default_language),
        default_topic=labels.get("topic", fields.default_topic),
    )


RECIPE = Recipe(version=1, check=_check, stamp=_stamp, open=_open)
