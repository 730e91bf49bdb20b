"""What is told first of all that was run (results/headlines.yaml): a few comparisons, each in few words.

The file chooses and words; what came out, and whether it holds, is computed from what is kept.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moe_study.analysis.results.answered import Answered
from moe_study.analysis.results.verdicts import LACKING, Finding
from moe_study.errors import DataError
from moe_study.sweeps.scales import split
from moe_study.sweeps.values import read_yaml

HEADLINES = "headlines.yaml"
MOST_LETTERS = 66  # of a short text: what a line of the picture holds
LARGEST_FIRST = ("paper", "gpu", "cpu")  # scales; of several that were kept, the first counts
FORM = "a mapping with headlines: (a list of {sweep:, why:, short:}) and against: {sweep:, reference:, title:}"


@dataclass(frozen=True)
class Headline:
    """One comparison of a sweep file, in few words."""

    sweep: str  # without its scale
    why: str  # as the sweep file asks
    short: str


@dataclass(frozen=True)
class Against:
    """A sweep whose points are all shown next to one of them."""

    sweep: str
    reference: str  # a label
    title: str


@dataclass(frozen=True)
class Headlines:
    """What the file holds."""

    headlines: tuple[Headline, ...] = ()
    against: Against | None = None

    @property
    def sweeps(self) -> list[str]:
        """All that it names."""
        return [*(one.sweep for one in self.headlines), *([self.against.sweep] if self.against else [])]


@dataclass(frozen=True)
class Told:
    """A headline with what came of it."""

    headline: Headline
    of: Answered
    finding: Finding

    @property
    def is_claim(self) -> bool:
        """Whether somebody claims it, so that it holds or fails."""
        return self.finding.claim.expect is not None


def read_headlines(path: Path) -> Headlines:
    """The file's content; DataError says what is wrong in it."""
    content = read_yaml(path)
    if not isinstance(content, dict) or set(content) - {"headlines", "against"}:
        raise DataError(f"{path} must be {FORM}")
    entries = content.get("headlines") or []
    if not isinstance(entries, list):
        raise DataError(f"{path} must be {FORM}")
    headlines = tuple(Headline(**_texts(entry, ("sweep", "why", "short"), path)) for entry in entries)
    for one in headlines:
        if len(one.short) > MOST_LETTERS:
            raise DataError(f"{path}: {one.short!r} has {len(one.short)} letters; say it in {MOST_LETTERS}")
    against = content.get("against")
    names = ("sweep", "reference", "title")
    return Headlines(headlines, None if against is None else Against(**_texts(against, names, path)))


def _texts(entry: Any, names: Sequence[str], path: Path) -> dict[str, str]:
    if not isinstance(entry, dict) or set(entry) != set(names) or not all(entry[name] for name in names):
        raise DataError(f"{path}: {entry!r} must have {', '.join(names)}, each a text")
    return {name: " ".join(str(entry[name]).split()) for name in names}


def told(headlines: Sequence[Headline], sweeps: Sequence[Answered]) -> Iterator[Told]:
    """The headlines whose sweep was run, in their order. DataError for one that its sweep does not ask."""
    at_largest = largest_scales(sweeps)
    for headline in headlines:
        if (of := at_largest.get(headline.sweep)) is None:
            continue
        found = next((one for one in of.findings if one.claim.why == headline.why), None)
        if found is None:
            raise DataError(f"{HEADLINES}: {headline.sweep} asks no question {headline.why!r}; correct its why:")
        if found.verdict != LACKING:
            yield Told(headline, of, found)


def largest_scales(sweeps: Sequence[Answered]) -> Mapping[str, Answered]:
    """Each sweep by its name, at the largest scale that was kept of it."""

    def size(one: Answered) -> int:
        scale = split(one.archive.name)[1]
        return LARGEST_FIRST.index(scale) if scale in LARGEST_FIRST else len(LARGEST_FIRST)

    return {split(one.archive.name)[0]: one for one in sorted(sweeps, key=size, reverse=True)}
