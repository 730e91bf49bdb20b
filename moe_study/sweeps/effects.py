"""Main effects and interactions that a sweep asks for (`effect:` in compare), from settings to the runs of every cell.

    compare:
      - effect: [unit, k]                  # does the change of one do the same at every value of the other?
        where: {routing.num_experts: 4}    # only the points that match
        why: Does a second expert help sequences as much as tokens?
      - effect: balance.switch             # one setting: its main effect, averaged over what was crossed with it

A setting may be named by the end of its name, and a group (routing) is a setting too. The cells of an effect are the
values of its settings. What else differs among the points either goes along with the cells, one value in each (context
goes with unit), and is named; or it makes blocks, in each of which the effect is taken before they are averaged.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from moe_study.design.identity import is_of_point
from moe_study.errors import ConfigError
from moe_study.runs.members import PlannedCell, PlannedEffect
from moe_study.sweeps.candidates import Candidate, level_of, level_words, resolved, setting_named
from moe_study.sweeps.partial import Partial, matches, on_command_line
from moe_study.sweeps.values import in_order

MOST_FACTORS = 2
Levels = tuple[str, ...]


@dataclass(frozen=True)
class EffectQuestion:
    """One effect as a sweep file states it."""

    factors: tuple[str, ...]  # as written
    where: Partial = field(default_factory=dict)
    why: str = ""
    margin: float | None = None  # nats per token

    @property
    def text(self) -> str:
        """In one line, which tells it from the other requests of its file."""
        where = on_command_line(self.where)
        return f"effect of {' x '.join(self.factors)}{f' where {where}' if where else ''}"


def read_effect(entry: Mapping[str, Any], why: str, margin: float | None, path: Path) -> EffectQuestion:
    """An entry of compare that has `effect`; ConfigError says what is wrong with it."""
    factors = entry["effect"]
    if isinstance(factors, str):
        factors = [factors]
    if (
        not isinstance(factors, list)
        or not all(isinstance(name, str) for name in factors)
        or not 1 <= len(factors) == len(set(factors)) <= MOST_FACTORS
    ):
        raise ConfigError(
            f"{path}: effect must be one setting (its main effect) or a list of two different ones (their "
            f"interaction), as in [unit, k], not {entry['effect']!r}"
        )
    where = entry.get("where") or {}
    if not isinstance(where, dict) or "run.seed" in where:
        raise ConfigError(f"{path}: where must map override keys but run.seed to values, not be {where!r}")
    return EffectQuestion(tuple(factors), where, why, margin)


def resolve_effects(
    questions: Iterable[EffectQuestion], candidates: Sequence[Candidate]
) -> tuple[tuple[PlannedEffect, ...], tuple[str, ...]]:
    """The effects with the runs of every cell, and a sentence for each that the points cannot answer."""
    return resolved(questions, candidates, _resolved)


@dataclass(frozen=True)
class _Point:
    """A point that has all of the factors."""

    levels: Levels
    settings: Mapping[str, Any]
    runs: tuple[str, ...]


def _resolved(question: EffectQuestion, candidates: Sequence[Candidate]) -> Iterator[PlannedEffect]:
    names = tuple(setting_named(name, candidates, "effect") for name in question.factors)
    if len(set(names)) < len(names):
        raise ConfigError(f"{question.text} names {names[0]} twice; name two different settings")
    points = _points(names, question.where, candidates)
    carried, blocking = _carried_and_blocking(points, names)
    blocks: dict[str, dict[Levels, _Point]] = {}
    for point in points:
        blocks.setdefault(_block(point, blocking), {})[point.levels] = point
    blocks = {block: cells for block, cells in blocks.items() if _is_crossed(set(cells))}
    if not blocks:
        raise ConfigError(
            f"{question.text} has no answer: {_why_not(names, points, blocking)}; add points, or narrow it by where"
        )
    kept = [point for cells in blocks.values() for point in cells.values()]
    levels = tuple(in_order(point.levels[place] for point in kept) for place in range(len(names)))
    planned = tuple(
        PlannedCell(block, point.levels, point.runs) for block, cells in blocks.items() for point in cells.values()
    )
    yield PlannedEffect(question.text, names, levels, planned, carried, question.why, question.margin)


def _points(names: Sequence[str], where: Partial, candidates: Sequence[Candidate]) -> list[_Point]:
    """The points that match `where` and use all of the settings, each once with the runs of all its seeds."""
    runs: dict[str, list[str]] = {}
    first: dict[str, tuple[Levels, Mapping[str, Any]]] = {}
    for c in candidates:
        levels = tuple(level for name in names if (level := level_of(c, name)) is not None)
        if len(levels) == len(names) and matches(where, c.composed, c.meaning, "where"):
            first.setdefault(c.point, (levels, c.meaning.settings))
            runs.setdefault(c.point, []).append(c.key)
    return [_Point(levels, settings, tuple(dict.fromkeys(runs[point]))) for point, (levels, settings) in first.items()]


def _carried_and_blocking(points: Sequence[_Point], factors: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The other settings that differ among points: those with one value in each cell, and the rest."""
    names = dict.fromkeys(name for point in points for name in point.settings if is_of_point(name))
    for name in factors:
        names.pop(name, None)
    carried: list[str] = []
    blocking: list[str] = []
    for name in names:
        values = {repr(point.settings.get(name)) for point in points}
        by_cell: dict[Levels, set[str]] = {}
        for point in points:
            by_cell.setdefault(point.levels, set()).add(repr(point.settings.get(name)))
        if len(values) > 1:
            (carried if all(len(own) == 1 for own in by_cell.values()) else blocking).append(name)
    return tuple(carried), tuple(blocking)


def _block(point: _Point, blocking: Sequence[str]) -> str:
    return ", ".join(f"{name}={level_words(point.settings[name])}" for name in blocking if name in point.settings)


def _is_crossed(cells: set[Levels]) -> bool:
    """Whether there are two levels of one factor; of two factors, a square of four cells."""
    first = {cell[0] for cell in cells}
    if cells and len(next(iter(cells))) == 1:
        return len(first) > 1
    rows = [{cell[1] for cell in cells if cell[0] == level} for level in first]
    return any(len(one & other) > 1 for place, one in enumerate(rows) for other in rows[place + 1 :])


def _why_not(names: Sequence[str], points: Sequence[_Point], blocking: Sequence[str]) -> str:
    if not points:
        return "no point of the sweep uses all of these settings and matches where"
    values = "; ".join(f"{name}: {', '.join(in_order(p.levels[i] for p in points))}" for i, name in enumerate(names))
    if not blocking:
        return f"its points ({values}) do not cross them"
    return f"no points that agree in {', '.join(blocking[:3])} cross them ({values})"
