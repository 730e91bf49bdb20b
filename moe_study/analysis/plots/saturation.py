"""How early routes are what they will be at the end: the part of the final experts that tokens have already.

`saturation` is the frame of specialisation/over_training.py (saturation_over_training).
"""

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from moe_study.analysis.format import count
from moe_study.analysis.plots.grid import caption, leak_note
from moe_study.analysis.plots.style import PointStyle, chosen_layers, house_style, new_figure, title
from moe_study.analysis.specialisation.over_training import BEST

FIXED = 0.999  # chance beyond which a point's routes have no choice


def saturation_over_training(saturation: pd.DataFrame, styles: dict[str, PointStyle], on: str) -> Figure | None:
    """Overlap with the final routes over training: a panel for each layer, mean over seeds; dotted: by chance.

    None where no point has routes that could have been others.
    """
    choosing = saturation.groupby("label")["chance"].min() < FIXED
    names = [name for name in styles if choosing.get(name, False)]
    if not names:
        return None
    long = saturation[saturation["label"].isin(names)]
    layers = chosen_layers(sorted(int(layer) for layer in long["layer"].unique()))
    with house_style():
        figure = new_figure(1.9 + 2.4 * len(layers), max(3.3, 1.3 + 0.165 * len(names)))
        panels = figure.subplots(1, len(layers), sharey=True, squeeze=False)[0]
        for axes, layer in zip(panels, layers, strict=True):
            of_layer = long[long["layer"] == layer]
            for name in names:
                _curve(axes, of_layer[of_layer["label"] == name], styles[name])
            axes.set_title(f"layer {layer}", fontsize=8)
            axes.set_xlabel("training tokens")
            axes.set_xlim(0, long["tokens"].max())
            axes.grid(axis="y")
            axes.xaxis.set_major_locator(MaxNLocator(3, prune="upper"))
            axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: count(x)))
        _legend(figure, long, [styles[name] for name in names])
        panels[0].set_ylim(0, 1.02)
        panels[0].set_ylabel("share of the final experts")
        seeds = long["seed"].nunique()
        band = f"bands: from the lowest of {seeds} seeds to the highest" if seeds > 1 else "one seed"
        note = caption(
            on,
            "The part of each token's final experts that it has already, mean over tokens and seeds"
            + "; where tokens have every expert, the best one" * bool(long["of"].eq(BEST).any()),
            band,
            "Dotted: what the loads give by chance. Where a curve is far above its dots early, routes settle early",
            leak_note(names, styles),
        )
        title(figure, "Routes over training beside those at its end", note)
    return figure


def _curve(axes: Axes, rows: pd.DataFrame, style: PointStyle) -> None:
    by_step = rows.groupby("tokens")
    mean, low, high = by_step["overlap"].mean(), by_step["overlap"].min(), by_step["overlap"].max()
    axes.fill_between(mean.index, low, high, color=style.colour, alpha=0.13, lw=0)
    axes.plot(mean.index, mean, color=style.colour, ls=style.line)
    chance = by_step["chance"].mean()
    axes.plot(chance.index, chance, color=style.colour, ls=":", lw=0.8)


def _legend(figure: Figure, long: pd.DataFrame, styles: Sequence[PointStyle]) -> None:
    """Names from the highest curve to the lowest; at their ends all curves are 1."""
    height = long.groupby("label")["overlap"].mean()
    handles = [
        Line2D([], [], color=style.colour, ls=style.line, label=style.name)
        for style in sorted(styles, key=lambda style: -height[style.label])
    ]
    figure.legend(handles=handles, loc="outside right upper", fontsize=8, labelcolor="linecolor", handlelength=1.6)
