"""Pictures of what experts take: shares over training, and by language or topic (study paper, Figs 1-2, 4-8).

Experts have no identity across seeds, so each point shows one run, that of its lowest seed.
"""

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

from moe_study.analysis.format import count
from moe_study.analysis.plots.grid import (
    Size,
    caption,
    depth,
    grid,
    leak_note,
    name_domains,
    one_run,
    pages,
    seeds_note,
)
from moe_study.analysis.plots.style import EXPERTS, INK, PointStyle, chosen_layers, house_style, title

MANY = len(EXPERTS)  # with more experts than this, a heat map takes the place of bars and bands
HEAT = LogNorm(0.25, 4)  # share over the fair share 1/N
SIZE = Size(1.8, 1.1)
NO_NULL = "counts alone: after `moe-study specialise`, other pictures have what chance makes of such counts"

Panel = Callable[[Axes, pd.DataFrame], Any]  # draws the rows of one run and layer; a heat map is returned


@dataclass(frozen=True)
class _Words:
    heading: str
    x_label: str
    bars: str  # how to read a page of bands or bars
    heat: str  # how to read a page of heat maps
    below: float = 0.0  # inches of turned names under a page


def share_over_training(
    history: pd.DataFrame, styles: dict[str, PointStyle], layers: Sequence[int] | None = None
) -> list[Figure]:
    """Share of kept picks that each expert takes, by layer, over training: one row per point, on pages.

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
        name_domains(axes, list(counts.index), SIZE.width)
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
        bars=f"dashed: equal shares; {NO_NULL}",
        heat=f"experts sorted by the {by} that uses them most, which makes a diagonal even of noise; {NO_NULL}",
        below=depth(list(activations[by].unique()), SIZE.width),
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
    long = one_run(long)
    runs = {name: long[long["label"] == name] for name in styles if (long["label"] == name).any()}
    few = [name for name, run in runs.items() if run["expert"].max() < MANY]
    many = [name for name in runs if name not in few]
    for names in (few, many):
        for page in pages(names, SIZE):
            yield _page({name: runs[name] for name in page}, styles, panel, layers, words, heat=names is many)


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
    columns = {name: [f"layer {layer}" for layer in layers_of] for name, layers_of in shown.items()}
    with house_style():
        figure, panels = grid(columns, styles, SIZE, share_y=not heat, below=words.below)
        mappable = None
        for name, run in runs.items():
            for axes, layer in zip(panels[name], shown[name], strict=True):
                mappable = panel(axes, run[run["layer"] == layer]) or mappable
        for axes in panels[list(runs)[-1]]:
            axes.set_xlabel(words.x_label)
        if heat:
            _scale(figure, mappable, [axes for row in panels.values() for axes in row])
        else:
            _legend(figure, max(int(run["expert"].max()) + 1 for run in runs.values()))
        how = words.heat if heat else words.bars
        together = pd.concat(runs.values())
        title(figure, words.heading, caption(seeds_note(together), how, leak_note(list(runs), styles)))
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
