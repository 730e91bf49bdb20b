"""What every recipe gives: a way to get at a corpus's documents, and what was pinned."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from moe_study.data.documents import Document
from moe_study.data.tally import Tally


@dataclass(frozen=True)
class Source:
    """A corpus that is ready to be read."""

    documents: Callable[[], Iterator[Document]]
    approximate_bytes: int  # of text, to choose how finely the work is cut; need not be exact
    pins: dict[str, Any] = field(default_factory=dict)  # what was read (hashes, revisions), for the manifest
    tally: Tally = field(default_factory=Tally)  # filled while the documents are read
    attribution: Callable[[], str] | None = None  # asked once they are read: who wrote them, by which licences


@dataclass(frozen=True)
class Recipe:
    """How to get a corpus. Options come as the recipe's own type (design/data_options.py), checked.

    version  goes up whenever the same options would give other text
    stamp    changes when a source that is not pinned changed; cheap, "" for pinned sources
    open     fetches what is needed into the downloads of the data root and returns the Source

    Both get the folder data.root; open gets whether to show progress.
    """

    version: int
    stamp: Callable[[Any, Path], str]
    open: Callable[[Any, Path, bool], Source]
