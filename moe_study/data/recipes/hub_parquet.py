"""hub_parquet: parquet files of the Hugging Face hub (or of a local folder laid out alike), in a chosen mix.

Files are fetched one after another, only as many as the limits ask for, and kept under downloads/hub; each is
read row group by row group. A source with `folder` in the place of `repo` reads a local copy through the same
code.
"""

import contextlib
import errno
import fnmatch
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from moe_study.data.documents import Document
from moe_study.data.recipes.base import Recipe, Source
from moe_study.data.recipes.reading import Fields, read_documents, stamp_of
from moe_study.design.plain import from_plain
from moe_study.errors import ConfigError, DataError

_TEXT_PER_FILE_BYTE = 2  # text takes about half its size in a parquet file


@dataclass(frozen=True)
class HubSource:
    """One part of the mix."""

    files: tuple[str, ...] = ()  # glob patterns of paths in the repository or folder
    repo: str | None = None  # owner/name of a data set on the hub
    revision: str | None = None  # commit; null: the newest when it is first prepared
    folder: str | None = None  # a local folder in the repository's place
    language: str = "unknown"
    topic: str = "unknown"
    text_field: str = "text"
    language_field: str | None = None
    topic_field: str | None = None
    share: float | None = None  # of data.options.max_bytes, in proportion to the other sources' shares


@dataclass(frozen=True)
class Options:
    """data.options of recipe hub_parquet."""

    sources: tuple[HubSource, ...] = ()
    max_bytes: int | None = None  # UTF-8 bytes of text in all; null: everything


@dataclass(frozen=True)
class _File:
    path: str  # in the repository or folder
    size: int  # bytes
    fetch: Callable[[], Path]  # gives the local copy


def _check(options: dict[str, Any]) -> Options:
    read: Options = from_plain(Options, options, "data.options.")
    if not read.sources:
        raise ConfigError("recipe hub_parquet needs data.options.sources, a list with at least one source")
    if read.max_bytes is not None and read.max_bytes < 1:
        raise ConfigError(f"data.options.max_bytes must be above 0, not {read.max_bytes}; null takes all")
    for i, source in enumerate(read.sources):
        where = f"data.options.sources[{i}]"
        if (source.repo is None) == (source.folder is None):
            raise ConfigError(f"{where} needs exactly one of repo and folder")
        if not source.files:
            raise ConfigError(f"{where}.files is empty; give patterns such as plain_text/*.parquet")
        if source.share is not None and (source.share <= 0 or read.max_bytes is None):
            raise ConfigError(f"{where}.share must be above 0 and needs data.options.max_bytes")
        if source.share is None and read.max_bytes is not None and len(read.sources) > 1:
            raise ConfigError(f"{where} needs a share, since data.options.max_bytes is set")
    return read


def _stamp(options: dict[str, Any]) -> str:
    """Local folders may change; a repository is looked at once, when it is prepared."""
    folders = [source for source in _check(options).sources if source.folder is not None]
    return "".join(stamp_of(_folder(s), [_folder(s) / f.path for f in _in_folder(s)]) for s in folders)


def _open(options: dict[str, Any], downloads: Path, progress: bool) -> Source:
    read = _check(options)
    parts: list[tuple[HubSource, int | None, list[_File]]] = []
    pins: list[dict[str, Any]] = []
    for source in read.sources:
        files, revision = (
            (_in_folder(source), None) if source.folder else _in_repository(source, downloads, progress)
        )
        parts.append((source, _limit(source, read), files))
        pins.append({"repo": source.repo, "revision": revision, "files": len(files)})
    size = sum(_expected_bytes(limit, files) for _, limit, files in parts)
    return Source(documents=partial(_documents, parts), approximate_bytes=size, pins={"sources": pins})


def _limit(source: HubSource, options: Options) -> int | None:
    if options.max_bytes is None:
        return None
    shares = [s.share or 1.0 for s in options.sources]
    return round(options.max_bytes * (source.share or 1.0) / sum(shares))


def _expected_bytes(limit: int | None, files: list[_File]) -> int:
    whole = _TEXT_PER_FILE_BYTE * sum(file.size for file in files)
    return whole if limit is None else min(limit, whole)


def _documents(parts: list[tuple[HubSource, int | None, list[_File]]]) -> Iterator[Document]:
    for source, limit, files in parts:
        taken = 0
        for document in _whole_source(source, files):
            taken += len(document.text.encode())
            if limit is not None and taken > limit:
                break
            yield document


def _whole_source(source: HubSource, files: list[_File]) -> Iterator[Document]:
    fields = Fields(
        text=source.text_field,
        language=source.language_field,
        topic=source.topic_field,
        default_language=source.language,
        default_topic=source.topic,
    )
    for file in files:
        yield from read_documents(file.fetch(), fields)


def _folder(source: HubSource) -> Path:
    assert source.folder is not None
    folder = Path(source.folder).expanduser()
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; correct data.options.sources")
    return folder


def _in_folder(source: HubSource) -> list[_File]:
    folder = _folder(source)
    paths = [p for p in folder.rglob("*") if p.is_file()]
    listed = [
        _File(p.relative_to(folder).as_posix(), p.stat().st_size, partial(Path, p)) for p in sorted(paths)
    ]
    return _chosen(source, listed, str(folder))


def _in_repository(source: HubSource, downloads: Path, progress: bool) -> tuple[list[_File], str]:
    """The files on the hub, and the commit that they were listed at."""
    # Imported here: it takes most of a second, and nothing else needs it.
    from huggingface_hub import HfApi

    assert source.repo is not None
    with _hub_errors(source):
        info = HfApi().dataset_info(source.repo, revision=source.revision, files_metadata=True)
    revision = str(info.sha)
    listed = [
        _File(s.rfilename, s.size or 0, partial(_fetch, source, revision, s.rfilename, downloads, progress))
        for s in sorted(info.siblings or [], key=lambda s: s.rfilename)
    ]
    return _chosen(source, listed, f"{source.repo} at {revision[:12]}"), revision


def _chosen(source: HubSource, listed: list[_File], where: str) -> list[_File]:
    chosen = [f for f in listed if any(fnmatch.fnmatchcase(f.path, pattern) for pattern in source.files)]
    if not chosen:
        patterns = ", ".join(source.files)
        raise DataError(f"{where} has no file that fits {patterns}; correct data.options.sources")
    return chosen


def _fetch(source: HubSource, revision: str, path: str, downloads: Path, progress: bool) -> Path:
    """Download one file, or find it; the hub's client goes on where an interrupted download stopped."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.utils import disable_progress_bars, enable_progress_bars

    assert source.repo is not None
    (enable_progress_bars if progress else disable_progress_bars)()
    with _hub_errors(source):
        return Path(
            hf_hub_download(
                source.repo, path, repo_type="dataset", revision=revision, cache_dir=downloads / "hub"
            )
        )


@contextlib.contextmanager
def _hub_errors(source: HubSource) -> Iterator[None]:
    """Turn the hub client's many errors into one sentence about the source."""
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    try:
        yield
    except RevisionNotFoundError as error:
        raise DataError(
            f"{source.repo} has no revision {source.revision}; correct data.options.sources"
        ) from error
    except RepositoryNotFoundError as error:
        raise DataError(
            f"the hub has no data set {source.repo} that can be read from here; correct "
            "data.options.sources, or log in with `hf auth login`"
        ) from error
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
            raise  # of this machine, not of the hub
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DataError(
            f"could not read {source.repo} from the hub ({reason}); check the network and prepare again: "
            "what was fetched is kept"
        ) from error


RECIPE = Recipe(version=1, check=_check, stamp=_stamp, open=_open)
