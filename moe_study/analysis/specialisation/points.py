"""Rows of runs gathered by design point: over seeds, tested within each question, and as a frame.

A question is a label with what is known already (topic beyond the token id). It is one family: Holm-adjusted over
all points and layers that were asked it. The p value of a row is the larger of `p_seeds` and `p_documents`, because a
claim needs both.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import pandas as pd

from moe_study.analysis.specialisation.rows import Row, RowOverSeeds, over_seeds
from moe_study.analysis.specialisation.run_tables import information_of
from moe_study.analysis.statistics import holm

ALPHA = 0.05
FEWEST_SEEDS = 2
ENDS = ("", "_low", "_high")


class Question(NamedTuple):
    """A label, and what is known already; "" for nothing."""

    label: str
    given: str


@dataclass(frozen=True)
class MeasuredRun:
    """One run over the probe."""

    point: str  # its label
    seed: int
    leaks: bool  # the routing reads later tokens
    layers: tuple[int, ...]  # numbers of the layers with experts, in the order that rows count them; none where dense
    by: str  # how picks were weighted
    token_labels: frozenset[str]  # labels that tokens have, not documents
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class PointRow:
    """One row of a point over its seeds."""

    layer: int  # the layer's number in the model
    over_seeds: RowOverSeeds
    p_adjusted: float  # NaN where there is nothing to test with
    family: int  # rows that were tested together

    @property
    def question(self) -> Question:
        return Question(self.over_seeds.label, self.over_seeds.given)

    @property
    def shown(self) -> bool:
        """Whether the experts tell more than the null does, for other seeds and for other documents."""
        return self.over_seeds.excess.mean > 0 and self.p_adjusted <= ALPHA


@dataclass(frozen=True)
class Point:
    """One design point over its seeds."""

    label: str
    leaks: bool
    seeds: tuple[int, ...]
    by: str
    token_labels: frozenset[str]
    rows: tuple[PointRow, ...]

    @property
    def dense(self) -> bool:
        return not self.rows

    @property
    def tested(self) -> bool:
        return len(self.seeds) >= FEWEST_SEEDS


def measured_run(point: str, seed: int, leaks: bool, information: pd.DataFrame) -> MeasuredRun:
    """A run from its table `information` (run_tables), or one with its columns."""
    return MeasuredRun(
        point,
        seed,
        leaks,
        layers=tuple(dict.fromkeys(information["layer"])),
        by=information["weighted_by"].iloc[0] if len(information) else "picks",
        token_labels=frozenset(information["label"][information["of_tokens"].astype(bool)]),
        rows=tuple(information_of(information)),
    )


def points_of(runs: Sequence[MeasuredRun]) -> list[Point]:
    """The points of `runs`, in the order of their first run, with adjusted p values.

    Errors: DataError where the seeds of a point have different layers or labels.
    """
    by_point: dict[str, list[MeasuredRun]] = {}
    for run in runs:
        by_point.setdefault(run.point, []).append(run)
    return _adjusted([_point(own) for own in by_point.values()])


def _point(runs: Sequence[MeasuredRun]) -> Point:
    first = runs[0]
    rows = over_seeds([run.rows for run in runs])
    return Point(
        label=first.point,
        leaks=any(run.leaks for run in runs),
        seeds=tuple(run.seed for run in runs),
        by=first.by,
        token_labels=first.token_labels,
        rows=tuple(PointRow(first.layers[row.layer], row, float("nan"), 0) for row in rows),
    )


def _adjusted(points: Sequence[Point]) -> list[Point]:
    families: dict[Question, list[RowOverSeeds]] = {}
    for row in (row for point in points for row in point.rows):
        families.setdefault(row.question, []).append(row.over_seeds)
    adjusted: dict[int, tuple[float, int]] = {}
    for family in families.values():
        p_values = np.array([max_or_nan(row.p_seeds, row.p_documents) for row in family])
        size = int((~np.isnan(p_values)).sum())
        adjusted |= {id(row): (float(p), size) for row, p in zip(family, holm(p_values), strict=True)}
    return [
        replace(
            point,
            rows=tuple(PointRow(row.layer, row.over_seeds, *adjusted[id(row.over_seeds)]) for row in point.rows),
        )
        for point in points
    ]


def max_or_nan(first: float, second: float) -> float:
    """The larger; NaN where either is missing."""
    return float(np.maximum(first, second))


def to_frame(points: Sequence[Point]) -> pd.DataFrame:
    """One row for each point, layer and question, with all digits.

    Columns: point, leaks, seeds (count), layer, label, given, weighted_by; value, excess (both over the entropy of the
    label) with _low and _high; null_mean, null_low, null_high; p_seeds, p_documents, p_adjusted, family, shown (None
    where nothing was tested).
    """
    columns = [
        "point", "leaks", "seeds", "layer", "label", "given", "weighted_by", "value", "value_low", "value_high",
        "excess", "excess_low", "excess_high", "null_mean", "null_low", "null_high", "p_seeds", "p_documents",
        "p_adjusted", "family", "shown",
    ]  # fmt: skip
    return pd.DataFrame([_cells(point, row) for point in points for row in point.rows], columns=columns)


def _cells(point: Point, row: PointRow) -> dict[str, object]:
    of = row.over_seeds
    return {
        "point": point.label,
        "leaks": point.leaks,
        "seeds": len(point.seeds),
        "layer": row.layer,
        "label": of.label,
        "given": of.given,
        "weighted_by": point.by,
        **{f"value{end}": n for end, n in zip(ENDS, (of.value.mean, of.value.low, of.value.high), strict=True)},
        **{f"excess{end}": n for end, n in zip(ENDS, (of.excess.mean, of.excess.low, of.excess.high), strict=True)},
        "null_mean": of.null_mean,
        "null_low": of.null_low,
        "null_high": of.null_high,
        "p_seeds": of.p_seeds,
        "p_documents": of.p_documents,
        "p_adjusted": row.p_adjusted,
        "family": row.family,
        "shown": None if np.isnan(row.p_adjusted) else row.shown,
    }
