"""Points down, a row for each: names at the left in their colours, means with their interval and seeds."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes

from moe_study.analysis.plots.style import PointStyle, mean_mark


def row_heights(names: Sequence[str]) -> dict[str, float]:
    """Where each point stands on the vertical axis, the first at the top."""
    return {label: -float(place) for place, label in enumerate(names)}


def name_rows(axes: Axes, heights: Mapping[str, float], styles: Mapping[str, PointStyle]) -> None:
    """Name the rows at the left of their first panel."""
    axes.set_yticks(list(heights.values()), [styles[label].name for label in heights])
    for tick, label in zip(axes.get_yticklabels(), heights, strict=True):
        tick.set_color(styles[label].colour)
    axes.set_ylim(min(heights.values()) - 0.7, 0.7)


def row_mark(
    axes: Axes, mean: float, bounds: tuple[float, float], values_S: np.ndarray, y: float, style: PointStyle
) -> None:
    """One point's mean; where it has seeds, its interval, and the seeds beneath."""
    if len(values_S) > 1:
        axes.plot(bounds, [y, y], color=style.colour, lw=1.4, zorder=2)
        axes.plot(values_S, np.full(len(values_S), y - 0.28), ".", ms=3, color=style.colour, mew=0)
    mean_mark(axes, mean, y, style)
