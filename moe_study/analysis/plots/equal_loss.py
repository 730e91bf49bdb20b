"""Pictures of costs at equal loss: what a sweep asked for as a reach, one panel each."""

import math
import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullFormatter, NullLocator

from moe_study.analysis.effects.equal_loss import Crossing, EqualLoss
from moe_study.analysis.effects.equal_loss_wording import share_text
from moe_study.analysis.format import LEAK_MARK, percent, with_leak_mark
from moe_study.analysis.plots.style import BAND_COLOUR, COLOURS, INK, house_style, new_figure, title
from moe_study.analysis.statistics import Floats, t_interval

ACROSS = 3  # panels in a row
FINE = 200  # points of a band
LETTERS = 40  # of a panel's title in a line


def costs_at_equal_loss(found: Sequence[EqualLoss]) -> Figure | None:
    """The curve's loss minus the point's over the share of its cost, with the interval where the two are equal; None
    where no share is known.

    The band holds the t interval of the mean at every share, and so the interval on the axis is where it includes 0.
    """
    known = [one for one in found if one.seeds]
    if not known:
        return None
    across = min(ACROSS, len(known))
    rows = math.ceil(len(known) / ACROSS)
    with house_style():
        figure = new_figure(0.8 + 2.7 * across, 1.0 + 2.3 * rows)
        panels = figure.subplots(rows, across, sharey=True, squeeze=False).ravel()
        for axes, one in zip(panels, known, strict=False):
            _panel(axes, one)
        for axes in panels[len(known) :]:
            axes.set_visible(False)
        for axes in panels[::across]:
            axes.set_ylabel("loss minus that of the point,\nnats per token")
        level = percent(known[0].level)
        note = f"band: {level} t interval of the mean over seeds; on the axis: where it includes 0, with the estimate"
        note += "; square: the point; dotted: what is claimed"
        note += f"; {LEAK_MARK} reads later tokens" if any(one.leaks for one in known) else ""
        title(figure, "Cost at equal loss", note)
    return figure


def _panel(axes: Axes, e: EqualLoss) -> None:
    share_C = np.array([place.share for place in e.places])
    gap_CS = np.array([place.gaps for place in e.places])
    share_F = np.unique(np.concatenate([np.geomspace(share_C[0], share_C[-1], FINE), share_C]))
    mean_F, _, low_F, high_F = t_interval(_on_lines(share_F, share_C, gap_CS), e.level)
    axes.axhline(0, color=INK, lw=0.8, zorder=1)
    axes.fill_between(share_F, low_F, high_F, color=BAND_COLOUR, alpha=0.6, lw=0, zorder=0)
    axes.plot(share_F, mean_F, color=COLOURS[0], zorder=2)
    axes.plot(share_C, gap_CS.mean(axis=1), "o", ms=5, color=COLOURS[0], zorder=3)
    axes.plot([1], [0], "s", ms=5, color=INK, zorder=4)
    _interval(axes, e, share_C)
    if e.asked.at_most is not None:
        axes.axvline(e.asked.at_most, color=INK, lw=1, ls=(0, (1, 2)), zorder=1)
    ends = [*share_C, 1.0, *([] if e.asked.at_most is None else [e.asked.at_most])]
    axes.set_xscale("log", base=2)
    axes.set_xlim(min(ends) / 1.15, max(ends) * 1.15)
    axes.xaxis.set_major_locator(FixedLocator(_ticks(min(ends), max(ends))))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.grid(axis="y")
    axes.set_xlabel(f"share of its {e.asked.cost.words}\n{share_text(e)}")
    text = textwrap.fill(with_leak_mark(f"{e.name} to reach {e.asked.point}", e.leaks), LETTERS)
    axes.set_title(text, fontsize=7.5, loc="left", color=INK)


def _on_lines(share_F: Floats, share_C: Floats, gap_CS: Floats) -> Floats:
    """Of each seed (F, S), on straight lines over the logarithm."""
    return np.stack([np.interp(np.log(share_F), np.log(share_C), gap_C) for gap_C in gap_CS.T], axis=1)


def _interval(axes: Axes, e: EqualLoss, share_C: Floats) -> None:
    """On the axis of no difference, with arrows at open ends."""
    if not math.isnan(e.low):
        low, high = max(e.low, float(share_C[0])), min(e.high, float(share_C[-1]))
        axes.plot([low, high], [0, 0], color=COLOURS[1], lw=3, solid_capstyle="butt", zorder=3)
        for end, is_open, head in ((low, e.low < low, "<"), (high, e.high > high, ">")):
            if is_open:
                axes.plot([end], [0], head, ms=6, color=COLOURS[1], zorder=3, clip_on=False)
    if e.crossing is Crossing.ON:
        axes.plot([e.share], [0], "D", ms=5, mfc="white", mec=COLOURS[1], mew=1.4, zorder=5)


def _ticks(low: float, high: float) -> list[float]:
    """Powers of two between the ends, or where these are few, three evenly spaced ones."""
    exponents = np.arange(math.floor(math.log2(low)), math.ceil(math.log2(high)) + 1)
    powers = [float(2.0**exponent) for exponent in exponents if low / 1.1 <= 2.0**exponent <= high * 1.1]
    return powers if len(powers) > 2 else [round(float(share), 2) for share in np.geomspace(low, high, 3)]
