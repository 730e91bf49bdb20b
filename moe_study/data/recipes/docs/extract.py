"""From a package's files to works: which paragraphs each holds, in which language; and the package's licence."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from moe_study.data.recipes.docs import manual, markup
from moe_study.data.recipes.docs.api import api_paragraphs
from moe_study.data.recipes.docs.archives import LIMITS, Limits, members, unpack_gzip
from moe_study.data.recipes.docs.cleaning import clean
from moe_study.data.recipes.docs.plain import dictionary_entries, pod_paragraphs, rfc_paragraphs
from moe_study.data.recipes.docs.sources import Family
from moe_study.data.tally import Tally
from moe_study.errors import DataError

# Of each reader: goes up whenever the same package would give other paragraphs.
VERSIONS = {"markup": 1, "manual": 1, "pod": 2, "rfc": 2, "service": 1, "dictionary": 1, "descriptions": 1}


class Work(NamedTuple):
    """Paragraphs that belong together."""

    name: str  # the same in all languages
    language: str
    paragraphs: list[str]


def _whole(read: Callable[[str], Iterator[str]]) -> Callable[[bytes], Iterator[list[str]]]:
    """A reader of texts as one that gives a single document."""
    return lambda content: iter([list(read(markup.decoded(content)))])


READERS: dict[str, Callable[[bytes], Iterator[list[str]]]] = {
    "markup": _whole(markup.paragraphs),
    "manual": _whole(manual.paragraphs),
    "pod": _whole(pod_paragraphs),
    "rfc": _whole(rfc_paragraphs),
    "service": lambda content: iter([list(api_paragraphs(content))]),
    "dictionary": lambda content: dictionary_entries(markup.decoded(content)),
}


@dataclass
class Extract:
    """What was got out of a package."""

    works: list[Work] = field(default_factory=list)  # in the order of its files
    licence: str = ""  # names, as the package itself spells them; "" where it does not say
    tally: Tally = field(default_factory=Tally)


def extract(archive: Path, family: Family, limits: Limits = LIMITS) -> Extract:
    """Works and licence of a package of that family; DataError where the archive is damaged."""
    found, read = Extract(), READERS[family.reader]

    def wanted(name: str) -> bool:
        return _states_licence(name) or family.place_of(name) is not None

    for member in members(archive, wanted, limits, found.tally):
        if _states_licence(member.name):
            found.licence = found.licence or licence_in(member.content.decode("utf-8", "replace"))
            continue
        place = family.place_of(member.name)
        assert place is not None  # wanted
        work, language = place
        found.tally.files += 1
        try:
            packed = member.name.endswith((".gz", ".dz"))
            documents = list(read(unpack_gzip(member.content, limits) if packed else member.content))
        except DataError as error:
            raise DataError(f"{archive}: {member.name}: {error}") from None
        for number, paragraphs in enumerate(documents):
            if kept := list(clean(paragraphs)):
                found.works.append(Work(f"{work}#{number}" if number else work, language, kept))
    return found


# Licences ----------------------------------------------------------------------------------------------------

_MOST_LICENCES = 12  # named; a large package has hundreds of parts
_STATED = re.compile(r"^License(?:-Expression)?:[ \t]*(\S.{0,80}?)[ \t]*$", re.MULTILINE)
_SPELLED = (
    "GNU Free Documentation License", "GNU Lesser General Public License", "GNU General Public License",
    "Creative Commons Attribution-ShareAlike", "Creative Commons Attribution", "Apache License", "MIT License",
    "BSD", "PostgreSQL", "public domain", "Artistic License", "WordNet", "IETF Trust",
)  # fmt: skip


def _states_licence(name: str) -> bool:
    return re.fullmatch(r"usr/share/doc/[^/]+/copyright|[^/]+\.dist-info/METADATA", name) is not None


def licence_in(text: str) -> str:
    """The licences that a copyright file (DEP 5) or a wheel's METADATA names; else those that its text spells out."""
    stated = list(dict.fromkeys(_STATED.findall(text)))
    names = stated or [name for name in _SPELLED if name.lower() in " ".join(text.lower().split())]
    return ", ".join(names[:_MOST_LICENCES]) + (" and others" if len(names) > _MOST_LICENCES else "")
