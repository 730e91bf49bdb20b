"""What was measured, set beside what was claimed."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from moe_study.analysis.comparison import Comparison, Verdict
from moe_study.analysis.format import LEAK_MARK
from moe_study.analysis.study import Part, Study
from moe_study.sweeps.claims import Claim, Claims, Expected

HOLDS, FAILS, OPEN, LACKING = "holds", "fails", "undecided at this size", "not run"


@dataclass(frozen=True)
class Finding:
    """One comparison of a sweep file, and what came of it."""

    claim: Claim
    part: Part | None = None  # the evaluation set that answers it; None where no run does
    comparison: Comparison | None = None

    @property
    def verdict(self) -> str:
        """Of the claim; of a question without one, what was decided."""
        if self.comparison is None or self.comparison.difference.n == 0:
            return LACKING
        if self.claim.expect is None:
            return self.comparison.verdict.value if self.comparison.decided else OPEN
        return verdict_of(self.claim.expect, self.comparison)

    @property
    def decided(self) -> bool:
        return self.comparison is not None and self.comparison.decided

    @property
    def effect(self) -> str:
        """The difference with its interval, as it was tested."""
        if self.comparison is None or self.comparison.difference.n == 0:
            return ""
        c = self.comparison
        tested = c.same_interval if c.verdict is Verdict.SAME else c.interval
        shown = c.difference if c.difference.n < 2 else tested
        bounds = "" if c.difference.n < 2 else f" [{shown.low:+.3f}, {shown.high:+.3f}]"
        return f"{c.difference.mean:+.3f}{bounds}"

    @property
    def pair(self) -> str:
        """Both points, each with its mark where it reads later tokens."""
        if self.comparison is None or self.part is None:
            return f"{self.claim.left} − {self.claim.right}"
        leaking = self.part.leaking
        left, right = (
            f"{label} {LEAK_MARK}" if label in leaking else label
            for label in (self.comparison.point, self.comparison.against)
        )
        return f"{left} − {right}"

    @property
    def sentence(self) -> str:
        """Verdict, test and effect in one line."""
        if self.verdict == LACKING:
            return f"{LACKING[:1].upper()}{LACKING[1:]}."
        return f"{self.verdict[:1].upper()}{self.verdict[1:]}: {self.pair}: {self.effect}"

    @property
    def hours(self) -> float:
        """Spent on the runs of both sides, by the clock."""
        if self.comparison is None or self.part is None or self.verdict == LACKING:
            return 0.0
        runs = self.part.runs
        return float(runs[runs["label"].isin(list(self.comparison.asked.labels))]["train_seconds"].sum()) / 3600


def verdict_of(expect: Expected, c: Comparison) -> str:
    """Whether what was measured is what was claimed.

    A difference is held against a claim of "the same" only where it can reach the margin; what is the same within the
    margin is held against a claim of a difference.
    """
    if not c.decided:
        return OPEN
    within = c.verdict is Verdict.SAME or max(abs(c.interval.low), abs(c.interval.high)) < c.margin
    match expect:
        case Expected.SAME:
            kept = within
        case Expected.NOT_HIGHER:
            kept = within or c.verdict is Verdict.LOWER
        case _:
            kept = c.verdict.value == expect.value
    return HOLDS if kept else FAILS


def findings(study: Study, claims: Claims) -> list[Finding]:
    """What came of every comparison of two sides that a sweep file states."""
    measured = list(_measured(study))
    found = []
    for claim in claims.claims:
        written = f"{claim.left} against {claim.right}"
        own = [(part, c) for part, c in measured if c.asked.written == written]
        part, comparison = max(own, key=lambda one: one[1].difference.n, default=(None, None))
        found.append(Finding(claim, part, comparison))
    return found


def _measured(study: Study) -> Iterator[tuple[Part, Comparison]]:
    for part in study.parts:
        for comparison in part.comparisons:
            yield part, comparison


def share_decided(found: Sequence[Finding]) -> str:
    """How many of them are decided."""
    return f"{sum(one.decided for one in found)} of {len(found)}"


def tally(found: Sequence[Finding]) -> str:
    """How many hold, fail and are undecided, of those that somebody claims; how many are decided, of all."""
    claimed = [one for one in found if one.claim.expect is not None]
    text = f"{share_decided(found)} decided"
    if not claimed:
        return text
    holds, fails = (sum(one.verdict == word for one in claimed) for word in (HOLDS, FAILS))
    return f"{text}; of {len(claimed)} claims {holds} hold and {fails} fail"
