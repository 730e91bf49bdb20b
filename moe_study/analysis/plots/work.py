"""Picture of the work that routing causes: experts per token over training, wanted and kept.

Only for points where that is a result and no setting: thresholds, cutoffs, capacities.
"""

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from moe_study.analysis.format import count
from moe_study.analysis.plots.style import PointStyle, chosen_layers, house_style, labels_at_right, new_figure, title

SETTLED = 1e-9  # rates closer than this are the same


def experts_per_token(history: pd.DataFrame, styles: dict[str, PointStyle]) -> Figure | None:
    """Kept experts per token over training by layer, mean over seeds; dotted: wanted, where a capacity cut it.

    `history` is frame.routing_history(...). None when every point takes the same number of experts throughout.
    """
    rates = history.drop_duplicates(["key", "step", "layer"])
    varying = [name for name in styles if _varies(rates[rates["label"] == name])]
    if not varying:
        return None
    layers = chosen_layers(sorted(rates["layer"].unique()))
    with house_style():
        figure = new_figure(1.6 + 2.4 * len(layers), 3.0)
        panels = figure.subplots(1, len(layers), sharey=True, squeeze=False)[0]
        ends: dict[str, float] = {}
        for axes, layer in zip(panels, layers, strict=True):
            for name in varying:
                own = rates[(rates["label"] == name) & (rates["layer"] == layer)]
                means = own.groupby("tokens")[["wanted_per_token", "kept_per_token"]].mean()
                if not len(means):
                    continue
                look = {"color": styles[name].colour}
                axes.plot(means.index, means["kept_per_token"], ls=styles[name].line, **look)
                if (means["wanted_per_token"] - means["kept_per_token"]).max() > SETTLED:
                    axes.plot(means.index, means["wanted_per_token"], ls=":", lw=1, **look)
                if layer == layers[-1]:
                    ends[name] = float(means["kept_per_token"].iloc[-1])
            axes.set_title(f"layer {layer}", fontsize=8)
            axes.set_xlabel("training tokens")
            axes.grid(axis="y")
            axes.xaxis.set_major_locator(MaxNLocator(3))
            axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: count(x)))
        panels[0].set_ylabel("experts per token")
        panels[0].set_ylim(bottom=0)
        title(figure, "Experts per token over training", "mean over seeds; dotted: wanted, where a capacity kept fewer")
        labels_at_right(panels[-1], ends, styles)
    return figure


def _varies(rates: pd.DataFrame) -> bool:
    """Whether the kept rate moves over training, or differs from the wanted one."""
    if not len(rates):
        return False
    kept = rates["kept_per_token"]
    return bool(kept.max() - kept.min() > SETTLED or (rates["wanted_per_token"] - kept).max() > SETTLED)
