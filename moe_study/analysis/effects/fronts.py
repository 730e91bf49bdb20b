"""Pareto fronts: the points that no other beats in loss at the same or a lower cost, and how sure that is.

A point's interval is Student's t over its seeds, each alone: it holds the noise of seeds, which points largely share,
and not that the best of many was chosen. How firmly a point stands on the front is told by resampling seeds, all
points together: the share of resamples, with their probabilities, in which it is on it. That too is a description: of
few seeds a resample repeats some, and with n of them no share says more than n seeds can.
"""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from moe_study.analysis.comparison import LEVEL
from moe_study.analysis.effects.costs import Cost, known_costs
from moe_study.analysis.statistics import Floats, Interval, interval

EXACT_SEEDS = 7  # up to here all resamples are counted (1,716 of them), beyond that RESAMPLES are drawn
RESAMPLES = 4000
SAME_COST = 1e-9  # relative: costs that differ by less are equal


@dataclass(frozen=True)
class FrontPoint:
    """One point beside a front."""

    label: str
    cost: float
    loss: Interval  # over `seeds` of the front; over its own where it is set apart
    on_front: bool
    share: float  # of seed resamples in which it is on the front; NaN where it is set apart, or of one seed
    beaten_by: str  # the point of lowest loss among those that cost no more; empty on the front
    standing: str  # as in the table: ranked, or why it is set apart


@dataclass(frozen=True)
class Front:
    """Points by one cost, cheapest first; those that are not ranked (leaking, lacking seeds) are set apart."""

    cost: Cost
    seeds: tuple[int, ...]
    points: tuple[FrontPoint, ...]
    ranked: str  # the standing of those that are not set apart

    @property
    def on_front(self) -> tuple[FrontPoint, ...]:
        return tuple(point for point in self.points if point.on_front)

    @property
    def apart(self) -> tuple[FrontPoint, ...]:
        return tuple(point for point in self.points if point.standing != self.ranked)


def front(
    cost: Cost, losses: pd.DataFrame, costs: pd.DataFrame, standings: dict[str, str], ranked: str, level: float = LEVEL
) -> Front:
    """The front of the points whose standing is `ranked`, over the seeds that all of them have.

    `losses` has points down and seeds across, `costs` is that of costs_of_points.
    """
    known = {label: value for label, value in known_costs(costs, cost).items() if label in losses.index}
    own = sorted((p for p in known if standings.get(p) == ranked), key=lambda p: (known[p], p))
    shared = losses.loc[own].dropna(axis=1)
    loss_PS, cost_P = shared.to_numpy(), np.array([known[label] for label in own])
    on, shares = np.zeros(len(own), dtype=bool), np.full(len(own), np.nan)
    if loss_PS.size:
        on = on_front(cost_P, loss_PS.mean(axis=1))
        shares = front_shares(cost_P, loss_PS) if loss_PS.shape[1] > 1 else shares
    points = []
    for place, label in enumerate(own):
        mean = interval(loss_PS[place], level)
        beaten = "" if on[place] or not loss_PS.size else _beaten_by(place, own, cost_P, loss_PS.mean(axis=1))
        points.append(
            FrontPoint(label, float(cost_P[place]), mean, bool(on[place]), float(shares[place]), beaten, ranked)
        )
    for label in known:
        if label not in own:
            mean = interval(losses.loc[label].dropna().to_numpy(), level)
            apart = standings.get(label, "")
            points.append(FrontPoint(label, known[label], mean, False, math.nan, "", apart))
    points.sort(key=lambda point: (point.cost, point.label))
    return Front(cost, tuple(map(int, shared.columns)) if own else (), tuple(points), ranked)


def on_front(cost_P: Floats, loss_P: Floats) -> NDArray[np.bool_]:
    """Whether no other point has at most the cost and at most the loss, and less of one; losses may be stacked.

    Two points that are equal in both are both on the front.
    """
    no_dearer = cost_P[:, None] >= cost_P[None, :] * (1 - SAME_COST)  # [i, j]: j costs no more than i
    cheaper = cost_P[:, None] > cost_P[None, :] * (1 + SAME_COST)
    loss_i, loss_j = loss_P[..., :, None], loss_P[..., None, :]
    beaten = no_dearer & (loss_j <= loss_i) & (cheaper | (loss_j < loss_i))
    return np.asarray(~beaten.any(axis=-1))


def front_shares(cost_P: Floats, loss_PS: Floats) -> Floats:
    """The probability that each point is on the front of a resample of seeds with replacement."""
    counts, weights = resamples(loss_PS.shape[1])
    means = counts @ loss_PS.T / loss_PS.shape[1]
    return np.clip(weights @ on_front(cost_P, means), 0, 1)


def resamples(seeds: int) -> tuple[Floats, Floats]:
    """(how often each seed stands in each resample, the probability of each): all of them where seeds are few."""
    if seeds <= EXACT_SEEDS:
        counts = np.array(list(_compositions(seeds, seeds)), dtype=float)
        ways = [math.factorial(seeds) / math.prod(math.factorial(int(n)) for n in row) for row in counts]
        return counts, np.array(ways) / seeds**seeds
    drawn = np.random.default_rng(0).multinomial(seeds, np.full(seeds, 1 / seeds), RESAMPLES).astype(float)
    return drawn, np.full(RESAMPLES, 1 / RESAMPLES)


def _compositions(total: int, parts: int) -> Iterator[tuple[int, ...]]:
    """All ways to write `total` as a sum of `parts` numbers from 0."""
    for bars in itertools.combinations(range(total + parts - 1), parts - 1):
        ends = (-1, *bars, total + parts - 1)
        yield tuple(high - low - 1 for low, high in itertools.pairwise(ends))


def _beaten_by(place: int, labels: list[str], cost_P: Floats, loss_P: Floats) -> str:
    affordable = cost_P <= cost_P[place] * (1 + SAME_COST)
    return labels[int(np.argmin(np.where(affordable, loss_P, np.inf)))]
