"""Panels in a grid: points down, and layers (or questions) across; as many pages as the points take."""

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from moe_study.analysis.format import LEAK_MARK
from moe_study.analysis.plots.style import PointStyle, chosen_layers, new_figure

PAGE = 7.0  # inches that the panels of one page take, at most
LEFT, TOP = 2.0, 0.95  # inches for names and legend at the sides, for title, note and axis below
LONGEST = 30  # letters of a domain's name
LETTER = 0.062  # inches that a letter of a turned name takes
NAME_WIDTH = 16  # letters in a line of a point's name


@dataclass(frozen=True)
class Size:
    """Inches of one panel, without its ticks."""

    width: float = 1.8
    height: float = 1.1

    @property
    def rows(self) -> int:
        """Panels, one above another, on a page."""
        return max(1, int(PAGE / self.height))


def pages(names: Sequence[str], size: Size) -> Iterator[list[str]]:
    """The names page by page, as even as they go."""
    count = -(-len(names) // size.rows)
    for page in range(count):
        yield list(names[len(names) * page // count : len(names) * (page + 1) // count])


def grid(
    columns: Mapping[str, Sequence[str]],
    styles: Mapping[str, PointStyle],
    size: Size,
    share_y: bool = False,
    below: float = 0.0,
) -> tuple[Figure, dict[str, list[Axes]]]:
    """An empty grid: titles of the columns by point; where points differ in them, every row has its own.

    `below`: more inches under the last row, for turned names. Call it within house_style().
    """
    width = max(map(len, columns.values()))
    figure = new_figure(LEFT + size.width * width, TOP + below + size.height * len(columns))
    panels = figure.subplots(len(columns), width, squeeze=False, sharey=share_y)
    alike = len({tuple(titles) for titles in columns.values()}) == 1
    found = {}
    for row, (name, titles) in enumerate(columns.items()):
        for axes in panels[row][len(titles) :]:
            axes.set_visible(False)
        for axes, column in zip(panels[row], titles, strict=False):
            if row == 0 or not alike:
                axes.set_title(column, pad=3, fontsize=8)
            axes.tick_params(labelbottom=row == len(columns) - 1)
        _name_row(panels[row][0], styles[name])
        found[name] = list(panels[row][: len(titles)])
    return figure, found


def _name_row(axes: Axes, style: PointStyle) -> None:
    look: dict[str, Any] = {"rotation": 0, "ha": "right", "va": "center", "color": style.colour}
    axes.set_ylabel(textwrap.fill(style.name.replace(" of ", " of\u00a0"), NAME_WIDTH), fontsize=8, **look)


def name_domains(axes: Axes, names: Sequence[str], width: float) -> None:
    """Names of domains under a panel of `width` inches, turned where they would touch."""
    axes.set_xticks(range(len(names)), [short(name) for name in names], rotation=90 * turned(names, width))
    axes.tick_params(axis="x", length=0)


def turned(names: Sequence[str], width: float) -> bool:
    """Whether the names would touch side by side."""
    return (max(map(len, map(short, names)), default=0) + 1) * len(names) * LETTER > width


def depth(names: Sequence[str], width: float) -> float:
    """Inches that the names take under a panel, beyond one line."""
    return LETTER * max(map(len, map(short, names))) if turned(names, width) else 0.0


def short(name: str) -> str:
    """A domain's name as people write it, cut where it is too long for a picture."""
    words = name.replace("_", " ")
    return words if len(words) <= LONGEST else f"{words[: LONGEST - 1].rstrip()}…"


def one_run(long: pd.DataFrame) -> pd.DataFrame:
    """The rows of each point's lowest seed: experts have no identity across seeds, so one run is shown."""
    return long[long["seed"] == long.groupby("label")["seed"].transform("min")]


def layers_shown(long: pd.DataFrame, names: Sequence[str]) -> dict[str, list[int]]:
    """The layers to draw of each point: all of few, else first, last and between."""
    return {name: chosen_layers([int(n) for n in long[long["label"] == name]["layer"].unique()]) for name in names}


def seeds_note(long: pd.DataFrame) -> str:
    """Which run stands for each point."""
    seeds = sorted({int(seed) for seed in long["seed"]})
    return f"one run per point (seed {', '.join(map(str, seeds))}), since experts have no identity across seeds"


def leak_note(names: Sequence[str], styles: Mapping[str, PointStyle]) -> str:
    """The meaning of the mark, where one of the names carries it."""
    return f"{LEAK_MARK} its routing reads later tokens" if any(styles[name].leaks for name in names) else ""


def caption(*sentences: str) -> str:
    """The sentences of a note that say something, as one line."""
    said = [sentence.rstrip(".") for sentence in sentences if sentence]
    return ". ".join(sentence[:1].upper() + sentence[1:] for sentence in said) + "."
