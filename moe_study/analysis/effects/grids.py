"""Crossed factors among the points of a study: which settings were varied against which others.

A factor is a set of settings that change together from one point to another (unit and context, say), its levels are
their values. Two factors are crossed where points stand at two levels of each and agree in all else; the rest of their
settings is a block. So a product of three factors has a grid for each two of them, whose blocks are the levels of the
third. Only what is complete or nearly so counts as a grid: rows and columns with fewer than half of their cells go, and
at most a quarter of what stays may be missing. What is missing is named, and never filled in. A factor of several
settings counts only where some level cannot be reached from the others by changing fewer of them: else its settings are
factors of their own.
"""

import itertools
import operator
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from moe_study.analysis.pairs import Settings, differing_settings

MOST_SETTINGS = 3  # of one factor: what differs in more is another kind of point
MOST_MISSING = 0.25  # of a grid's cells
MOST_POINTS = 150  # beyond, grids are not looked for: it would take minutes

Apart = Mapping[frozenset[str], frozenset[str]]  # two labels -> the settings in which they differ
Cell = tuple[str, ...]  # its block, and its level of each factor
Level = str  # of one setting its value ("2"), of several their names and values ("unit token, context own")


@dataclass(frozen=True)
class Factor:
    """Settings that change together, and the levels that they have, the plainest first."""

    settings: tuple[str, ...]
    levels: tuple[Level, ...]

    @property
    def name(self) -> str:
        return ", ".join(map(short_name, self.settings))

    def words(self, level: Level) -> str:
        """A level with its name."""
        return level if len(self.settings) > 1 else f"{self.name} {level}"


@dataclass(frozen=True)
class Grid:
    """Points by the levels of one factor or two, in one block or several that agree in all else."""

    factors: tuple[Factor, ...]
    cells: Mapping[Cell, str]  # (block, level of each factor) -> label; a missing cell has no entry
    carried: tuple[str, ...] = ()  # settings that differ with the cells and are no factor

    @property
    def name(self) -> str:
        return " x ".join(factor.name for factor in self.factors)

    @property
    def blocks(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(cell[0] for cell in self.cells))

    @property
    def points(self) -> tuple[str, ...]:
        return tuple(self.cells.values())

    @property
    def missing(self) -> tuple[str, ...]:
        """The cells that no point fills, in words."""
        levels = [factor.levels for factor in self.factors]
        gone = [cell for cell in itertools.product(self.blocks, *levels) if cell not in self.cells]
        return tuple(self._words(cell) for cell in gone)

    def _words(self, cell: Sequence[str]) -> str:
        words = [factor.words(level) for factor, level in zip(self.factors, cell[1:], strict=True)]
        return " with ".join(words) + (f" ({cell[0]})" if cell[0] and len(self.blocks) > 1 else "")


def find_grids(settings: Settings, plain: Mapping[str, Any]) -> tuple[Grid, ...]:
    """Crossed factors among points (see pairs.settings_of): each by itself, then each two, the largest grids first.

    A factor by itself has all points of the grids that it is part of, in blocks that agree in all else. A grid of two
    all of whose points stand in a larger one of the same or fewer settings is left out. `plain` has the defaults.
    """
    labels = list(settings)
    if len(labels) > MOST_POINTS:
        return ()
    apart = {
        frozenset((one, other)): frozenset(differing_settings(settings, one, other))
        for one, other in itertools.combinations(labels, 2)
    }
    known = set(apart.values())
    candidates = sorted((s for s in known if len(s) <= MOST_SETTINGS), key=lambda s: (len(s), sorted(s)))
    found = []
    for one, other in itertools.combinations(candidates, 2):
        if not one & other and one | other in known:  # opposite corners of a square differ in both
            found += _grids_of(_ordered(one, plain), _ordered(other, plain), labels, apart, settings, plain)
    found.sort(key=lambda grid: (-len(grid.cells), sum(len(f.settings) for f in grid.factors), grid.name))
    kept: list[Grid] = []
    for grid in found:
        if not any(_is_part(grid, larger) for larger in kept):
            kept.append(grid)
    return (*_by_themselves(kept, apart, settings, plain), *kept)


def _by_themselves(grids: Sequence[Grid], apart: Apart, settings: Settings, plain: Mapping[str, Any]) -> list[Grid]:
    """A grid of one factor for each factor of `grids`."""
    points: dict[tuple[str, ...], dict[str, None]] = {}
    for grid in grids:
        for factor in grid.factors:
            points.setdefault(factor.settings, {}).update(dict.fromkeys(grid.points))
    found = []
    for names, labels in points.items():
        each: dict[Cell, str] = {(label, _level(settings[label], names)): label for label in labels}
        cells = _with_block_names(each, set(names), apart, settings)
        sizes = Counter(cell[0] for cell in cells)
        cells = {cell: label for cell, label in cells.items() if sizes[cell[0]] > 1}
        found.append(Grid((Factor(names, _levels((cell[1] for cell in cells), names, settings, cells, plain)),), cells))
    return found


def _grids_of(
    one: tuple[str, ...],
    other: tuple[str, ...],
    labels: Sequence[str],
    apart: Apart,
    settings: Settings,
    plain: Mapping[str, Any],
) -> list[Grid]:
    """The grid of two factors over all blocks that have it; none or one."""
    both, left = {*one, *other}, list(labels)
    cells: dict[Cell, str] = {}
    while left:
        first = left[0]
        block = [label for label in left if label == first or apart[frozenset((first, label))] <= both]
        left = [label for label in left if label not in block]
        own = {(_level(settings[p], one), _level(settings[p], other)): p for p in block}
        own = _without_sparse(own)
        if own:
            cells |= {(first, *levels): label for levels, label in own.items()}
    if not cells:
        return []
    cells = _with_block_names(cells, both, apart, settings)
    factors = tuple(
        Factor(names, _levels((cell[1 + place] for cell in cells), names, settings, cells, plain))
        for place, names in enumerate((one, other))
    )
    grid = Grid(factors, cells)
    whole = len(grid.blocks) * len(factors[0].levels) * len(factors[1].levels)
    grids = [grid] if len(cells) >= (1 - MOST_MISSING) * whole else _block_by_block(grid)
    return [grid for grid in grids if all(_moves_as_one(grid, place, settings) for place in (0, 1))]


def _with_block_names(
    cells: Mapping[Cell, str], factors: set[str], apart: Apart, settings: Settings
) -> dict[Cell, str]:
    """Each block, so far known by one of its points, named by the settings in which blocks differ."""
    firsts = list(dict.fromkeys(cell[0] for cell in cells))
    differing = set().union(*(apart[frozenset(pair)] for pair in itertools.combinations(firsts, 2))) - factors
    names = {first: _words_of(settings[first], sorted(differing)) for first in firsts}
    return {(names[cell[0]], *cell[1:]): label for cell, label in cells.items()}


def _moves_as_one(grid: Grid, place: int, settings: Settings) -> bool:
    """Whether some level of a factor cannot be reached from the first by changes of fewer settings than it has."""
    names = grid.factors[place].settings
    if len(names) == 1:
        return True
    values = {
        cell[1 + place]: [value_words(settings[label][name]) for name in names] for cell, label in grid.cells.items()
    }
    reached, new = set[Level](), {grid.factors[place].levels[0]}
    while new:
        reached |= new
        new = {
            level
            for level in set(values) - reached
            if any(sum(map(operator.ne, values[level], values[known])) < len(names) for known in reached)
        }
    return len(reached) < len(values)


def _block_by_block(grid: Grid) -> list[Grid]:
    """Where blocks have different levels, each nearly complete one stands for itself."""
    found = []
    for block in grid.blocks:
        own = {cell: label for cell, label in grid.cells.items() if cell[0] == block}
        factors = tuple(
            Factor(factor.settings, tuple(level for level in factor.levels if any(c[1 + i] == level for c in own)))
            for i, factor in enumerate(grid.factors)
        )
        whole = len(factors[0].levels) * len(factors[1].levels)
        if len(own) >= (1 - MOST_MISSING) * whole:
            found.append(Grid(factors, own))
    return found


def _without_sparse(cells: dict[tuple[Level, Level], str]) -> dict[tuple[Level, Level], str]:
    """Without rows and columns that lack most of their cells, or have one alone, which no contrast can use: one by one,
    that with the fewest cells first. Nothing where less than 2 x 2 stays."""
    while True:
        levels = [list(dict.fromkeys(cell[place] for cell in cells)) for place in (0, 1)]
        if min(map(len, levels)) < 2:
            return {}
        filled = Counter((place, cell[place]) for cell in cells for place in (0, 1))
        thin = [(count, key) for key, count in filled.items() if count < max(2, len(levels[1 - key[0]]) / 2)]
        if not thin:
            return cells
        _, (place, level) = min(thin, key=lambda item: item[0])
        cells = {cell: label for cell, label in cells.items() if cell[place] != level}


def _level(settings: Mapping[str, Any], names: Sequence[str]) -> Level:
    return value_words(settings[names[0]]) if len(names) == 1 else _words_of(settings, names)


def _words_of(settings: Mapping[str, Any], names: Iterable[str]) -> str:
    """Settings by their short names with their values; those that a point cannot use say so by themselves."""
    return ", ".join(f"{short_name(name)} {value_words(settings[name])}" for name in names)


def short_name(setting: str) -> str:
    """A setting without its section: routing.balance.switch as "balance.switch"."""
    return setting.partition(".")[2] or setting


def value_words(value: Any) -> str:
    """A value of a setting as people write it."""
    if value is None or value != value:
        return "unset"
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:g}" if isinstance(value, int | float) else str(value)


def _levels(
    found: Iterable[Level],
    names: Sequence[str],
    settings: Settings,
    cells: Mapping[Cell, str],
    plain: Mapping[str, Any],
) -> tuple[Level, ...]:
    """Each level once: that of the defaults first where it is no number, then numbers by size, then words."""
    values = {_level(settings[label], names): [settings[label][name] for name in names] for label in cells.values()}

    def order(level: Level) -> tuple[Any, ...]:
        numbers = [v for v in values[level] if isinstance(v, int | float) and not isinstance(v, bool) and v == v]
        if len(numbers) == len(values[level]):
            return (1, tuple(numbers), level)
        unusual = sum(value_words(v) != value_words(plain.get(n)) for v, n in zip(values[level], names, strict=True))
        return (0 if not unusual else 2, (unusual,), level)

    return tuple(sorted(dict.fromkeys(found), key=order))


def _ordered(names: frozenset[str], plain: Mapping[str, Any]) -> tuple[str, ...]:
    """Settings of a factor in the order of the configuration."""
    order = {name: place for place, name in enumerate(plain)}
    return tuple(sorted(names, key=lambda name: (order.get(name, len(order)), name)))


def _is_part(grid: Grid, larger: Grid) -> bool:
    """Whether a larger grid of the same factors, or of parts of them, has all points of this one."""
    own, others = ({frozenset(f.settings) for f in g.factors} for g in (grid, larger))
    alike = all(any(a <= b or b <= a for b in others) for a in own)
    return alike and set(grid.points) <= set(larger.points)
