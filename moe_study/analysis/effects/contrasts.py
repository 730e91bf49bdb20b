"""Main effects and interactions of a grid, seed by seed, so that seeds are blocks and what they share cancels.

A main effect is the loss at one level of a factor minus that at the first level that it can be compared with (in a
complete grid its first), averaged over the blocks of points that agree in all else and have both. An interaction is
a difference of differences: what the change of one factor does at a level of the other, minus what it does at that
other's first level, averaged over blocks. Each is one number per seed, and its interval is Student's t over them: exact
for normal noise, of whatever size in each cell (a mixed model's z intervals cover too rarely at four or five seeds). A
seed that lacks one of the runs has no value.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from moe_study.analysis.comparison import LEVEL, Also, TestedOverPoints, untested
from moe_study.analysis.effects.grids import Factor, Grid


@dataclass(frozen=True)
class Change:
    """One factor from its first level to another."""

    factor: str  # its name
    before: str  # levels, with the factor's name: "k 1"
    after: str


@dataclass(frozen=True)
class Contrast:
    """One effect of a grid: which points count, and with which weights."""

    grid: Grid
    changes: tuple[Change, ...]  # one: a main effect; two: an interaction
    weights: tuple[tuple[str, float], ...]  # (label, weight); they sum to 0
    over: int  # pairs (main effect) or squares (interaction) of points that are averaged
    question: str = ""
    margin: float | None = None  # nats per token; None: that of the report
    late: bool = False  # stated when results of it were there already
    written: str = ""  # as the sweep file has it, where it has
    also: tuple[Also, ...] = ()

    @property
    def labels(self) -> frozenset[str]:
        return frozenset(label for label, _ in self.weights)

    @property
    def identity(self) -> frozenset[tuple[str, float]]:
        """The same for contrasts that are one number, whichever way round."""
        return _identity(self.weights)

    @property
    def is_interaction(self) -> bool:
        return len(self.changes) > 1

    @property
    def name(self) -> str:
        return " x ".join(change.factor for change in self.changes)


@dataclass(frozen=True, kw_only=True)
class Effect(TestedOverPoints):
    """A contrast with its value over seeds, in nats per token: negative is better."""

    contrast: Contrast

    @property
    def is_interaction(self) -> bool:
        return self.contrast.is_interaction

    @property
    def name(self) -> str:
        return self.contrast.name

    @property
    def points(self) -> tuple[str, ...]:
        return tuple(label for label, _ in self.contrast.weights)

    @property
    def missing(self) -> tuple[str, ...]:
        """Cells of its grid that no point fills."""
        return self.contrast.grid.missing


def pair_identity(point: str, against: str) -> frozenset[tuple[str, float]]:
    """The identity of a contrast that is the difference of two points."""
    return _identity(((point, 1.0), (against, -1.0)))


def _identity(weights: Iterable[tuple[str, float]]) -> frozenset[tuple[str, float]]:
    ordered = sorted(weights)
    sign = 1 if not ordered or ordered[0][1] > 0 else -1
    return frozenset((label, round(sign * weight, 9)) for label, weight in ordered)


def contrasts_of(grid: Grid) -> Iterator[Contrast]:
    """The main effects of the one factor of a grid, or the interactions of its two."""
    if len(grid.factors) == 1:
        yield from _main_effects(grid)
    else:
        yield from _interactions(grid)


def _main_effects(grid: Grid) -> Iterator[Contrast]:
    (factor,) = grid.factors
    for number, level in enumerate(factor.levels):
        for before in factor.levels[:number]:
            if pairs := _pairs(grid, before, level):
                yield Contrast(grid, (_change(factor, before, level),), _weights(pairs), len(pairs))
                break


def distinct_contrasts(grids: Iterable[Grid]) -> list[Contrast]:
    """The contrasts of all grids, without those that say of fewer points what one before says of more."""
    kept: list[Contrast] = []
    for contrast in (contrast for grid in grids for contrast in contrasts_of(grid)):
        if not any(contrast.changes == other.changes and contrast.labels <= other.labels for other in kept):
            kept.append(contrast)
    return kept


def _change(factor: Factor, before: str, after: str) -> Change:
    return Change(factor.name, factor.words(before), factor.words(after))


def _pairs(grid: Grid, before: str, after: str) -> list[dict[str, float]]:
    """+1 and -1 for the two points of each block."""
    labels = [(grid.cells.get((block, after)), grid.cells.get((block, before))) for block in grid.blocks]
    return [{one: 1.0, other: -1.0} for one, other in labels if one is not None and other is not None]


def _interactions(grid: Grid) -> Iterator[Contrast]:
    first, second = grid.factors
    for (m, one), (n, two) in itertools.product(enumerate(first.levels), enumerate(second.levels)):
        for before in itertools.product(first.levels[:m], second.levels[:n]):
            squares = _squares(grid, before, (one, two))
            if squares:
                changes = _change(first, before[0], one), _change(second, before[1], two)
                yield Contrast(grid, changes, _weights(squares), len(squares))
                break


def _squares(grid: Grid, before: tuple[str, str], after: tuple[str, str]) -> list[dict[str, float]]:
    """The weights of each block's four corners, in blocks that have all of them."""
    corners = [after, (after[0], before[1]), (before[0], after[1]), before]
    labels = [[grid.cells.get((block, *corner)) for corner in corners] for block in grid.blocks]
    return [dict(zip(map(str, own), (1.0, -1.0, -1.0, 1.0), strict=True)) for own in labels if None not in own]


def _weights(parts: Sequence[dict[str, float]]) -> tuple[tuple[str, float], ...]:
    """The mean of several contrasts as one weight for each point."""
    total: dict[str, float] = {}
    for part in parts:
        for label, weight in part.items():
            total[label] = total.get(label, 0.0) + weight / len(parts)
    return tuple((label, weight) for label, weight in total.items() if weight)


def effects(
    contrasts: Iterable[Contrast],
    losses: pd.DataFrame,
    leaking: frozenset[str] = frozenset(),
    margin: float = 0.01,
    level: float = LEVEL,
) -> list[Effect]:
    """The values of `contrasts` over the seeds that have all of their runs, without any test.

    `losses` has points (labels) down and seeds across.
    """
    return [_effect(contrast, losses, leaking, contrast.margin or margin, level) for contrast in contrasts]


def _effect(contrast: Contrast, losses: pd.DataFrame, leaking: frozenset[str], margin: float, level: float) -> Effect:
    labels, weights = [label for label, _ in contrast.weights], np.array([weight for _, weight in contrast.weights])
    values, seeds = np.empty(0), tuple[int, ...]()
    if labels and set(labels) <= set(losses.index):
        known = losses.loc[labels].dropna(axis=1)
        values, seeds = weights @ known.to_numpy(), tuple(map(int, known.columns))
    return Effect(contrast=contrast, seeds=seeds, leaks=bool(set(labels) & leaking), **untested(values, margin, level))
