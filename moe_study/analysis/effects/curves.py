"""The losses of several points as a curve over cost, seed by seed: straight lines over the logarithm of cost."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from moe_study.analysis.effects.costs import Cost, known_costs
from moe_study.analysis.statistics import Floats

SAME_COST = 0.01  # costs that differ by less are one place on a curve


@dataclass(frozen=True)
class Curve:
    """Losses of a family by cost, seed by seed."""

    labels: tuple[tuple[str, ...], ...]  # of each place, cheapest first
    cost_C: Floats
    loss_CS: Floats
    in_disorder: bool  # its times do not grow with its FLOPs


def curve_of(cost: Cost, points: Sequence[str], losses: pd.DataFrame, costs: pd.DataFrame) -> Curve:
    """The curve of those points whose cost is known.

    `losses` has points (labels) down and seeds across, `costs` is that of costs_of_points. Where several points have
    one cost, each seed's mean over them stands there.
    """
    places = places_of(points, known_costs(costs, cost))
    rows = [losses.reindex(labels).to_numpy(dtype=float).mean(axis=0) for _, labels in places]
    return Curve(
        tuple(labels for _, labels in places),
        np.array([place for place, _ in places]),
        np.array(rows).reshape(len(places), losses.shape[1]),
        in_disorder(points, costs, cost),
    )


def in_disorder(points: Sequence[str], costs: pd.DataFrame, cost: Cost) -> bool:
    """Whether points of more FLOPs took less time: then their times tell about the machine, and not about them."""
    if cost is not Cost.SECONDS:
        return False
    known = costs.loc[[point for point in points if point in costs.index]].sort_values(Cost.FLOPS, kind="stable")
    return not known[Cost.SECONDS].dropna().is_monotonic_increasing


def places_of(points: Sequence[str], costs: Mapping[str, float]) -> list[tuple[float, tuple[str, ...]]]:
    """(cost, labels) of each place on the curve of `points`, cheapest first."""
    found: list[tuple[float, tuple[str, ...]]] = []
    for label in sorted((point for point in points if point in costs), key=lambda label: (costs[label], label)):
        if found and costs[label] <= (1 + SAME_COST) * found[-1][0]:
            found[-1] = (found[-1][0], (*found[-1][1], label))
        else:
            found.append((costs[label], (label,)))
    return found


def second_difference(x: Floats, y: Floats, place: int, third: int) -> float:
    """The divided difference of second order of y(x) at `place`, the next one, and a third."""
    a, b, c = place, place + 1, third
    return float(((y[c] - y[a]) / (x[c] - x[a]) - (y[b] - y[a]) / (x[b] - x[a])) / (x[c] - x[b]))
