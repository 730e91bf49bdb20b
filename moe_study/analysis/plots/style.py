"""How pictures look: one palette safe for colour-blind readers, one style per design point in all figures."""

import textwrap
import warnings
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.optimize import isotonic_regression

from moe_study.analysis.format import APART_MARK, LEAK_MARK, natural
from moe_study.analysis.frame import done, each
from moe_study.files import atomic_file

RC: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#555555",
    "axes.linewidth": 0.8,
    "xtick.color": "#555555",
    "ytick.color": "#555555",
    "xtick.labelcolor": "#222222",
    "ytick.labelcolor": "#222222",
    "axes.grid": False,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.7,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "savefig.dpi": 200,
    "savefig.facecolor": "white",
    "svg.hashsalt": "moe_study",  # together with no date: the same frame gives the same bytes
    "svg.fonttype": "path",
    "text.parse_math": False,  # names are never markup: two dollar signs in one would make a formula of it
    "text.usetex": False,
}
GREYS = ("#9a9a9a", "#5f5f5f", "#1a1a1a")  # dense points, by size
# Okabe and Ito (2008), without black (dense) and yellow (too light on white).
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
MARKERS = ("o", "^", "D", "v", "P", "X")
LINES = ("-", (0, (4, 1.5)), (0, (1, 1)), (0, (5, 1.5, 1, 1.5)))
# Tol's muted scheme, for experts: other hues than those of the points.
EXPERTS = ("#332288", "#88CCEE", "#44AA99", "#DDCC77", "#CC6677", "#117733", "#AA4499", "#999933")
LEADER = {"arrowstyle": "-", "lw": 0.6, "alpha": 0.7, "shrinkA": 1, "shrinkB": 0, "relpos": (0, 0.5)}
INK, FAINT = "#222222", "#707070"
BAND_COLOUR, BAND_EDGE = "#d2d2d2", "#b4b4b4"
BAND = "the null's band, the middle 95% of what comes out where labels mean nothing"
BAND_OF_TOKENS = f"{BAND} beyond the token id (exchanged among its occurrences)"


@dataclass(frozen=True)
class PointStyle:
    """How one design point is drawn in every figure of a frame."""

    label: str
    colour: str
    marker: str
    line: str | tuple[int, tuple[float, ...]]
    leaks: bool
    apart: bool = False  # lacks seeds, so that it is not ranked with the others

    @property
    def name(self) -> str:
        marks = LEAK_MARK * self.leaks + APART_MARK * self.apart
        return f"{self.label} {marks}" if marks else self.label

    @property
    def fill(self) -> str:
        """Leaking points are hollow."""
        return "white" if self.leaks else self.colour


def point_styles(frame: pd.DataFrame, apart: Collection[str] = ()) -> dict[str, PointStyle]:
    """One style for each label: dense points in greys by size, the others in colours by name; `apart` are marked."""
    points = done(frame).drop_duplicates("label")
    dense = points[points["routing.selection"] == "dense"].sort_values(["num_params", "label"])
    routed = points[points["routing.selection"] != "dense"].sort_values("label", key=lambda label: label.map(natural))
    styles = {}
    for place, point in enumerate(each(dense)):
        # The largest is black; few points take the ends of the scale.
        grey = GREYS[round(place * 2 / max(1, len(dense) - 1))] if len(dense) > 1 else GREYS[1]
        styles[point.label] = PointStyle(point.label, grey, "s", "-", False, point.label in apart)
    for place, point in enumerate(each(routed)):
        turn, colour = divmod(place, len(COLOURS))
        line = LINES[turn % len(LINES)]
        marker = MARKERS[(turn + colour) % len(MARKERS)]
        leaks = bool(point.leaks)
        styles[point.label] = PointStyle(point.label, COLOURS[colour], marker, line, leaks, point.label in apart)
    return styles


@contextmanager
def house_style() -> Iterator[None]:
    """The style of the project's figures, and of nobody else's."""
    with mpl.rc_context(RC):
        yield


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, `width` by `height` inches, outside pyplot's global state."""
    return Figure(figsize=(width, height), layout="constrained")


def title(figure: Figure, text: str, note: str = "") -> None:
    """A title over the whole figure, and a note on how to read it underneath, both at the left edge."""
    figure.suptitle(text, x=0.008, ha="left", fontsize=9.5, color=INK)
    if note:
        note = textwrap.fill(note, int(figure.get_figwidth() * 18))
        figure.supxlabel(note, x=0.008, ha="left", fontsize=7.5, color=FAINT)


def footer(figure: Figure, sentences: Sequence[str]) -> None:
    """Sentences under the note of a figure that has its `title`: what its reader must know of the runs."""
    if sentences:
        note = figure.get_supxlabel()
        lines = [textwrap.fill(one, int(figure.get_figwidth() * 18)) for one in sentences]
        figure.supxlabel("\n".join([note, *lines] if note else lines), x=0.008, ha="left", fontsize=7.5, color=FAINT)


def mean_mark(axes: Axes, x: float, y: float, style: PointStyle, **options: Any) -> None:
    """The mark of one point; leaking points are hollow."""
    look: dict[str, Any] = {"ms": 5.5, "mfc": style.fill, "mec": style.colour, "mew": 1.2, "zorder": 4}
    axes.plot(x, y, style.marker, **look, **options)


def labels_at_right(axes: Axes, places: dict[str, float], styles: dict[str, PointStyle], size: float = 8) -> None:
    """Name points in the right margin at their heights (data units), moved apart where they would overlap.

    Call it when the limits of `axes` are final.
    """
    if not places:
        return
    figure = axes.figure
    figure.draw_without_rendering()  # type: ignore[union-attr]  # settles the layout, so heights are known
    names = sorted(places, key=lambda name: places[name])
    low, high = axes.get_ylim()
    height_points = axes.get_window_extent().height / figure.dpi * 72
    gap = 1.3 * size * (high - low) / height_points
    heights = spread([places[name] for name in names], gap)
    for name, height in zip(names, heights, strict=True):
        style = styles[name]
        axes.annotate(
            style.name,
            xy=(1.0, places[name]),
            xytext=(1.06, height),
            xycoords=("axes fraction", "data"),
            textcoords=("axes fraction", "data"),
            fontsize=size,
            color=style.colour,
            va="center",
            annotation_clip=False,
            arrowprops={**LEADER, "color": style.colour},
        )


def spread(values: Sequence[float], gap: float) -> np.ndarray:
    """Ascending `values`, moved as little as possible (least squares) so that neighbours are `gap` apart."""
    offsets = gap * np.arange(len(values))
    return np.asarray(isotonic_regression(np.asarray(values, dtype=float) - offsets).x) + offsets


def save_png(figure: Figure, out: Path, name: str) -> Path:
    """As `save`, without the SVG: twice the same picture is too much for a repository."""
    (png,) = save(figure, out, name, ("png",))
    return png


def save(figure: Figure, out: Path, name: str, formats: Sequence[str] = ("png", "svg")) -> list[Path]:
    """`out/name.png` and `out/name.svg`, or other `formats`; the same figure gives the same bytes.

    Call `fonts.choose_fonts` before, which tells the characters that no font has; matplotlib's warnings do not.
    """
    paths = [out / f"{name}.{ending}" for ending in formats]
    with house_style(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        for path in paths:
            metadata = {"Date": None} if path.suffix == ".svg" else None
            with atomic_file(path) as handle:
                figure.savefig(handle, format=path.suffix[1:], metadata=metadata)
            figure.set_layout_engine("none")  # it is settled now, and costly
    return paths


LAYERS = 3  # layers shown where there are more than four


def chosen_layers(layers: Sequence[int], most: int = LAYERS) -> list[int]:
    """All of up to most + 1 layers; else first, last and evenly between (the paper's 0, 5 and 11 of twelve)."""
    layers = sorted(layers)
    if len(layers) <= most + 1:
        return layers
    return [layers[place] for place in np.linspace(0, len(layers) - 1, most).astype(int)]
