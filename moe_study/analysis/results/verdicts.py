"""What was measured, set beside what was claimed."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from moe_study.analysis.comparison import Comparison, Tested, Verdict
from moe_study.analysis.effects.contrasts import Effect
from moe_study.analysis.effects.equal_cost import EqualCost
from moe_study.analysis.effects.trends import Trend
from moe_study.analysis.effects.wording import equal_cost_sentence
from moe_study.analysis.format import count, with_bounds, with_leak_mark
from moe_study.analysis.report import request_of
from moe_study.analysis.results.turned import turned
from moe_study.analysis.study import Part, Study
from moe_study.sweeps.claims import Claim, Claims, Expected

HOLDS, FAILS, OPEN, LACKING = "holds", "fails", "undecided at this size", "not run"
NOT_COMPARED = "not compared"
LATE = ", asked late"  # after results were there


@dataclass(frozen=True)
class Finding:
    """One number that a sweep file asks for, and what came of it."""

    claim: Claim
    part: Part | None = None  # the evaluation set that answers it; None where no run does
    tested: Tested | None = None
    written: str = ""  # the number, as the sweep file has it

    @property
    def verdict(self) -> str:
        """Of the claim; of a question without one, what was decided."""
        if self.tested is None or self.tested.difference.n == 0:
            return NOT_COMPARED if isinstance(self.tested, EqualCost) and self.tested.refused else LACKING
        if self.claim.expect is None:
            return self.tested.verdict.value if self.tested.decided else OPEN
        return verdict_of(self.claim.expect, self.tested)

    @property
    def told_verdict(self) -> str:
        """The verdict, with a mark where the sweep's file came to ask when both sides were trained already."""
        late = self.seeds > 0 and self.tested is not None and request_of(self.tested).late
        return f"{self.verdict}{LATE if late else ''}"

    @property
    def decided(self) -> bool:
        return self.tested is not None and self.tested.decided

    @property
    def seeds(self) -> int:
        return 0 if self.tested is None else self.tested.difference.n

    @property
    def effect(self) -> str:
        """The difference with its interval, as it was tested."""
        if self.tested is None or not self.seeds:
            return ""
        c = self.tested
        tested = c.same_interval if c.verdict is Verdict.SAME else c.interval
        shown = c.difference if c.difference.n < 2 else tested
        return with_bounds(c.difference.mean, shown.low, shown.high, "+.3f")

    @property
    def pair(self) -> str:
        """What is compared, each point with its mark where it reads later tokens."""
        if self.tested is None or self.part is None:
            return f"{self.claim.left} − {self.claim.right}" if self.claim.right else self.claim.left
        if isinstance(self.tested, Effect):
            return _effect_words(self.tested)
        if isinstance(self.tested, Trend):
            return _trend_words(self.tested)
        marked = self.part.marked
        if isinstance(self.tested, EqualCost):
            family = with_leak_mark(self.tested.family_name, bool(set(self.tested.asked.points) & self.part.leaking))
            return f"{marked(self.tested.point)} − {family} at equal {self.tested.cost.words}"
        assert isinstance(self.tested, Comparison)
        return f"{marked(self.tested.point)} − {marked(self.tested.against)}"

    def told(self, asked: str) -> str:
        """Verdict first, then what was asked, test and effect: one line of Markdown."""
        measured = [f"{self.pair}: {self.effect}"] if self.effect else []
        return " ".join([f"**{self.told_verdict}**: {asked}", *measured])

    @property
    def sentence(self) -> str:
        """The question, what was claimed, and what was found, or why nothing could be."""
        asked = [self.claim.why, f"Claimed: {self.claim.says}." if self.claim.says else "", f"**{self.verdict}**:"]
        if isinstance(self.tested, EqualCost) and self.part is not None and self.verdict == NOT_COMPARED:
            found = equal_cost_sentence(self.tested, self.part.leaking)
        else:
            found = f"{self.pair}: {self.effect or 'no run'}"
        return " ".join(part for part in (*asked, found) if part)

    @property
    def hours(self) -> float:
        """Spent on the runs of both sides, by the clock."""
        if self.tested is None or self.part is None or not self.seeds:
            return 0.0
        runs = self.part.runs
        return float(runs[runs["label"].isin(list(request_of(self.tested).labels))]["train_seconds"].sum()) / 3600


def _effect_words(effect: Effect) -> str:
    """What the number of an effect is made of."""
    first, *second = effect.contrast.changes
    what = f"{first.after} − {first.before}"
    if second:
        what = f"({what} at {second[0].after}) − ({what} at {second[0].before})"
    over = f", over {effect.contrast.over} {'squares' if second else 'pairs'} of points" * (effect.contrast.over > 1)
    return with_leak_mark(f"{what}{over}", effect.leaks)


def _trend_words(trend: Trend) -> str:
    """What the slope is of, with the difference at every size: three sizes need not lie on a line."""
    at = ", ".join(f"{rung.difference.mean:+.3f} at {count(rung.size)}" for rung in trend.rungs)
    name = with_leak_mark(trend.name, trend.leaks)
    return f"{name}{f' ({at})' if at else ''}, per doubling of {trend.size_words}"


def verdict_of(expect: Expected, c: Tested) -> str:
    """Whether what was measured is what was claimed.

    A difference is held against a claim of "the same" only where it can reach the margin; what is the same within the
    margin is held against a claim of a difference.
    """
    if not c.decided:
        return OPEN
    match expect:
        case Expected.SAME:
            kept = is_within(c)
        case Expected.NOT_HIGHER:
            kept = is_within(c) or c.verdict is Verdict.LOWER
        case _:
            kept = c.verdict.value == expect.value
    return HOLDS if kept else FAILS


def is_within(c: Tested) -> bool:
    """Whether what was decided is the same within the margin, or a difference that cannot reach it."""
    return c.verdict is Verdict.SAME or max(abs(c.interval.low), abs(c.interval.high)) < c.margin


def findings(study: Study, claims: Claims) -> list[Finding]:
    """What came of everything that a sweep file asks to compare: one for a pair, one for each number of an effect."""
    return [finding for claim in claims.claims for finding in _findings(study, claim)]


def _findings(study: Study, claim: Claim) -> Iterator[Finding]:
    own: dict[str, list[Finding]] = {}
    for part in study.parts:
        for tested in part.tested:
            for written, one in _spellings(tested):
                if claim.is_of(written):
                    own.setdefault(written, []).append(Finding(claim, part, one, written))
    if not own:
        yield Finding(claim)
    for of_parts in own.values():
        yield max(of_parts, key=lambda finding: finding.seeds)


def _spellings(tested: Tested) -> Iterator[tuple[str, Tested]]:
    """What was tested, by each way in which the sweep file asks for it; the opposite where it asks for that."""
    request = request_of(tested)
    yield request.written, tested
    for also in request.also:
        yield also.written, tested if also.sign > 0 else turned(tested)


def share_decided(found: Sequence[Finding]) -> str:
    """How many of them are decided."""
    return f"{sum(one.decided for one in found)} of {len(found)}"
