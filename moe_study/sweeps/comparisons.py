"""What a sweep is there to compare (`compare:` in its file), from partial overrides to the runs on either side.

A few comparisons that are stated before the runs can be tested together at a small price: every comparison that is
tested makes all of them harder to decide. So a file states those that it was written for, and reports describe all
others without a verdict. Four kinds can be asked for: a pair of points; a point at equal cost to others (`at:`), whose
second side may match several points, which make a curve; an effect of settings (effects.py); and the trend of a pair
over size (trends.py). A fifth is described and not tested: the cost at equal loss (reaches.py).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moe_study.errors import ConfigError
from moe_study.runs.members import PlannedComparison
from moe_study.sweeps.candidates import Candidate, keys_of, matching, one_point, resolved
from moe_study.sweeps.effects import EffectQuestion, read_effect
from moe_study.sweeps.partial import Partial, on_command_line
from moe_study.sweeps.reaches import ReachQuestion, costs_of, read_reach
from moe_study.sweeps.trends import TrendQuestion, read_trend

FORM = (
    "a list of two sides, or a mapping with pair: (two sides), effect: (settings), trend: (two sides) or reach: (two "
    "sides), why: (a text) and, but for reach, margin: (a number)"
)
KEYS = {
    "pair": {"pair", "at", "why", "margin"},
    "effect": {"effect", "where", "why", "margin"},
    "trend": {"trend", "over", "by", "why", "margin"},
    "reach": {"reach", "by", "at_most", "why"},
}


@dataclass(frozen=True)
class Question:
    """One comparison as a sweep file states it."""

    sides: tuple[Partial, Partial]
    why: str = ""
    margin: float | None = None  # nats per token
    at: tuple[str, ...] = ()  # costs at which the first side is compared with the curve of the second

    @property
    def texts(self) -> tuple[str, str]:
        """Each side in one line, as on the command line."""
        left, right = map(on_command_line, self.sides)
        return left, right

    @property
    def text(self) -> str:
        """In one line."""
        return " against ".join(self.texts)

    @property
    def identities(self) -> tuple[Any, ...]:
        """What no two questions of a file may share: a pair whichever way round, or a pair and a cost."""
        return tuple((self.texts, cost) for cost in self.at) if self.at else (frozenset(self.texts),)


AnyQuestion = Question | EffectQuestion | TrendQuestion | ReachQuestion


def read_questions(content: Mapping[str, Any], path: Path) -> tuple[AnyQuestion, ...]:
    """`compare:` and `margin:` of a sweep file; ConfigError says what is wrong with them."""
    margin = _margin(content.get("margin"), path)
    entries = content.get("compare") or []
    if not isinstance(entries, list):
        raise ConfigError(f"{path}: compare must be a list, each entry {FORM}")
    questions = tuple(_question(entry, margin, path) for entry in entries)
    seen: set[Any] = set()
    for question in questions:
        own = question.identities if isinstance(question, Question | ReachQuestion) else (question.text,)
        if seen & set(own):
            raise ConfigError(f"{path}: compare has {question.text} twice; write it once")
        seen.update(own)
    return questions


def _question(entry: Any, margin: float | None, path: Path) -> AnyQuestion:
    if isinstance(entry, list):
        entry = {"pair": entry}
    kind = next((kind for kind in KEYS if isinstance(entry, dict) and kind in entry), "pair")
    if not isinstance(entry, dict) or not set(entry) <= KEYS[kind]:
        raise ConfigError(f"{path}: an entry of compare must be {FORM}, not {entry!r}")
    why = entry.get("why") or ""
    if not isinstance(why, str):
        raise ConfigError(f"{path}: why must be a text, not {why!r}")
    why, own_margin = " ".join(why.split()), _margin(entry.get("margin"), path) or margin
    if kind == "effect":
        return read_effect(entry, why, own_margin, path)
    if kind == "reach":
        return read_reach(entry, why, path)
    sides = _sides(entry.get(kind), path)
    if kind == "trend":
        return read_trend(entry, sides, why, own_margin, path)
    at = () if entry.get("at") is None else costs_of(entry["at"], "at", path)
    return Question(sides, why, own_margin, at)


def _sides(pair: Any, path: Path) -> tuple[Partial, Partial]:
    if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(side, dict) and side for side in pair):
        raise ConfigError(
            f"{path}: a comparison has two sides, each a mapping from override keys to values, as in "
            f"[{{routing: token_top2}}, {{routing: dense}}], not {pair!r}"
        )
    for side in pair:
        if "run.seed" in side:
            raise ConfigError(f"{path}: a comparison is over all seeds; leave run.seed out of {side!r}")
    return pair[0], pair[1]


def _margin(value: Any, path: Path) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise ConfigError(f"{path}: margin must be a number of nats per token above 0, not {value!r}")
    return float(value)


def resolve(
    questions: Iterable[Question], candidates: Sequence[Candidate]
) -> tuple[tuple[PlannedComparison, ...], tuple[str, ...]]:
    """The comparisons with the keys of their runs, and a sentence for each that is not one between two points."""
    return resolved(questions, candidates, _resolved)


def _resolved(question: Question, candidates: Sequence[Candidate]) -> Iterator[PlannedComparison]:
    """One comparison, or one at each cost that the question names."""
    left = keys_of(one_point(question.sides[0], candidates))
    of_right = matching if question.at else one_point
    right = keys_of(of_right(question.sides[1], candidates))
    if set(left) & set(right):
        raise ConfigError(_overlap(question))
    for cost in question.at or ("",):
        yield PlannedComparison(*question.texts, left, right, question.why, question.margin, at=cost)


def _overlap(question: Question) -> str:
    if question.at:
        left, right = question.texts
        return f"{left} is one of the points of {right}, so its curve would go through it; narrow the second side"
    return f"both sides are the same point: {' and '.join(question.texts)}; change one"
