"""local_files: a folder of .txt, .jsonl and .parquet files, with or without language and topic labels."""

from collections.abc import Iterator
from dataclasses import fields as fields_of
from dataclasses import replace
from functools import partial
from pathlib import Path

from moe_study.data.documents import Document
from moe_study.data.places import folder_at
from moe_study.data.recipes.base import Recipe, Source
from moe_study.data.recipes.reading import SUFFIXES, Fields, is_readable, read_documents, size_of, stamp_of
from moe_study.data.recipes.walk import Pattern, find_files
from moe_study.data.tally import Tally
from moe_study.design.data_options import LocalFilesOptions, label_of
from moe_study.errors import DataError

OTHER_KIND = f"not {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}"
MOST_PROBLEMS = 10  # files that cannot be read, after which the rest is not looked at
_NAMED_BY_DEFAULT = {one.name: one.default for one in fields_of(LocalFilesOptions)}


def _stamp(options: LocalFilesOptions, data_root: Path) -> str:
    return stamp_of(_root(options), _files(options, data_root, Tally()))


def _open(options: LocalFilesOptions, data_root: Path, progress: bool) -> Source:
    tally = Tally()
    files = _files(options, data_root, tally)
    return Source(
        documents=partial(_documents, files, options, tally),
        approximate_bytes=sum(map(size_of, files)),
        pins={"files": len(files)},
        tally=tally,
    )


def _root(options: LocalFilesOptions) -> Path:
    root = folder_at(options.path, "data.options.path")
    if not root.is_dir():
        raise DataError(f"{root} is not a folder; set data.options.path to one that holds text")
    return root


def _files(options: LocalFilesOptions, data_root: Path, tally: Tally) -> list[Path]:
    root = _root(options)
    found = find_files(root, Pattern(options.pattern), tally, data_root)
    for path in found:
        if not is_readable(path):
            tally.leave_out(OTHER_KIND, str(path.relative_to(root)))
    files = [path for path in found if is_readable(path)]
    if not files:
        raise DataError(f"{root} has no {', '.join(SUFFIXES)} file that fits {options.pattern}{tally.in_brackets()}")
    return files


def _documents(files: list[Path], options: LocalFilesOptions, tally: Tally) -> Iterator[Document]:
    """All documents; what cannot be read is told at the end, a sentence for each file."""
    fields = Fields(
        text=options.text_field,
        language=options.language_field,
        topic=options.topic_field,
        default_language=options.language,
        default_topic=options.topic,
        separator=options.separator,
    )
    root, problems = _root(options), list[str]()
    for path in files:
        folders = path.relative_to(root).parts[:-1]
        try:
            yield from read_documents(path, _with_folder_labels(fields, folders, options), tally)
        except DataError as error:
            problems.append(str(error))
            if len(problems) == MOST_PROBLEMS:
                problems.append(f"{MOST_PROBLEMS} files cannot be read; what comes after them was not looked at")
                break
    if problems:
        raise DataError("\n".join(problems))
    tally.notes += _unused_fields(options, tally)


def _unused_fields(options: LocalFilesOptions, tally: Tally) -> Iterator[str]:
    for option in ("language_field", "topic_field"):
        name = getattr(options, option)
        if name and name != _NAMED_BY_DEFAULT[option] and name not in tally.fields:
            yield f"no record has the field {name} (data.options.{option})"


def _with_folder_labels(fields: Fields, folders: tuple[str, ...], options: LocalFilesOptions) -> Fields:
    labels = {kind: label_of(name) for kind, name in zip(options.folders, folders, strict=False)}
    return replace(
        fields,
        default_language=labels.get("language") or fields.default_language,
        default_topic=labels.get("topic") or fields.default_topic,
    )


# 2: line ends, byte-order marks and labels are normalised, links are followed, hidden files are not read
RECIPE = Recipe(version=2, stamp=_stamp, open=_open)
