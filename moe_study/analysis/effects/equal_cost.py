"""The loss of a point against a family of others at the same cost, where no twin of that cost was trained.

Seed by seed, the family's losses are joined by straight lines over the logarithm of cost, and the point's loss is
compared with the line at the point's own cost. So the difference is paired, and its interval holds the noise of the
point and of the two ends of the line. It does not hold how the true curve bends between them (`bend` estimates that
where the family has a third point), nor the noise of a measured time. Nothing is extrapolated: beyond the last point of
a family stands a sentence, but for a point so close to it that it is its twin (TWIN_TOLERANCE).
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import pandas as pd

from moe_study.analysis.comparison import LEVEL, Also, TestedOverPoints, untested
from moe_study.analysis.effects.costs import DESCRIBED, Cost, known_costs
from moe_study.analysis.effects.curves import Curve, curve_of, in_disorder, places_of, second_difference
from moe_study.analysis.effects.families import Family
from moe_study.analysis.pairs import TWIN_TOLERANCE
from moe_study.analysis.statistics import Floats


class Refused(StrEnum):
    """Why a comparison at equal cost says nothing."""

    NOT = ""
    BEYOND = "beyond"  # the point is cheaper or dearer than all of the family: nothing is extrapolated
    UNKNOWN = "unknown"  # no finished run tells what the point, or any of the family, costs
    DISORDER = "disorder"  # measured times do not grow with the FLOPs of the family: no curve goes along them


@dataclass(frozen=True)
class AskedAtCost:
    """A comparison at equal cost that somebody wants: the loss of `point` minus that of the curve of `points`."""

    cost: Cost
    point: str
    family: str  # its name
    points: tuple[str, ...]  # labels that make the curve
    question: str = ""
    margin: float | None = None  # nats per token; None: that of the report
    late: bool = False  # stated when results of it were there already
    written: str = ""  # as the sweep file has it, where it has
    also: tuple[Also, ...] = ()

    @property
    def labels(self) -> frozenset[str]:
        return frozenset((self.point, *self.points))


@dataclass(frozen=True, kw_only=True)
class EqualCost(TestedOverPoints):
    """The loss of a point minus that of a family's curve at the point's cost."""

    asked: AskedAtCost
    at: float  # cost of the point; NaN where nobody knows it
    span: tuple[float, float]  # costs of the family's cheapest and dearest point
    ends: tuple[str, ...]  # labels between which the curve was taken: one (its twin), two, or none
    weight: float  # of the second end
    bend: float  # nats per token by which the curve may bend away from the line, by a third point; NaN without one
    refused: Refused = Refused.NOT

    @property
    def cost(self) -> Cost:
        return self.asked.cost

    @property
    def point(self) -> str:
        return self.asked.point

    @property
    def family_name(self) -> str:
        return self.asked.family

    @property
    def stretch(self) -> float:
        """By how much of its cost the point lies beyond the family, if it does."""
        low, high = self.span
        return max(low / self.at - 1, self.at / high - 1, 0.0)


def default_requests(found: Sequence[Family], costs: pd.DataFrame) -> Iterator[AskedAtCost]:
    """Every point against every family of two costs or more that it is not of, at each cost."""
    for cost in DESCRIBED:
        known = known_costs(costs, cost)
        for family in found:
            points = tuple(point for point in family.points if point in known)
            if len(places_of(points, known)) > 1 and not in_disorder(points, costs, cost):
                others = (point for other in found if other is not family for point in other.points if point in known)
                yield from (AskedAtCost(cost, point, family.name, points) for point in others)


def at_equal_cost(
    asked: Iterable[AskedAtCost],
    losses: pd.DataFrame,
    costs: pd.DataFrame,
    leaking: frozenset[str] = frozenset(),
    margin: float = 0.01,
    level: float = LEVEL,
) -> list[EqualCost]:
    """The differences that are `asked` for, without any test.

    `losses` has points (labels) down and seeds across, `costs` is that of costs_of_points. Where several points of a
    family have one cost, each seed's mean over them stands there.
    """
    curves: dict[tuple[Cost, tuple[str, ...]], Curve] = {}
    found = []
    for one in asked:
        key = one.cost, one.points
        if key not in curves:
            curves[key] = curve_of(one.cost, one.points, losses, costs)
        at = float(costs[one.cost].get(one.point, np.nan))
        found.append(_measured(one, at, curves[key], losses, leaking, one.margin or margin, level))
    return found


def _measured(
    asked: AskedAtCost,
    at: float,
    curve: Curve,
    losses: pd.DataFrame,
    leaking: frozenset[str],
    margin: float,
    level: float,
) -> EqualCost:
    place, weight, refused = None, 0.0, Refused.UNKNOWN
    if curve.in_disorder:
        refused = Refused.DISORDER
    elif len(curve.cost_C) and at > 0:
        place, weight = where_on_curve(at, curve.cost_C)
        refused = Refused.BEYOND if place is None else Refused.NOT
    difference_S = np.full(losses.shape[1], np.nan)
    if place is not None and asked.point in losses.index:
        difference_S = losses.loc[[asked.point]].to_numpy()[0] - loss_on_curve(curve.loss_CS, place, weight)
    known = ~np.isnan(difference_S)
    used = () if place is None else curve.labels[place : place + (2 if weight else 1)]
    return EqualCost(
        asked=asked,
        at=at,
        span=(float(curve.cost_C[0]), float(curve.cost_C[-1])) if len(curve.cost_C) else (np.nan, np.nan),
        ends=tuple(" and ".join(labels) for labels in used),
        weight=weight,
        bend=_bend(curve, at, place, weight),
        seeds=tuple(int(seed) for seed in losses.columns[known]),
        leaks=bool({asked.point, *asked.points} & leaking),
        refused=refused,
        **untested(difference_S[known], margin, level),
    )


def where_on_curve(at: float, cost_C: Floats) -> tuple[int | None, float]:
    """(the place at or before `at`, the weight of the next one) among ascending costs; no place beyond either end,
    but for costs within TWIN_TOLERANCE of it."""
    low, high = float(cost_C[0]), float(cost_C[-1])
    if at <= low:
        return (0 if low <= (1 + TWIN_TOLERANCE) * at else None), 0.0
    if at >= high:
        return (len(cost_C) - 1 if at <= (1 + TWIN_TOLERANCE) * high else None), 0.0
    place = int(np.searchsorted(cost_C, at, side="right")) - 1
    before, after = np.log(cost_C[place : place + 2])
    return place, float((np.log(at) - before) / (after - before))


def loss_on_curve(loss_CS: Floats, place: int, weight: float) -> Floats:
    """The curve's loss, seed by seed; losses may be stacked (..., C, S)."""
    if not weight:
        return loss_CS[..., place, :]
    return np.asarray((1 - weight) * loss_CS[..., place, :] + weight * loss_CS[..., place + 1, :])


def _bend(curve: Curve, at: float, place: int | None, weight: float) -> float:
    """How far the parabola through a third point lies from the line at `at`: the larger of those with either neighbour.

    Of mean losses over the seeds that all points have; (x - a)(x - b) times the divided difference of second order. 0
    where no line is used.
    """
    if place is None or not weight:
        return np.nan if place is None else 0.0
    whole = ~np.isnan(curve.loss_CS).any(axis=0)
    if not whole.any():
        return np.nan
    x, y = np.log(curve.cost_C), curve.loss_CS[:, whole].mean(axis=1)
    thirds = [third for third in (place - 1, place + 2) if 0 <= third < len(x)]
    here = (np.log(at) - x[place]) * (np.log(at) - x[place + 1])
    gaps = [abs(here * second_difference(x, y, place, third)) for third in thirds]
    return float(max(gaps, default=np.nan))
