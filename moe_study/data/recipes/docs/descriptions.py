"""Descriptions of Debian's packages and their translations: apt's lists Translation-LANGUAGE."""

import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from moe_study.data.recipes.docs.cleaning import clean
from moe_study.data.recipes.docs.extract import Extract, Work
from moe_study.data.recipes.docs.sources import DESCRIPTIONS

_FIELD = re.compile(r"([A-Za-z0-9_-]+): ?(.*)")


class Description(NamedTuple):
    """What a package says of itself in one language."""

    package: str
    paragraphs: list[str]


def descriptions(lines: Iterable[str]) -> Iterator[Description]:
    """The packages of a list in its order: the short description first, lists and examples left out."""
    package, found, inside = "", list[str](), False
    pieces: list[str] = []
    for line in chain(lines, [""]):
        line = line.rstrip("\n")
        if not line:
            if package:
                yield Description(package, [*found, " ".join(pieces)] if pieces else found)
            package, found, pieces, inside = "", [], [], False
        elif line.startswith(" "):
            if not inside:
                continue
            if line.startswith("  ") or line.strip() == "." or re.match(r" [-*+] ", line):
                if pieces:
                    found.append(" ".join(pieces))
                pieces = []
                if line.startswith("  "):
                    continue
            if line.strip() != ".":
                pieces.append(line.strip())
        elif field := _FIELD.match(line):
            name, value = field.groups()
            inside = name.startswith("Description") and name != "Description-md5"
            if name == "Package":
                package = value.strip()
            elif inside:
                found.append(value.strip())


def extract_descriptions(lists: Mapping[str, Iterable[Path]], sources: Mapping[str, str]) -> Extract:
    """A work for each source package and language, of all packages built from it; `lists` are those of a language."""
    found = Extract()
    for language, paths in lists.items():
        works: dict[str, list[str]] = {}
        for path in paths:
            found.tally.files += 1
            with open(path, encoding="utf-8", errors="replace") as handle:
                for one in descriptions(handle):
                    source = sources.get(one.package, one.package)
                    works.setdefault(source, []).extend(clean(one.paragraphs))
        found.works += [Work(f"{DESCRIPTIONS}/{name}", language, texts) for name, texts in works.items() if texts]
    return found
