"""Trends over size that a sweep asks for (`trend:` in compare): does a difference grow as models or their training do?

    compare:
      - trend: [{routing: token_top2}, {routing: dense}]   # the difference of these two ...
        over: model.width                                  # ... at every value of this setting that both have
        by: active_params                                  # per doubling of what, of the second side (the default)
        why: Does the gain of two experts grow with size?
        margin: 0.02                                       # nats per token and doubling within which it stays as it is

The setting may be named by the end of its name, and a group (model) is one too. Each side is one point at each value.
How the slope and its interval come about: analysis/effects/trends.py.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moe_study.errors import ConfigError
from moe_study.runs.members import SIZES, PlannedRung, PlannedTrend
from moe_study.sweeps.candidates import Candidate, level_of, resolved, setting_named
from moe_study.sweeps.partial import Partial, in_file, matches, on_command_line
from moe_study.sweeps.values import in_order

LEAST_RUNGS = 2  # sizes that make a line


@dataclass(frozen=True)
class TrendQuestion:
    """One trend as a sweep file states it."""

    sides: tuple[Partial, Partial]
    over: str  # the setting, as written
    by: str = SIZES[0]
    why: str = ""
    margin: float | None = None  # nats per token and doubling

    @property
    def text(self) -> str:
        """In one line, which tells it from the other requests of its file."""
        left, right = map(on_command_line, self.sides)
        return f"trend of {left} against {right} over {self.over} by {self.by}"


def read_trend(
    entry: Mapping[str, Any], sides: tuple[Partial, Partial], why: str, margin: float | None, path: Path
) -> TrendQuestion:
    """An entry of compare that has `trend`, whose sides are read; ConfigError says what is wrong with the rest."""
    over, by = entry.get("over"), entry.get("by", SIZES[0])
    if not isinstance(over, str) or not over:
        raise ConfigError(f"{path}: a trend needs over: (the setting that makes sizes), as in over: model.width")
    if by not in SIZES:
        raise ConfigError(f"{path}: by must be one of {', '.join(SIZES)}, not {by!r}")
    return TrendQuestion(sides, over, by, why, margin)


def resolve_trends(
    questions: Iterable[TrendQuestion], candidates: Sequence[Candidate]
) -> tuple[tuple[PlannedTrend, ...], tuple[str, ...]]:
    """The trends with the runs of every size, and a sentence for each that the points cannot answer."""
    return resolved(questions, candidates, _resolved)


def _resolved(question: TrendQuestion, candidates: Sequence[Candidate]) -> Iterator[PlannedTrend]:
    over = setting_named(question.over, candidates, "over")
    left, right = (_by_level(side, over, question, candidates) for side in question.sides)
    levels = in_order(level for level in left if level in right)
    if len(levels) < LEAST_RUNGS:
        raise ConfigError(
            f"{question.text} has no answer: its sides share {len(levels)} value(s) of {over}, and a line needs "
            f"{LEAST_RUNGS}; add points of both"
        )
    if same := [level for level in levels if set(left[level]) & set(right[level])]:
        raise ConfigError(f"{question.text}: both sides are the same point at {over}={same[0]}; change one")
    rungs = tuple(PlannedRung(level, tuple(left[level]), tuple(right[level])) for level in levels)
    one, other = map(on_command_line, question.sides)
    yield PlannedTrend(question.text, one, other, over, question.by, rungs, question.why, question.margin)


def _by_level(
    side: Partial, over: str, question: TrendQuestion, candidates: Sequence[Candidate]
) -> dict[str, list[str]]:
    """Keys of the runs of the one point that a side means at each value; ConfigError where it means several."""
    runs: dict[str, list[str]] = {}
    points: dict[str, set[str]] = {}
    for c in candidates:
        if matches(side, c.composed, c.meaning, "a side") and (level := level_of(c, over)) is not None:
            runs.setdefault(level, []).append(c.key)
            points.setdefault(level, set()).add(c.point)
    for level, own in points.items():
        if len(own) > 1:
            raise ConfigError(
                f"{question.text}: {in_file(side)} matches {len(own)} points at {over}={level}; narrow it to one"
            )
    return {level: list(dict.fromkeys(keys)) for level, keys in runs.items()}
