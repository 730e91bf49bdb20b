"""Pictures of differences over size: what a sweep asked for as a trend, one panel each."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullFormatter, NullLocator

from moe_study.analysis.comparison import LEVEL
from moe_study.analysis.effects.trends import Trend
from moe_study.analysis.format import LEAK_MARK, count, percent, with_leak_mark
from moe_study.analysis.plots.style import COLOURS, INK, house_style, new_figure, title

ACROSS = 3  # panels in a row


def differences_over_size(trends: Sequence[Trend]) -> Figure | None:
    """The mean difference at each size with its interval, and the line through them; None where no trend has values.

    Bars are t intervals of one size alone, over the seeds that have every size. The line is that of the mean slope.
    """
    known = [trend for trend in trends if trend.rungs]
    if not known:
        return None
    rows = math.ceil(len(known) / ACROSS)
    with house_style():
        figure = new_figure(0.6 + 2.5 * min(ACROSS, len(known)), 0.8 + 2.1 * rows)
        panels = figure.subplots(rows, min(ACROSS, len(known)), sharey=True, squeeze=False).ravel()
        for axes, trend in zip(panels, known, strict=False):
            _panel(axes, trend)
        for axes in panels[len(known) :]:
            axes.set_visible(False)
        for axes in panels[:: min(ACROSS, len(known))]:
            axes.set_ylabel("difference of loss, nats per token")
        leaks = f"; {LEAK_MARK} reads later tokens" if any(trend.leaks for trend in known) else ""
        title(figure, "Differences over size", f"bars: {percent(LEVEL)} t intervals, each size alone{leaks}")
    return figure


def _panel(axes: Axes, trend: Trend) -> None:
    size_M = np.array([rung.size for rung in trend.rungs])
    mean_M = np.array([rung.difference.mean for rung in trend.rungs])
    axes.axhline(0, color=INK, lw=0.8, zorder=1)
    for rung in trend.rungs:
        if not math.isnan(rung.difference.low):
            axes.plot([rung.size] * 2, [rung.difference.low, rung.difference.high], color=COLOURS[0], lw=1.2, zorder=2)
    x_M = np.log2(size_M) - np.log2(size_M).mean()
    axes.plot(size_M, mean_M.mean() + trend.difference.mean * x_M, color=COLOURS[1], lw=1.2, ls=(0, (4, 2)), zorder=2)
    axes.plot(size_M, mean_M, "o", ms=5, color=COLOURS[0], zorder=3)
    axes.set_xscale("log", base=2)
    axes.set_xlim(size_M[0] / 1.4, size_M[-1] * 1.4)
    axes.xaxis.set_major_locator(FixedLocator(list(size_M)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: count(x)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.grid(axis="y")
    axes.set_xlabel(trend.size_words)
    left = with_leak_mark(trend.asked.left, trend.leaks)
    axes.set_title(f"{left}\n− {trend.asked.right}", fontsize=7.5, loc="left", color=INK)
