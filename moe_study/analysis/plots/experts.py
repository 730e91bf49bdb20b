"""Pictures of what experts take: shares over training, and by language or topic (study paper, Figs 1-2, 4-8).

Experts have no identity across seeds, so each point shows one run, that of its lowest seed.
"""

import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator

from moe_study.analysis.format import LEAK_MARK, count
from moe_study.analysis.plots.style import EXPERTS, INK, PointStyle, chosen_layers, house_style, new_figure, title

ROWS = 6  # points on one page
MANY = len(EXPERTS)  # with more experts than this, a heat map takes the place of bars and bands
HEAT = LogNorm(0.25, 4)  # share over the fair share 1/N

Panel = Callable[[Axes, pd.DataFrame], Any]  # draws the rows of one run and layer; a heat map is returned


@dataclass(frozen=True)
class _Words:
    heading: str
    x_label: str
    bars: str  # how to read a page of bands or bars
    heat: str  # how to read a page of heat maps


def share_over_training(
    history: pd.DataFrame, styles: dict[str, PointStyle], layers: Sequence[int] | None = None
) -> list[Figure]:
    """Share of kept picks that each expert takes, by layer, over training: one row per point, pages of ROWS.

    Bands for up to MANY experts, a heat map of share over fair share beyond. `history` is
    frame.routing_history(...); `layers` None: all where there are at most four, else LAYERS of them.
    """

    def panel(axes: Axes, rows: pd.DataFrame) -> Any:
        wide = rows.pivot_table(index="tokens", columns="expert", values="share").sort_index()
        tokens, share_ES = wide.index.to_numpy(), wide.to_numpy().T
        axes.set_xlim(tokens[0], max(tokens[-1], tokens[0] + 1))
        axes.xaxis.set_major_locator(MaxNLocator(3))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: count(x)))
        if len(share_ES) > MANY:
            return _heat(axes, share_ES[np.argsort(share_ES[:, -1], kind="stable")], tokens)
        axes.stackplot(tokens, share_ES, colors=EXPERTS, lw=0.6, edgecolor="white")
        axes.set_ylim(0, 1)
        axes.set_yticks([0, 0.5, 1], ["0", "0.5", "1"])
        for edge in range(1, len(share_ES)):
            axes.axhline(edge / len(share_ES), color="white", lw=0.9, ls=(0, (2, 2)), alpha=0.8)
        return None

    words = _Words(
        "Share of activations by expert over training",
        "training tokens",
        bars="dashed: equal shares",
        heat="experts sorted by their last share",
    )
    return list(_pages(history, styles, panel, layers, words))


def share_by_domain(
    activations: pd.DataFrame, styles: dict[str, PointStyle], by: str, layers: Sequence[int] | None = None
) -> list[Figure]:
    """Share of each domain's activations that each expert takes, by layer; `by` is language or topic.

    Bars for up to MANY experts, with the uniform share 1/N as a line; a heat map beyond. `activations` is
    frame.activations(...); for `layers` see `share_over_training`.
    """

    def panel(axes: Axes, rows: pd.DataFrame) -> Any:
        counts = rows.pivot_table(index=by, columns="expert", values="count", aggfunc="sum", fill_value=0)
        share_ED = (counts.T / counts.sum(axis=1)).to_numpy()
        experts, domains = share_ED.shape
        places = np.arange(domains)
        turned = max(map(len, counts.index)) * domains > 26  # they would touch
        axes.set_xticks(places, [name.replace("_", " ") for name in counts.index], rotation=90 * turned)
        axes.tick_params(axis="x", length=0)
        if experts > MANY:
            for edge in places[1:] - 0.5:
                axes.axvline(edge, color="white", lw=1)
            favourite = np.lexsort((-share_ED.max(axis=1), share_ED.argmax(axis=1)))[::-1]
            return _heat(axes, share_ED[favourite], places)
        width = 0.8 / experts
        for expert in range(experts):
            offset = (expert - (experts - 1) / 2) * width
            axes.bar(places + offset, share_ED[expert], 0.9 * width, color=EXPERTS[expert], lw=0)
        axes.axhline(1 / experts, color=INK, lw=0.9, ls=(0, (3, 2)))
        axes.yaxis.set_major_locator(MaxNLocator(3, steps=[1, 2, 5, 10]))
        return None

    words = _Words(
        f"Share of activations by expert and {by}, validation set",
        "",
        bars="dashed: equal shares",
        heat=f"experts sorted by the {by} that uses them most, which makes a diagonal even of noise",
    )
    return list(_pages(activations, styles, panel, layers, words))


def _pages(
    long: pd.DataFrame,
    styles: dict[str, PointStyle],
    panel: Panel,
    layers: Sequence[int] | None,
    words: _Words,
) -> Iterator[Figure]:
    """Grids of panels, points down and layers across; points with heat maps have pages of their own."""
    runs = {name: _lowest_seed(long[long["label"] == name]) for name in styles if (long["label"] == name).any()}
    few = [name for name, run in runs.items() if run["expert"].max() < MANY]
    many = [name for name in runs if name not in few]
    for names in (few, many):
        for start in range(0, len(names), ROWS):
            page = {name: runs[name] for name in names[start : start + ROWS]}
            yield _page(page, styles, panel, layers, words, heat=names is many)


def _page(
    runs: dict[str, pd.DataFrame],
    styles: dict[str, PointStyle],
    panel: Panel,
    layers: Sequence[int] | None,
    words: _Words,
    heat: bool,
) -> Figure:
    shown = {
        name: chosen_layers([layer for layer in run["layer"].unique() if layers is None or layer in layers])
        for name, run in runs.items()
    }
    columns = max(map(len, shown.values()))
    same_layers = len({tuple(chosen) for chosen in shown.values()}) == 1
    with house_style():
        figure = new_figure(2.0 + 1.8 * columns, 0.95 + 1.1 * len(runs))
        panels = figure.subplots(len(runs), columns, squeeze=False, sharey=not heat)
        mappable = None
        for row, (name, run) in enumerate(runs.items()):
            for column, axes in enumerate(panels[row]):
                if column >= len(shown[name]):
                    axes.set_visible(False)
                    continue
                layer = shown[name][column]
                mappable = panel(axes, run[run["layer"] == layer]) or mappable
                if row == 0 or not same_layers:
                    axes.set_title(f"layer {layer}", pad=3, fontsize=8)
                if last := row == len(runs) - 1:
                    axes.set_xlabel(words.x_label)
                axes.tick_params(labelbottom=last)
            words_at_left = {"rotation": 0, "ha": "right", "va": "center", "color": styles[name].colour}
            panels[row][0].set_ylabel(
                textwrap.fill(styles[name].name.replace(" of ", " of\u00a0"), 16), fontsize=8, **words_at_left
            )
        if heat:
            _scale(figure, mappable, panels)
        else:
            _legend(figure, max(int(run["expert"].max()) + 1 for run in runs.values()))
        seeds = ", ".join(sorted({f"{run['seed'].iloc[0]:g}" for run in runs.values()}))
        leaks = f"; {LEAK_MARK} reads later tokens" if any(styles[name].leaks for name in runs) else ""
        how = words.heat if heat else words.bars
        title(figure, words.heading, f"one run per point (seed {seeds}); {how}{leaks}")
    return figure


def _legend(figure: Figure, experts: int) -> None:
    figure.legend(
        handles=[Patch(color=EXPERTS[expert], label=f"{expert}") for expert in range(experts)],
        title="expert",
        loc="outside right upper",
        fontsize=8,
        title_fontsize=8,
        handlelength=0.9,
        handleheight=0.9,
    )


def _scale(figure: Figure, mappable: Any, panels: Any) -> None:
    bar = figure.colorbar(mappable, ax=panels, shrink=0.7, aspect=30, ticks=LogLocator(2), pad=0.02)
    bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}×"))
    bar.ax.minorticks_off()
    bar.set_label("share over equal share", fontsize=8)


def _heat(axes: Axes, share_ES: np.ndarray, places: np.ndarray) -> Any:
    """Experts upwards, `places` across; colour is share times E."""
    ratio = np.clip(share_ES * len(share_ES), HEAT.vmin, None)
    mesh = axes.pcolormesh(
        places, np.arange(len(ratio)), ratio, shading="nearest", rasterized=True, cmap="PuOr_r", norm=HEAT
    )
    axes.set_ylim(-0.5, len(ratio) - 0.5)
    axes.set_yticks([])
    return mesh


def _lowest_seed(long: pd.DataFrame) -> pd.DataFrame:
    return long[long["seed"] == long["seed"].min()]
