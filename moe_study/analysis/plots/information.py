"""What the expert tells of each label, by layer: points with intervals over seeds, beside the null's band.

`rows` is the frame of specialisation/points.py (to_frame): a row for each point, layer, label and what is given.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from moe_study.analysis.plots.grid import Size, caption, grid, leak_note, pages
from moe_study.analysis.plots.style import BAND, BAND_COLOUR, BAND_EDGE, PointStyle, house_style, title

QUESTIONS = 5  # side by side on one page
MARGIN = 0.08  # of the height, above and below what is drawn
SHOWN = "*"


def information_by_layer(rows: pd.DataFrame, styles: dict[str, PointStyle], on: str) -> list[Figure]:
    """Information of expert and label over the label's entropy: points down, questions across, layers along.

    `on` says over which probe. A column has one scale on all pages, so that points can be set side by side.
    """
    names = [name for name in styles if name in set(rows["point"])]
    questions = list(dict.fromkeys(zip(rows["label"], rows["given"], strict=True)))
    layers = sorted(rows["layer"].unique())
    size = Size(width=float(np.clip(0.14 * len(layers) + 0.5, 1.35, 2.2)), height=1.1)
    return [
        _page(rows, styles, page, some, size, on) for some in _even(questions, QUESTIONS) for page in pages(names, size)
    ]


def _page(
    rows: pd.DataFrame,
    styles: dict[str, PointStyle],
    names: Sequence[str],
    questions: Sequence[tuple[str, str]],
    size: Size,
    on: str,
) -> Figure:
    columns = {name: [_words(*question) for question in questions] for name in names}
    with house_style():
        figure, axes = grid(columns, styles, size)
        for place, (label, given) in enumerate(questions):
            of_question = rows[(rows["label"] == label) & (rows["given"] == given)]
            low, high = _limits(of_question)
            layers = sorted(int(layer) for layer in of_question["layer"].unique())
            for name in names:
                panel = axes[name][place]
                _points(panel, of_question[of_question["point"] == name], styles[name])
                panel.set_xlim(layers[0] - 0.6, layers[-1] + 0.6)
                panel.set_ylim(low, high)
                panel.set_xticks(layers if len(layers) <= 6 else layers[:: max(1, len(layers) // 4)])
                panel.yaxis.set_major_locator(MaxNLocator(3, steps=[1, 2, 5, 10]))
                panel.tick_params(axis="y", labelsize=7)
                panel.grid(axis="y")
            axes[names[-1]][place].set_xlabel("layer")
        shown = rows[rows["point"].isin(names)]
        note = caption(*_notes(shown, on), leak_note(names, styles))
        title(figure, "Information of the expert about each label, by layer", note)
    return figure


def _notes(rows: pd.DataFrame, on: str) -> list[str]:
    fewest, most = rows["seeds"].min(), rows["seeds"].max()
    seeds = f"{fewest}" if fewest == most else f"{fewest} to {most}"
    tested = bool(rows["shown"].eq(True).any())
    return [
        on,
        "Information of expert and label over the label's entropy: 1 where the expert tells the label",
        f"points: means over {seeds} seeds; bars: their 95% intervals" if most > 1 else "one seed, so no intervals",
        f"Grey: {BAND}; above it, experts tell more of the label than chance does",
        f"{SHOWN} shown for other seeds and other documents, adjusted for a question's layers and points" * tested,
        "Beyond: what it adds to what is named there",
    ]


def _points(axes: Axes, rows: pd.DataFrame, style: PointStyle) -> None:
    rows = rows.sort_values("layer")
    layer, value = rows["layer"].to_numpy(), rows["value"].to_numpy()
    low, high = rows["null_low"].to_numpy(), rows["null_high"].to_numpy()
    axes.bar(layer, high - low, 0.8, bottom=low, color=BAND_COLOUR, ec=BAND_EDGE, lw=0.5, zorder=1)
    axes.vlines(layer, rows["value_low"], rows["value_high"], color=style.colour, lw=1.4, zorder=2)
    axes.plot(layer, value, style.marker, ms=3.6, mfc=style.fill, mec=style.colour, mew=1.0, zorder=4)
    for x, top in zip(layer[rows["shown"].eq(True)], _tops(rows)[rows["shown"].eq(True)], strict=True):
        look: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 8, "color": style.colour}
        axes.annotate(SHOWN, (x, top), (0, 3), textcoords="offset points", annotation_clip=False, **look)


def _tops(rows: pd.DataFrame) -> np.ndarray:
    """The highest of what is drawn in each row."""
    return rows[["value", "value_high", "null_high"]].max(axis=1).to_numpy()


def _limits(rows: pd.DataFrame) -> tuple[float, float]:
    """Of the vertical axis: from 0, or what is drawn below it."""
    drawn = rows[["value", "value_low", "value_high", "null_low", "null_high"]].to_numpy(dtype=float)
    low, high = min(0.0, float(np.nanmin(drawn))), float(np.nanmax(drawn))
    pad = MARGIN * (high - low or 1.0)
    return low - pad, high + 2 * pad


def _words(label: str, given: str) -> str:
    return f"{label}\nbeyond {given}" if given else label


def _even(items: Sequence[tuple[str, str]], most: int) -> list[list[tuple[str, str]]]:
    """The items in groups of at most `most`, as even as they go."""
    count = -(-len(items) // most)
    return [list(items[len(items) * n // count : len(items) * (n + 1) // count]) for n in range(count)]
