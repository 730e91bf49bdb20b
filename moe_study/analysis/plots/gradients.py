"""Pictures of gradient norms by part of the model (analysis/gradients.py): over training, and point by point."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from moe_study.analysis.format import count
from moe_study.analysis.gradients import SHOWN, by_seed
from moe_study.analysis.plots.grid import caption, leak_note
from moe_study.analysis.plots.point_rows import name_rows, row_heights, row_mark
from moe_study.analysis.plots.style import PointStyle, house_style, new_figure, title
from moe_study.analysis.statistics import t_interval

DENSE = "dense"
WIDE = 5.0  # from the smallest to the largest: beyond it ticks are those of a logarithmic axis
NOTE = "2-norm of the gradient of a step's batch, before clipping; one expert: mean over those that had a token"
SEEDS = "95% t intervals over seeds, of the logarithm"


def units_of(runs: pd.DataFrame) -> dict[str, str]:
    """The unit that each point decides for, by label; dense points have none, and are DENSE."""
    points = runs.drop_duplicates("label")
    dense = points["routing.selection"] == "dense"
    return dict(zip(points["label"], points["routing.unit"].astype(str).where(~dense, DENSE), strict=True))


def over_training(history: pd.DataFrame, styles: Mapping[str, PointStyle], units: Mapping[str, str]) -> Figure | None:
    """Norms over training: parts across, units down, a curve for each point (gradient_history). None without one.

    Dense points stand in every row.
    """
    drawn = history[(history["norm"] > 0) & history["label"].isin(list(styles))]
    if not len(drawn):
        return None
    parts = _parts(drawn)
    rows = list(dict.fromkeys(units[label] for label in styles if units[label] != DENSE)) or [DENSE]
    with house_style():
        figure = new_figure(2.2 + 1.55 * len(parts), 1.1 + 1.7 * len(rows))
        panels = figure.subplots(len(rows), len(parts), sharey="col", sharex=True, squeeze=False)
        for unit, line in zip(rows, panels, strict=True):
            own = [style for label, style in styles.items() if units[label] in (unit, DENSE)]
            for part, axes in zip(parts, line, strict=True):
                for style in own:
                    _curve(axes, drawn[(drawn["label"] == style.label) & (drawn["part"] == part)], style)
                _log_axis(axes, "y")
            line[0].set_ylabel(f"gradient norm, {unit}" if len(rows) > 1 else "gradient norm")
        for part, top, bottom in zip(parts, panels[0], panels[-1], strict=True):
            top.set_title(part, fontsize=8)
            bottom.xaxis.set_major_locator(MaxNLocator(2, prune="upper"))
            bottom.xaxis.set_major_formatter(FuncFormatter(lambda x, _: count(x)))
            bottom.set_xlabel("training tokens")
        handles = [Line2D([], [], color=s.colour, ls=s.line, label=s.name) for s in styles.values()]
        look = {"fontsize": 8, "labelcolor": "linecolor", "handlelength": 1.6}
        figure.legend(handles=handles, loc="outside right upper", **look)
        band = f"bands: {SEEDS}" if drawn["seed"].nunique() > 1 else "one seed"
        title(figure, "Gradient norms over training", caption(NOTE, band, leak_note(list(styles), styles)))
    return figure


def by_point(
    summary: pd.DataFrame, styles: Mapping[str, PointStyle], units: Mapping[str, str], of: str
) -> Figure | None:
    """Norms point by point, units one after the other, with seeds and their interval: a panel for each part.

    `summary` is as `settled` gives it; `of` says what it was measured on. None where every norm is 0.
    """
    drawn = summary[(summary["norm"] > 0) & summary["label"].isin(list(styles))]
    if not len(drawn):
        return None
    parts, names = _parts(drawn), sorted(styles, key=lambda label: (units[label] == DENSE, units[label]))
    heights = row_heights(names)
    with house_style():
        figure = new_figure(2.4 + 1.35 * len(parts), 1.3 + 0.24 * len(names))
        panels = figure.subplots(1, len(parts), sharey=True, squeeze=False)[0]
        for part, axes in zip(parts, panels, strict=True):
            for label in names:
                values = by_seed(drawn[drawn["part"] == part], label).to_numpy(float).flatten()
                _mark(axes, values[~np.isnan(values)], heights[label], styles[label])
            _log_axis(axes, "x")
            axes.set_title(part, fontsize=8)
            axes.tick_params(axis="y", length=0, pad=4)
        name_rows(panels[0], heights, styles)
        bars = f"dots: seeds; bars: {SEEDS}" if drawn["seed"].nunique() > 1 else "one seed"
        title(figure, f"Gradient norms {of}", caption(NOTE, bars, leak_note(names, styles)))
    return figure


def _parts(drawn: pd.DataFrame) -> Sequence[str]:
    return [part for part in SHOWN if part in set(drawn["part"])]


def _curve(axes: Axes, long: pd.DataFrame, style: PointStyle) -> None:
    if not len(long):
        return
    wide = long.pivot_table(index="tokens", columns="seed", values="norm")
    mean, _, low, high = (np.exp(one) for one in t_interval(np.log(wide.to_numpy(float))))
    axes.fill_between(wide.index, low, high, color=style.colour, alpha=0.13, lw=0)
    axes.plot(wide.index, mean, color=style.colour, ls=style.line, lw=1.2)


def _mark(axes: Axes, values_S: np.ndarray, y: float, style: PointStyle) -> None:
    if not len(values_S):
        return
    mean, _, low, high = (float(np.exp(one)) for one in t_interval(np.log(values_S)))
    row_mark(axes, mean, (low, high), values_S, y, style)


def _log_axis(axes: Axes, name: str) -> None:
    """Logarithmic, with a few plain numbers."""
    (axes.set_yscale if name == "y" else axes.set_xscale)("log")
    low, high = axes.get_ylim() if name == "y" else axes.get_xlim()
    axis = axes.yaxis if name == "y" else axes.xaxis
    axis.set_major_locator(LogLocator(10, subs=(1, 3), numticks=4) if high > WIDE * low else MaxNLocator(3))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
    axis.set_minor_locator(NullLocator())
    axes.grid(axis="x" if name == "x" else "y")
