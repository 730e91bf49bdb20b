"""How a difference changes with size: its slope over the logarithm of size, in nats per token and doubling.

At each size a seed has a difference of two runs. Least squares through a seed's differences over log2(size) gives that
seed's slope; the trend is their mean, with Student's t interval over seeds. So seeds are blocks: what a seed does to
all of its runs cancels, noise may differ in amount from size to size and go together within a seed, and the interval
is exact for normal noise (a mixed model estimates the same slope, and its z interval covers too rarely at few seeds).
Seeds that lack one of the runs have no slope.

A line through few sizes tells their direction and no law: `off_line` is how far the mean differences lie from it, and
nothing is said of sizes beyond those that were trained.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from moe_study.analysis.comparison import LEVEL, Also, TestedOverPoints, untested
from moe_study.analysis.effects.costs import Cost, costs_of_points
from moe_study.analysis.statistics import Floats, Interval, interval

TOKENS = "tokens"  # trained on
SIZE_WORDS = {**{cost.value: cost.words for cost in Cost}, TOKENS: "training tokens"}


@dataclass(frozen=True)
class AskedTrend:
    """A trend that somebody wants: of the loss of the first points minus that of the second ones, size by size."""

    left: str  # both sides as the sweep file has them
    right: str
    over: str  # the setting that makes the sizes
    by: str  # per doubling of what, of the second side
    pairs: tuple[tuple[str, str, str], ...]  # (value of the setting, label, label of what it is compared with)
    question: str = ""
    margin: float | None = None  # nats per token and doubling; None: that of the report
    late: bool = False  # stated when results of it were there already
    written: str = ""  # as the sweep file has it
    also: tuple[Also, ...] = ()

    @property
    def labels(self) -> frozenset[str]:
        return frozenset(label for _, *pair in self.pairs for label in pair)


@dataclass(frozen=True)
class Rung:
    """The difference at one size, over the seeds of the trend."""

    level: str
    size: float
    difference: Interval


@dataclass(frozen=True, kw_only=True)
class Trend(TestedOverPoints):
    """The slope of a difference over seeds, in nats per token and doubling of size; negative: it falls."""

    asked: AskedTrend
    rungs: tuple[Rung, ...]  # by rising size; none where a size is not known, or no seed has all runs
    off_line: float  # nats per token: the largest distance of a mean difference from the line; NaN without rungs

    @property
    def size_words(self) -> str:
        return SIZE_WORDS[self.asked.by]

    @property
    def name(self) -> str:
        """Both sides, in one line."""
        return f"{self.asked.left} − {self.asked.right}"


def sizes_of_points(runs: pd.DataFrame) -> pd.DataFrame:
    """Points (labels) down; what a trend can go by, across."""
    return costs_of_points(runs).assign(**{TOKENS: runs.groupby("label")["tokens"].mean()})


def trends(
    asked: Iterable[AskedTrend],
    losses: pd.DataFrame,
    sizes: pd.DataFrame,
    leaking: frozenset[str] = frozenset(),
    margin: float = 0.01,
    level: float = LEVEL,
) -> list[Trend]:
    """The trends that are `asked` for, without any test.

    `losses` has points (labels) down and seeds across, `sizes` is that of sizes_of_points.
    """
    return [_measured(one, losses, sizes, leaking, one.margin or margin, level) for one in asked]


def _measured(
    asked: AskedTrend,
    losses: pd.DataFrame,
    sizes: pd.DataFrame,
    leaking: frozenset[str],
    margin: float,
    level: float,
) -> Trend:
    size_M = np.array([sizes[asked.by].get(right, np.nan) for _, _, right in asked.pairs], dtype=float)
    order_M = np.argsort(size_M, kind="stable")
    size_M, pairs = size_M[order_M], [asked.pairs[place] for place in order_M]
    rungs: tuple[Rung, ...] = ()
    seeds: tuple[int, ...] = ()
    slope_S, off_line = np.empty(0), np.nan
    if asked.labels <= set(losses.index) and np.all(size_M > 0) and size_M[0] < size_M[-1]:
        known = losses.loc[sorted(asked.labels)].dropna(axis=1)
        gap_MS = np.stack([(known.loc[left] - known.loc[right]).to_numpy(dtype=float) for _, left, right in pairs])
        seeds, slope_S = tuple(map(int, known.columns)), slopes(size_M, gap_MS)
        if seeds:
            off_line = float(np.abs(_residuals(size_M, gap_MS.mean(axis=1))).max())
            rungs = tuple(
                Rung(pair[0], float(size), interval(gap_S, level))
                for pair, size, gap_S in zip(pairs, size_M, gap_MS, strict=True)
            )
    return Trend(
        asked=asked,
        rungs=rungs,
        seeds=seeds,
        leaks=bool(asked.labels & leaking),
        off_line=off_line,
        **untested(slope_S, margin, level),
    )


def slopes(size_M: Floats, gap_MS: Floats) -> Floats:
    """The least-squares slope of each seed over log2(size): gap_MS (..., sizes, seeds) gives (..., seeds)."""
    x_M = np.log2(size_M) - np.log2(size_M).mean()
    return np.asarray(np.einsum("m,...ms->...s", x_M, gap_MS) / (x_M @ x_M))


def _residuals(size_M: Floats, gap_M: Floats) -> Floats:
    x_M = np.log2(size_M) - np.log2(size_M).mean()
    return np.asarray(gap_M - gap_M.mean() - x_M * slopes(size_M, gap_M[:, None])[0])
