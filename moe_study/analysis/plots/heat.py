"""Heat maps of experts against domains or other experts: one matrix for each point and layer.

What chance explains is marked by a dot; where cells are too small for dots, it is grey, so that all that has a colour
is more than chance.
"""

import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, Locator, LogLocator
from numpy.typing import NDArray

from moe_study.analysis.plots.grid import (
    LETTER,
    Size,
    caption,
    depth,
    grid,
    leak_note,
    name_domains,
    pages,
)
from moe_study.analysis.plots.style import BAND_COLOUR, INK, PointStyle, house_style, title

LIFT = LogNorm(0.25, 4)  # over chance; what is beyond takes the colour of the ends
COLOURS = "PuOr_r"  # white in the middle; safe for colour-blind readers
HATCH = "#c8c8c8"  # of cells without a value
SMALLEST_DOT = 0.06  # inches of a cell's shorter side
MOST_ROWS = 128  # experts of one panel
FEW = 8  # experts; more are drawn in taller panels
NUMBERED = 16  # experts, or fewer, have their numbers beside the map
MOST_NAMES = 48  # domains, or fewer, have their names under it


@dataclass(frozen=True)
class Matrix:
    """One panel."""

    value_RC: NDArray[np.float64]  # NaN: no value
    within_RC: NDArray[np.bool_]  # chance explains it
    starred_RC: NDArray[np.bool_]  # marked by a star
    rows: Sequence[str]  # from the top
    columns: Sequence[str]


@dataclass(frozen=True)
class Heat:
    """How all matrices of one picture are coloured and named."""

    heading: str
    scale: str  # what a colour means
    norm: Normalize
    within: str  # what a dot says
    none_within: str  # what it says that there is none
    notes: Sequence[str]  # over what, and how to read it
    x_label: str = ""
    star: str = ""  # what a star says
    no_star: str = ""  # what it says that there is none
    extend: str = "neither"  # or "both": values can lie beyond the scale
    empty: str = "no token"  # why a cell has no value
    ticks: Locator = field(default_factory=lambda: LogLocator(2))
    form: Callable[[float], str] = "{:g}×".format


def heat_maps(
    matrices: Mapping[str, Mapping[int, Matrix]], styles: Mapping[str, PointStyle], heat: Heat
) -> list[Figure]:
    """Pages with a row for each point and a column for each layer of its own; points of few and of many experts have
    pages of their own."""
    by_size: dict[Size, list[str]] = {}
    for name, of_point in matrices.items():
        by_size.setdefault(_size(list(of_point.values())), []).append(name)
    return [
        _page({name: matrices[name] for name in page}, styles, size, heat)
        for size, names in by_size.items()
        for page in pages(names, size)
    ]


def _size(panels: Sequence[Matrix]) -> Size:
    rows, columns = (max(map(len, names)) for names in zip(*((p.rows, p.columns) for p in panels), strict=True))
    height = 0.9 if rows <= FEW else np.clip(0.05 * rows + 0.55, 1.2, 2.8)
    return Size(float(np.clip(0.14 * columns, 1.4, 2.4)), round(float(height), 1))


def _page(
    matrices: Mapping[str, Mapping[int, Matrix]], styles: Mapping[str, PointStyle], size: Size, heat: Heat
) -> Figure:
    names = list(matrices)
    domains = [matrix.columns for of_point in matrices.values() for matrix in of_point.values()]
    columns = {name: [f"layer {layer}" for layer in matrices[name]] for name in names}
    with house_style():
        figure, axes = grid(columns, styles, size, below=max(depth(each, size.width) for each in domains))
        shown = [
            _draw(place, matrix, size, heat)
            for name in names
            for place, matrix in zip(axes[name], matrices[name].values(), strict=True)
        ]
        for place in axes[names[-1]]:
            place.set_xlabel(heat.x_label)
        _scale(figure, shown[0].mesh, axes, heat, size.height * len(names))
        title(figure, heat.heading, caption(*heat.notes, *_marks(shown, heat), leak_note(names, styles)))
    return figure


@dataclass(frozen=True)
class _Drawn:
    """A panel, and which marks it needs explained."""

    mesh: Any
    dots: bool
    greys: bool
    stars: bool
    hatches: bool


def _draw(axes: Axes, matrix: Matrix, size: Size, heat: Heat) -> _Drawn:
    rows, columns = matrix.value_RC.shape
    absent_RC = np.isnan(matrix.value_RC)
    within_RC, starred_RC = matrix.within_RC & ~absent_RC, matrix.starred_RC & ~absent_RC
    roomy = min(size.height / rows, size.width / columns) >= SMALLEST_DOT
    hidden_RC = absent_RC if roomy else absent_RC | within_RC
    places = np.arange(columns), np.arange(rows)
    axes.patch.set(hatch="//////", edgecolor=HATCH, facecolor="white")
    look: dict[str, Any] = {"shading": "nearest", "rasterized": True}
    value_RC = np.ma.array(np.clip(matrix.value_RC, heat.norm.vmin, heat.norm.vmax), mask=hidden_RC)
    mesh = axes.pcolormesh(*places, value_RC, cmap=COLOURS, norm=heat.norm, **look)
    if roomy:
        _mark(axes, within_RC, "o", 1.8)
    elif within_RC.any():
        grey_RC = np.ma.array(np.ones(within_RC.shape), mask=~within_RC)
        axes.pcolormesh(*places, grey_RC, cmap=ListedColormap([BAND_COLOUR]), **look)
    _mark(axes, starred_RC, "*", 4.0 if roomy else 2.5)
    axes.set_ylim(rows - 0.5, -0.5)
    axes.set_yticks(range(rows), matrix.rows) if rows <= NUMBERED else axes.set_yticks([])
    axes.tick_params(axis="y", length=0, labelsize=6, pad=1)
    name_domains(axes, matrix.columns, size.width) if columns <= MOST_NAMES else axes.set_xticks([])
    axes.tick_params(axis="x", labelsize=7)
    within, starred = bool(within_RC.any()), bool(starred_RC.any())
    return _Drawn(mesh, within and roomy, within and not roomy, starred, bool(absent_RC.any()))


def _mark(axes: Axes, cells_RC: NDArray[np.bool_], sign: str, size: float) -> None:
    y, x = np.nonzero(cells_RC)
    axes.plot(x, y, sign, ms=size, mfc=INK, mec="white", mew=0.25, ls="none", zorder=3)


def _marks(shown: Sequence[_Drawn], heat: Heat) -> Iterator[str]:
    """What the marks of a page say."""
    within = ["dots"] * any(drawn.dots for drawn in shown) + ["grey"] * any(drawn.greys for drawn in shown)
    yield f"{' or '.join(within)}: {heat.within}" if within else heat.none_within
    if heat.star:
        yield f"stars: {heat.star}" if any(drawn.stars for drawn in shown) else heat.no_star
    if any(drawn.hatches for drawn in shown):
        yield f"hatched: {heat.empty}"


def _scale(figure: Figure, mesh: Any, rows: Mapping[str, Sequence[Axes]], heat: Heat, height: float) -> None:
    """The colour bar beside panels that are `height` inches together."""
    panels = [axes for row in rows.values() for axes in row]
    bar = figure.colorbar(mesh, ax=panels, shrink=0.9, aspect=25, pad=0.02, extend=heat.extend)
    bar.ax.yaxis.set_major_locator(heat.ticks)
    bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: heat.form(value)))
    bar.ax.minorticks_off()
    bar.ax.tick_params(labelsize=7)
    bar.set_label(textwrap.fill(heat.scale, int(0.9 * height / LETTER)), fontsize=8)
