"""Claims by the paper that makes them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from moe_study.analysis.results.answered import Answered
from moe_study.analysis.results.verdicts import FAILS, HOLDS, Finding

TITLES = {
    "2402.13089": "Towards an empirical understanding of MoE design choices",
    "2403.18926": "XMoE",
    "2308.00951": "Soft MoE",
    "2412.14711": "ReMoE",
}
OTHERS = "other sources"
_NUMBER = re.compile(r"\d{4}\.\d{4,5}")  # of arXiv


@dataclass(frozen=True)
class Paper:
    """A source with all of its claims, sweep by sweep."""

    number: str  # of arXiv; empty for other sources
    claimed: tuple[tuple[Answered, Finding], ...]

    @property
    def name(self) -> str:
        return self.number or OTHERS

    @property
    def title(self) -> str:
        """With the paper's name, where it is known."""
        return f"{self.number}: {TITLES[self.number]}" if self.number in TITLES else self.name

    @property
    def tally(self) -> str:
        """How many claims hold."""
        return f"{self._count(HOLDS)} of {len(self.claimed)} hold"

    @property
    def sentence(self) -> str:
        """How many claims hold, fail, and are neither."""
        rest = len(self.claimed) - self._count(HOLDS) - self._count(FAILS)
        return f"{self.tally}, {self._count(FAILS)} fail, {rest} are undecided or lack runs."

    def _count(self, verdict: str) -> int:
        return sum(finding.verdict == verdict for _, finding in self.claimed)


def number_of(source: str) -> str:
    """The number of the paper that a sweep's `source` names first; empty where it names none."""
    found = _NUMBER.search(source)
    return found.group() if found else ""


def by_paper(sweeps: Sequence[Answered]) -> list[Paper]:
    """Every paper whose claims some sweep tests: those of TITLES in their order, then the rest."""
    claims: dict[str, list[tuple[Answered, Finding]]] = {}
    for one in sweeps:
        for finding in one.findings:
            if finding.claim.expect is not None:
                claims.setdefault(number_of(one.claims.source), []).append((one, finding))
    order = [*TITLES, *sorted(number for number in claims if number not in TITLES and number), ""]
    return [Paper(number, tuple(claims[number])) for number in order if number in claims]
