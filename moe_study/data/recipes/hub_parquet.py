"""hub_parquet: parquet files of the Hugging Face hub (or of a local folder laid out alike), in a chosen mix.

Files are fetched one after another, only as many as the limits ask for, and kept under downloads/hub; each is
read row group by row group. A source with `folder` in the place of `repo` reads a local copy through the same
code.
"""

import fnmatch
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from moe_study.data.documents import Document
from moe_study.data.places import downloads_in, folder_at
from moe_study.data.recipes import hub
from moe_study.data.recipes.base import Recipe, Source
from moe_study.data.recipes.reading import Fields, read_documents, size_of, stamp_of
from moe_study.data.recipes.walk import find_files
from moe_study.data.tally import Tally
from moe_study.design.data_options import HubParquetOptions, HubSource
from moe_study.errors import DataError

_TEXT_PER_FILE_BYTE = 2  # text takes about half its size in a parquet file


@dataclass(frozen=True)
class _File:
    path: str  # in the repository or folder
    size: int  # bytes
    fetch: Callable[[], Path]  # gives the local copy


def _stamp(options: HubParquetOptions, data_root: Path) -> str:
    """Local folders may change; a repository is looked at once, when it is prepared."""
    folders = [source for source in options.sources if source.folder is not None]
    listed = [(_folder(source), _in_folder(source, data_root, Tally())) for source in folders]
    return "".join(stamp_of(folder, [folder / file.path for file in files]) for folder, files in listed)


def _open(options: HubParquetOptions, data_root: Path, progress: bool) -> Source:
    parts: list[tuple[HubSource, int | None, list[_File]]] = []
    pins: list[dict[str, Any]] = []
    tally = Tally()
    for source in options.sources:
        if source.folder:
            files, commit = _in_folder(source, data_root, tally), None
        else:
            listing = hub.list_files(source, downloads_in(data_root))
            tally.notes += [listing.note] if listing.note else []
            files, commit = _in_repository(source, listing, progress), listing.commit
        parts.append((source, _limit(source, options), files))
        pins.append({"repo": source.repo, "revision": commit, "files": len(files)})
    size = sum(_expected_bytes(limit, files) for _, limit, files in parts)
    documents = partial(_documents, parts, tally)
    return Source(documents, approximate_bytes=size, pins={"sources": pins}, tally=tally)


def _limit(source: HubSource, options: HubParquetOptions) -> int | None:
    if options.max_bytes is None:
        return None
    shares = [s.share or 1.0 for s in options.sources]
    return round(options.max_bytes * (source.share or 1.0) / sum(shares))


def _expected_bytes(limit: int | None, files: list[_File]) -> int:
    whole = _TEXT_PER_FILE_BYTE * sum(file.size for file in files)
    return whole if limit is None else min(limit, whole)


def _documents(parts: list[tuple[HubSource, int | None, list[_File]]], tally: Tally) -> Iterator[Document]:
    for source, limit, files in parts:
        taken = 0
        for document in _whole_source(source, files, tally):
            taken += len(document.text.encode())
            if limit is not None and taken > limit:
                break
            yield document


def _whole_source(source: HubSource, files: list[_File], tally: Tally) -> Iterator[Document]:
    fields = Fields(
        text=source.text_field,
        language=source.language_field,
        topic=source.topic_field,
        default_language=source.language,
        default_topic=source.topic,
    )
    for file in files:
        yield from read_documents(file.fetch(), fields, tally)


def _folder(source: HubSource) -> Path:
    assert source.folder is not None
    folder = folder_at(source.folder, "data.options.sources: folder")
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; correct data.options.sources")
    return folder


def _in_folder(source: HubSource, data_root: Path, tally: Tally) -> list[_File]:
    folder = _folder(source)
    paths = find_files(folder, lambda path: _is_wanted(source, path.as_posix()), tally, data_root)
    listed = [_File(p.relative_to(folder).as_posix(), size_of(p), partial(Path, p)) for p in paths]
    return _some(source, listed, str(folder))


def _in_repository(source: HubSource, listing: hub.Listing, progress: bool) -> list[_File]:
    listed = [
        _File(path, size, partial(hub.fetch, source, listing, path, progress))
        for path, size in sorted(listing.files.items())
        if _is_wanted(source, path)
    ]
    return _some(source, listed, f"{source.repo} at {listing.commit[:12]}")


def _is_wanted(source: HubSource, path: str) -> bool:
    return any(fnmatch.fnmatchcase(path, pattern) for pattern in source.files)


def _some(source: HubSource, files: list[_File], where: str) -> list[_File]:
    if not files:
        patterns = ", ".join(source.files)
        raise DataError(f"{where} has no file that fits {patterns}; correct data.options.sources")
    return files


# 2: line ends, byte-order marks and labels are normalised
RECIPE = Recipe(version=2, stamp=_stamp, open=_open)
