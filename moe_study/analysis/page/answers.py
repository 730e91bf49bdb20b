"""The answers of a study in words and as small pictures: what was tested first, then what is described."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from moe_study.analysis.comparison import Tested, Verdict
from moe_study.analysis.report import request_of, without, words_of
from moe_study.analysis.sections import SECTIONS
from moe_study.analysis.study import Part
from moe_study.analysis.wording import UNTESTED, best_first

CHIPS = {
    Verdict.LOWER: "lower",
    Verdict.HIGHER: "higher",
    Verdict.SAME: "the same",
    Verdict.UNCLEAR: "not decided",
    Verdict.ONE_PAIR: "one pair",
    Verdict.NO_PAIR: "no pair",
    Verdict.NOT_PLANNED: "not tested",
}


@dataclass(frozen=True)
class Forest:
    """An interval as a small picture, in parts of a width of 1."""

    low: float
    high: float
    mean: float
    margin_low: float
    margin_high: float
    says: str


@dataclass(frozen=True)
class Answer:
    """What one test shows."""

    chip: str
    decided: bool
    question: str
    sentence: str
    forest: Forest | None


@dataclass(frozen=True)
class Described:
    """What is said without a test, under its heading."""

    heading: str
    lines: Sequence[str]


def reach_of(parts: Sequence[Part]) -> float:
    """How far from zero the small pictures of all parts go, in nats per token: they share one scale."""
    ends = [abs(end) for part in parts for one in part.tested for end in (*_interval(one), one.margin)]
    return max((end for end in ends if not math.isnan(end)), default=1.0) or 1.0


def answers(part: Part, reach: float) -> Iterator[Answer]:
    """All that was tested in a part, best first."""
    for one in best_first(part.tested):
        request = request_of(one)
        question = request.question if request.written else ""
        sentence = f"{words_of(part, one)}{without(part, one)}"
        yield Answer(CHIPS[one.verdict], one.decided, question, sentence, _forest(one, reach))


def described(part: Part) -> list[Described]:
    """What a part says beyond its tests; without what has nothing to say."""
    found = [
        Described(heading, [line.replace(UNTESTED, "") for line in lines(part)]) for heading, lines in SECTIONS.items()
    ]
    return [one for one in found if one.lines]


def _interval(one: Tested) -> tuple[float, float]:
    """The one that the verdict stands on; where there is none, the mean alone."""
    shown = one.same_interval if one.verdict is Verdict.SAME else one.interval if one.family else one.difference
    return (shown.low, shown.high) if not math.isnan(shown.low) else (one.difference.mean, one.difference.mean)


def _forest(one: Tested, reach: float) -> Forest | None:
    (low, high), mean = _interval(one), one.difference.mean
    if math.isnan(mean):
        return None

    def at(value: float) -> float:
        return round(0.5 + 0.48 * value / reach, 4)

    says = f"difference {mean:+.4f}, interval {low:+.4f} to {high:+.4f}, margin {one.margin:g}"
    return Forest(at(low), at(high), at(mean), at(-one.margin), at(one.margin), says)
