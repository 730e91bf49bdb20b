"""What all charts of the page share: Vega-Lite specifications as plain dictionaries.

Data stands apart, in named sets (embedded.columns). Colours are variables of the page's style sheet, so that a chart
follows the light, the dark and the printed page without being drawn again. Every chart has the parameters `points` and
`seeds`: what is not in them is not drawn; files/charts.js sets them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from moe_study.analysis.plots.style import PointStyle

Spec = dict[str, Any]
SHAPES = {
    "o": "circle", "s": "square", "^": "triangle-up", "v": "triangle-down", "D": "diamond", "P": "cross",
    "X": "M-0.7,-1L0,-0.3L0.7,-1L1,-0.7L0.3,0L1,0.7L0.7,1L0,0.3L-0.7,1L-1,0.7L-0.3,0L-1,-0.7Z",
}  # fmt: skip
PATHS = {  # the same shapes as paths of a legend, about two units wide
    "circle": "M1,0A1,1 0 1 1 -1,0A1,1 0 1 1 1,0Z", "square": "M-0.9,-0.9H0.9V0.9H-0.9Z",
    "triangle-up": "M0,-1L1,0.8H-1Z", "triangle-down": "M0,1L1,-0.8H-1Z", "diamond": "M0,-1.1L0.9,0L0,1.1L-0.9,0Z",
    "cross": "M-1,-0.35H-0.35V-1H0.35V-0.35H1V0.35H0.35V1H-0.35V0.35H-1Z",
}  # fmt: skip
NATS = "nats per token"
HEIGHT = 300  # pixels of a chart's plane


@dataclass(frozen=True)
class Chart:
    """One chart: its specification without data, and what a reader must know."""

    id: str
    title: str
    spec: Spec
    says: str  # for those who cannot see it
    notes: Sequence[str] = ()


@dataclass
class Group:
    """Charts under one heading, and what holds for all of them."""

    title: str
    notes: Sequence[str] = ()
    charts: list[Chart] = field(default_factory=list)


@dataclass(frozen=True)
class Look:
    """One design point in legends and charts."""

    name: str  # its label with its marks
    label: str
    colour: str
    shape: str
    dash: Sequence[float]
    leaks: bool

    @property
    def path(self) -> str:
        """Its mark in the legend."""
        return PATHS.get(self.shape, self.shape)


@dataclass
class Charts:
    """The charts of one part, and the data that they draw."""

    prefix: str  # of their names
    looks: Sequence[Look]
    seeds: Sequence[int]
    groups: list[Group] = field(default_factory=list)
    data: dict[str, pd.DataFrame] = field(default_factory=dict)

    def name(self, data: str) -> dict[str, str]:
        """What a specification calls one of the sets of data."""
        return {"name": f"{self.prefix}{data}"}

    def start(self, title: str, *notes: str) -> None:
        """Begin a group: what is added from now on stands in it."""
        self.groups.append(Group(title, notes))

    def add(self, chart: Chart, **data: pd.DataFrame) -> None:
        self.groups[-1].charts.append(chart)
        self.data.update({f"{self.prefix}{name}": frame for name, frame in data.items()})

    @property
    def names(self) -> list[str]:
        return [look.name for look in self.looks]

    @property
    def params(self) -> list[Spec]:
        return [{"name": "points", "value": self.names}, {"name": "seeds", "value": list(self.seeds)}]

    def colour(self) -> Spec:
        """The encoding of colour by point; the legend stands beside the charts, once for all."""
        return _point(self.names, [look.colour for look in self.looks])

    def dash(self) -> Spec:
        return _point(self.names, [list(look.dash) for look in self.looks])

    def shape(self) -> Spec:
        return _point(self.names, [look.shape for look in self.looks])

    def fill(self) -> Spec:
        """Leaking points are hollow."""
        return _point(self.names, ["var(--paper)" if look.leaks else look.colour for look in self.looks])


def _point(names: Sequence[str], values: Sequence[Any]) -> Spec:
    return {"field": "name", "type": "nominal", "scale": {"domain": names, "range": values}, "legend": None}


SEED: list[Spec] = [{"field": "name", "title": "point"}, {"field": "seed"}]  # of what is pointed at
SHOWN_POINTS: Spec = {"filter": "indexof(points, datum.name) >= 0"}
SHOWN_SEEDS: Spec = {"filter": "indexof(seeds, datum.seed) >= 0"}


def zoom(*channels: str) -> Spec:
    """Drag to move, Ctrl and wheel to zoom (the wheel alone scrolls the page), double click to see all again."""
    return {
        "name": "zoom",
        "select": {"type": "interval", "encodings": list(channels), "zoom": "wheel![event.ctrlKey || event.metaKey]"},
        "bind": "scales",
    }


def quantity(name: str, title: str | None, **more: Any) -> Spec:
    """The encoding of a number on an axis that need not start at zero."""
    axis, scale = more.pop("axis", {}), {"nice": False, **more.pop("scale", {})}
    if scale.get("type") != "log":  # which has no zero
        scale.setdefault("zero", False)
    return {"field": name, "type": "quantitative", "title": title, "scale": scale, "axis": axis, **more}


def numbers_told(names: Sequence[str], form: str) -> list[Spec]:
    """Numbers of what is pointed at, in one format."""
    return [{"field": name, "type": "quantitative", "format": form} for name in names]


def looks_of(styles: Mapping[str, PointStyle]) -> list[Look]:
    """How pictures draw the points, in words that the page has."""
    return [
        Look(
            style.name, label, variable(style.colour), SHAPES[style.marker], dash(style.line), style.leaks
        )
        for label, style in styles.items()
    ]


def variable(colour: str) -> str:
    """The variable of the style sheet that holds a colour of plots/style.py, and its like on a dark page."""
    return f"var(--c-{colour.removeprefix('#').lower()})"


def dash(line: str | tuple[int, tuple[float, ...]]) -> list[float]:
    """matplotlib's pattern of a line, whose unit is its width."""
    return [] if isinstance(line, str) else [2 * part for part in line[1]]
