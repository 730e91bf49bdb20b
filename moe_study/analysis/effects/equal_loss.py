"""At which cost several points have the loss of another one: the comparison at equal cost, read the other way round.

A paper that claims the same quality at half the cost can be asked in two ways. At half the cost, is the loss the same?
That is a comparison at equal cost, and it is tested as one. At the same loss, what is the cost? That is asked here. The
points' losses are joined seed by seed by straight lines over the logarithm of cost (curves.py), D(c) is this curve at
the cost c minus the loss of the point that is to be reached, and the answer is the least c at which D comes down to
0, as a share of that point's own cost. Its estimate is where the mean of D over seeds does. Its confidence set is
every c at which the paired t interval of D(c) includes 0 (Fieller 1954): exact for normal noise whatever the slope of
the curve, which a standard error of a ratio is not. So it may be open: where not even the dearest place is below
the point for certain, no share is too large ("at least 0.7"), and where the cheapest is not above it for certain, none
is too small. A curve that turns gives a set in several pieces, and then the interval is their hull. Nothing is
extrapolated.

This is described and not tested, and no other test pays for it: whether a claimed share is enough is the test of D at
that share, which a sweep file asks for as a comparison of the point that was trained there. The share is outside of the
set exactly where that test alone, at 5%, finds a difference. The interval stands alone, too, at its plain level.

As at equal cost, it does not hold how the true curve bends between two places (`bent` says where it would cross on a
parabola through a third), nor the noise of the costs themselves, which are means over runs.
"""

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import pandas as pd

from moe_study.analysis.comparison import LEVEL, MIN_SEEDS_FOR_INTERVAL
from moe_study.analysis.effects.costs import Cost
from moe_study.analysis.effects.curves import Curve, curve_of, second_difference
from moe_study.analysis.effects.equal_cost import Refused
from moe_study.analysis.effects.families import name_of
from moe_study.analysis.statistics import Floats, Interval, interval, t_quantile

NO_NOISE = 1e-6  # of a line: ends of the set this close to where the mean crosses are that crossing
ABOVE, SAME, BELOW = 1, 0, -1  # the curve next to the point's loss: its interval's side of 0


class Crossing(StrEnum):
    """Where the mean curve first comes down to the point's loss."""

    ON = "on the curve"
    BEFORE = "before it"  # its cheapest place is there already
    BEYOND = "beyond it"  # none of its places is


@dataclass(frozen=True)
class AskedReach:
    """A share of cost that somebody wants: what the curve of `points` takes to have the loss of `point`."""

    cost: Cost
    points: tuple[str, ...]  # labels that make the curve
    point: str
    question: str = ""
    at_most: float | None = None  # the share that is claimed
    late: bool = False  # stated when results of it were there already
    written: str = ""  # as the sweep file has it

    @property
    def labels(self) -> frozenset[str]:
        return frozenset((self.point, *self.points))


@dataclass(frozen=True)
class Place:
    """One cost on the curve, with the difference there over the seeds that count."""

    labels: tuple[str, ...]
    share: float  # of the point's cost
    gaps: tuple[float, ...]  # curve minus point, nats per token, seed by seed
    difference: Interval  # the same over seeds, alone


@dataclass(frozen=True, kw_only=True)
class EqualLoss:
    """The share of the point's cost at which the curve has its loss; all shares are NaN where that is not known."""

    asked: AskedReach
    name: str  # of the points that make the curve
    at: float  # cost of the point
    places: tuple[Place, ...]  # cheapest first
    seeds: tuple[int, ...]  # those that every place and the point have
    level: float
    share: float  # NaN where the mean curve does not cross
    crossing: Crossing
    low: float  # of the confidence set; 0 where it is open at the cheap end
    high: float  # infinite where it is open at the dear end
    pieces: tuple[tuple[float, float], ...]  # of the set, on the curve
    bent: tuple[float, ...]  # shares at which parabolas through a third place cross
    off_curve: tuple[str, ...]  # points whose cost nobody knows
    leaks: bool  # one of the points reads later tokens
    refused: Refused = Refused.NOT

    @property
    def falls(self) -> bool:
        """Whether a dearer place always has a lower mean loss."""
        means = [place.difference.mean for place in self.places]
        return all(later < earlier for earlier, later in itertools.pairwise(means))

    @property
    def between(self) -> tuple[Place, ...]:
        """The two places between which the mean curve crosses."""
        if self.crossing is not Crossing.ON:
            return ()
        after = next(place for place, one in enumerate(self.places) if one.difference.mean <= 0)
        return self.places[after - 1 : after + 1]


def at_equal_loss(
    asked: Iterable[AskedReach],
    losses: pd.DataFrame,
    costs: pd.DataFrame,
    leaking: frozenset[str] = frozenset(),
    level: float = LEVEL,
) -> list[EqualLoss]:
    """The shares that are `asked` for.

    `losses` has points (labels) down and seeds across, `costs` is that of costs_of_points.
    """
    return [_measured(one, losses, costs, leaking, level) for one in asked]


def _measured(
    asked: AskedReach, losses: pd.DataFrame, costs: pd.DataFrame, leaking: frozenset[str], level: float
) -> EqualLoss:
    curve = curve_of(asked.cost, asked.points, losses, costs)
    at = float(costs[asked.cost].get(asked.point, np.nan))
    gap_CS = curve.loss_CS - losses.reindex([asked.point]).to_numpy(dtype=float)
    whole = ~np.isnan(gap_CS).any(axis=0)
    refused = Refused.NOT
    if not (at > 0 and len(curve.cost_C) > 1):
        refused = Refused.UNKNOWN
    elif curve.in_disorder:
        refused = Refused.DISORDER
    on_curve = [label for labels in curve.labels for label in labels]
    shares = _Shares() if refused or not whole.any() else _shares(curve.cost_C / at, gap_CS[:, whole], level)
    return EqualLoss(
        asked=asked,
        name=name_of(on_curve or asked.points, losses.index),
        at=at,
        places=() if refused else tuple(_places(curve, at, gap_CS[:, whole], level)),
        seeds=tuple(int(seed) for seed in losses.columns[whole]) if not refused else (),
        level=level,
        off_curve=tuple(label for label in asked.points if label not in on_curve),
        leaks=bool(asked.labels & leaking),
        refused=refused,
        **vars(shares),
    )


def _places(curve: Curve, at: float, gap_CS: Floats, level: float) -> Iterator[Place]:
    for labels, cost, gap_S in zip(curve.labels, curve.cost_C, gap_CS, strict=True):
        yield Place(labels, float(cost / at), tuple(gap_S.tolist()), interval(gap_S, level))


@dataclass(frozen=True)
class _Shares:
    """The fields of an EqualLoss that are computed from the curve."""

    share: float = np.nan
    crossing: Crossing = Crossing.BEYOND
    low: float = np.nan
    high: float = np.nan
    pieces: tuple[tuple[float, float], ...] = ()
    bent: tuple[float, ...] = ()


def _shares(share_C: Floats, gap_CS: Floats, level: float) -> _Shares:
    """From shares of cost, cheapest first, and differences seed by seed."""
    x_C, mean_C = np.log(share_C), gap_CS.mean(axis=1)
    reached = np.flatnonzero(mean_C <= 0)
    share, crossing = np.nan, Crossing.BEYOND
    bent: tuple[float, ...] = ()
    if len(reached) and reached[0] == 0:
        crossing = Crossing.BEFORE
    elif len(reached):
        crossing, before = Crossing.ON, int(reached[0]) - 1
        share = float(np.exp(_crossing(x_C, mean_C, before, 0.0)))
        bent = tuple(sorted(_bent(x_C, mean_C, before)))
    if gap_CS.shape[1] < MIN_SEEDS_FOR_INTERVAL:
        return _Shares(share, crossing, bent=bent)
    stretches = sides_of(x_C, gap_CS, level)
    low, high = _hull(stretches, x_C)
    pieces = tuple((float(np.exp(a)), float(np.exp(b))) for a, b, side in stretches if side == SAME)
    return _Shares(share, crossing, low, high, pieces, bent)


def _hull(stretches: Sequence["Stretch"], x_C: Floats) -> tuple[float, float]:
    """The ends of the confidence set as shares, 0 or infinite where it is open."""
    same = [(a, b) for a, b, side in stretches if side == SAME]
    sides = [side for _, _, side in stretches]
    if sides[0] == BELOW:
        return 0.0, float(np.exp(x_C[0]))  # crossed before its cheapest place, whatever it does later
    if not same:
        return float(np.exp(x_C[-1])), np.inf
    low = float(np.exp(same[0][0])) if sides[0] == ABOVE else 0.0
    return low, float(np.exp(same[-1][1])) if BELOW in sides else np.inf


# Where a curve is above, at and below zero --------------------------------------------------------------------------

Stretch = tuple[float, float, int]  # from, to, and ABOVE, SAME or BELOW


def sides_of(x_C: Floats, gap_CS: Floats, level: float) -> list[Stretch]:
    """The stretches of [x_0, x_last] on which the t interval of the curve's mean is above, includes or is below 0.

    The curve is straight between places x_C, with gap_CS (places, seeds, two at least) there. A stretch may be one
    point.
    """
    squared = t_quantile((1 + level) / 2, gap_CS.shape[1] - 1) ** 2 / gap_CS.shape[1]
    merged: list[Stretch] = []
    for place, (start, end) in enumerate(itertools.pairwise(x_C.tolist())):
        for a, b, side in _on_line(gap_CS[place], gap_CS[place + 1], squared):
            stretch = (start + a * (end - start), start + b * (end - start), side)
            if merged and merged[-1][2] == side:
                stretch = (merged.pop()[0], *stretch[1:])
            merged.append(stretch)
    return merged


def _on_line(from_S: Floats, to_S: Floats, squared: float) -> Iterator[Stretch]:
    """The same on one line, for weights of its end from 0 to 1, point, stretch, point, and so on.

    At the weight w the mean is m(w) = a + b w and its variance over seeds v(w) a parabola in w; the interval includes 0
    where m^2 <= t^2 v / n, a quadratic inequality (`squared` is t^2 / n).
    """
    step_S = to_S - from_S
    a, b = float(from_S.mean()), float(step_S.mean())
    (v_from, v_both), (_, v_step) = np.cov(from_S, step_S)
    gap = a**2 - squared * float(v_from), 2 * (a * b - squared * float(v_both)), b**2 - squared * float(v_step)
    middle = -a / b if b else np.nan
    ends = [root for root in _roots(*gap) if not abs(root - middle) < NO_NOISE]
    inside = {w for w in (middle, *ends) if 0 < w < 1}
    cuts = sorted({0.0, 1.0, *inside})

    def side(w: float) -> int:
        if w in inside or gap[0] + gap[1] * w + gap[2] * w**2 <= 0:
            return SAME
        return ABOVE if a + b * w > 0 else BELOW

    yield 0.0, 0.0, side(0.0)
    for low, high in itertools.pairwise(cuts):
        yield low, high, side((low + high) / 2)
        yield high, high, side(high)


def _roots(constant: float, linear: float, square: float) -> list[float]:
    """The real roots of a quadratic, also where it is nearly a line: without a difference of nearly equal numbers."""
    under = linear**2 - 4 * constant * square
    if under < 0:
        return []
    half = -(linear + math.copysign(math.sqrt(under), linear)) / 2
    return [*([half / square] if square else []), *([constant / half] if half else [])]


def _crossing(x_C: Floats, mean_C: Floats, before: int, bend: float) -> float:
    """Where the curve from `before` (above 0) to the next place (not above) is 0: the line, and `bend` times
    (x - x_before)(x - x_next) on top of it."""
    step = float(x_C[before + 1] - x_C[before])
    curved = bend * step**2
    above, below = float(mean_C[before]), float(mean_C[before + 1])
    within = [w for w in _roots(above, below - above - curved, curved) if 0 <= w <= 1]
    return float(x_C[before]) + step * min(within, default=1.0)  # 1 but for rounding: the next place is not above


def _bent(x_C: Floats, mean_C: Floats, before: int) -> Iterator[float]:
    """The shares at which parabolas through a place before or behind the two cross."""
    for third in (before - 1, before + 2):
        if 0 <= third < len(x_C):
            yield float(np.exp(_crossing(x_C, mean_C, before, second_difference(x_C, mean_C, before, third))))
