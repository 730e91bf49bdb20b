"""The Hugging Face hub: what a data set holds at a commit, and its files, from the network or from what is cached.

A commit never changes, so the list of its files is kept beside them (downloads/hub/listings) and the hub is not
asked again. With HF_HUB_OFFLINE=1, or no network, what is cached serves: a revision whose list was kept; else a
commit whose files lie in a cache of the hub's client, ours or the user's own (HF_HUB_CACHE).
"""

import contextlib
import errno
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from moe_study.design.data_options import HubSource
from moe_study.errors import DataError, StudyError, reason_of
from moe_study.files import write_json_atomic

_COMMIT = re.compile(r"[0-9a-f]{40}")
_OURS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES}  # of this machine, not of the hub


@dataclass(frozen=True)
class Listing:
    """What a repository holds at a commit."""

    commit: str
    files: dict[str, int]  # path to bytes
    cache: Path  # the hub client's folder that they are fetched to, or lie in
    note: str = ""  # a sentence for the user


def list_files(source: HubSource, downloads: Path) -> Listing:
    """What the source's repository holds at its revision; DataError where neither hub nor cache can say."""
    cache = downloads / "hub"
    kept = _kept(source, cache)
    if kept is not None and _COMMIT.fullmatch(source.revision or ""):
        return kept
    try:
        listing = _asked(source, cache)
    except DataError as error:
        if kept is not None and _is_offline():
            return kept
        if not isinstance(error, NotReached):
            raise
        listing = _cached(source, cache, error)
    else:
        _keep(source, cache, listing)
    return listing


class NotReached(DataError):
    """The hub gave no answer, or must not be asked."""


def fetch(source: HubSource, listing: Listing, path: str, progress: bool) -> Path:
    """Download one file, or find it; the hub's client goes on where an interrupted download stopped."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import LocalEntryNotFoundError
    from huggingface_hub.utils import disable_progress_bars, enable_progress_bars

    assert source.repo is not None
    (enable_progress_bars if progress else disable_progress_bars)()
    with _hub_errors(source):
        try:
            found = hf_hub_download(
                source.repo, path, repo_type="dataset", revision=listing.commit, cache_dir=listing.cache
            )
        except LocalEntryNotFoundError as error:
            if not _is_offline():
                raise
            raise NotReached(
                f"{source.repo}: {path} is not cached here at {listing.commit[:12]}, and HF_HUB_OFFLINE forbids to "
                "ask the hub; prepare once with network, or copy its cache here"
            ) from error
    return Path(found)


def _asked(source: HubSource, cache: Path) -> Listing:
    """The hub's own answer."""
    # Imported here: it takes most of a second, and nothing else needs it.
    from huggingface_hub import HfApi

    assert source.repo is not None
    with _hub_errors(source):
        info = HfApi().dataset_info(source.repo, revision=source.revision, files_metadata=True)
    return Listing(str(info.sha), {s.rfilename: s.size or 0 for s in info.siblings or []}, cache)


def _is_offline() -> bool:
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


# What is kept ------------------------------------------------------------------------------------------------


def _listing_file(source: HubSource, cache: Path) -> Path:
    name = f"{source.repo}@{source.revision or 'newest'}"
    return cache / "listings" / (re.sub(r"[^A-Za-z0-9._@-]", "--", name) + ".json")


def _keep(source: HubSource, cache: Path, listing: Listing) -> None:
    # Under the revision asked for, and under the commit that it stood for.
    for revision in {source.revision, listing.commit}:
        named = HubSource(repo=source.repo, revision=revision)
        write_json_atomic(_listing_file(named, cache), {"commit": listing.commit, "files": listing.files})


def _kept(source: HubSource, cache: Path) -> Listing | None:
    try:
        plain = json.loads(_listing_file(source, cache).read_text(encoding="utf-8"))
        return Listing(str(plain["commit"]), {str(path): int(size) for path, size in plain["files"].items()}, cache)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _cached(source: HubSource, ours: Path, reason: NotReached) -> Listing:
    """The files of the commit that a cache holds. Which it lacks cannot be known, so a note says how many there are."""
    from huggingface_hub import constants

    assert source.repo is not None
    for cache in (ours, Path(constants.HF_HUB_CACHE)):
        repository = cache / f"datasets--{source.repo.replace('/', '--')}"
        if not (commit := _commit_of(repository, source.revision)):
            continue
        snapshot = repository / "snapshots" / commit
        files = {p.relative_to(snapshot).as_posix(): p.stat().st_size for p in snapshot.rglob("*") if p.is_file()}
        if files:
            note = (
                f"the hub was not reached: of {source.repo} at {commit[:12]} the {len(files)} files were taken that "
                f"{cache} holds; others that it may have are missing"
            )
            return Listing(commit, files, cache, note)
    raise reason


def _commit_of(repository: Path, revision: str | None) -> str:
    """The commit that a revision stands for in a cache; "" where it holds none."""
    if revision is not None and _COMMIT.fullmatch(revision):
        return revision
    if revision is not None and re.fullmatch("[0-9a-f]{7,39}", revision):  # the beginning of a commit
        begun = [path.name for path in (repository / "snapshots").glob(f"{revision}*")]
        return begun[0] if len(begun) == 1 else ""
    try:
        return (repository / "refs" / (revision or "main")).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""


@contextlib.contextmanager
def _hub_errors(source: HubSource) -> Iterator[None]:
    """Turn the hub client's many errors into one sentence about the source."""
    from huggingface_hub.errors import OfflineModeIsEnabled, RepositoryNotFoundError, RevisionNotFoundError

    try:
        yield
    except StudyError:
        raise
    except RevisionNotFoundError as error:
        raise DataError(f"{source.repo} has no revision {source.revision}; correct data.options.sources") from error
    except RepositoryNotFoundError as error:
        raise DataError(
            f"the hub has no data set {source.repo} that can be read from here; correct "
            "data.options.sources, or log in with `hf auth login`"
        ) from error
    except OfflineModeIsEnabled as error:
        raise NotReached(
            f"{source.repo} is not cached here at revision {source.revision or '(none)'}, and HF_HUB_OFFLINE forbids "
            "to ask the hub; prepare once with network, or copy its cache here"
        ) from error
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _OURS:
            raise
        reason = reason_of(error)
        raise NotReached(
            f"could not read {source.repo} from the hub ({reason}); check the network and prepare again: "
            "what was fetched is kept"
        ) from error
