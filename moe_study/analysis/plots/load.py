"""How evenly experts are used, point by point and layer by layer."""

from collections.abc import Mapping

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from moe_study.analysis.plots.grid import caption, leak_note
from moe_study.analysis.plots.point_rows import name_rows, row_heights, row_mark
from moe_study.analysis.plots.style import PointStyle, chosen_layers, house_style, new_figure, title
from moe_study.analysis.statistics import t_interval

NOTE = "Effective experts over all experts: 1 where the load is even, 1/N (the tick of its row) where one takes all"


def effective_by_layer(even: pd.DataFrame, styles: Mapping[str, PointStyle]) -> Figure | None:
    """Effective experts over their number: points down, a panel for each layer. None where nothing has a load.

    `even` has a row for each run and layer: label, seed, layer, experts, effective.
    """
    drawn = even[even["label"].isin(list(styles))]
    if not len(drawn):
        return None
    names = [label for label in styles if label in set(drawn["label"])]
    layers = chosen_layers([int(layer) for layer in drawn["layer"].unique()])
    heights = row_heights(names)
    with house_style():
        figure = new_figure(2.6 + 1.9 * len(layers), 1.2 + 0.24 * len(names))
        panels = figure.subplots(1, len(layers), sharey=True, sharex=True, squeeze=False)[0]
        for layer, axes in zip(layers, panels, strict=True):
            for label in names:
                own = drawn[(drawn["label"] == label) & (drawn["layer"] == layer)]
                _mark(axes, own, heights[label], styles[label])
            axes.set_title(f"layer {layer}", fontsize=8)
            axes.set_xlim(0, 1.04)
            axes.grid(axis="x")
            axes.tick_params(axis="y", length=0, pad=4)
        name_rows(panels[0], heights, styles)
        bars = "dots: seeds; bars: 95% t intervals over seeds" if drawn["seed"].nunique() > 1 else "one seed"
        title(figure, "How evenly experts share the validation set", caption(NOTE, bars, leak_note(names, styles)))
    return figure


def _mark(axes: Axes, own: pd.DataFrame, y: float, style: PointStyle) -> None:
    if not len(own):
        return
    values_S = (own["effective"] / own["experts"]).to_numpy(dtype=float)
    mean, _, low, high = (float(one) for one in t_interval(values_S))
    floor = 1 / float(own["experts"].iloc[0])
    axes.plot([floor, floor], [y - 0.25, y + 0.25], color=style.colour, lw=0.9, zorder=1)
    row_mark(axes, mean, (low, min(high, 1.0)), values_S, y, style)
