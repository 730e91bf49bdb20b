"""Charts of loss against each cost, with the Pareto front of the points that are ranked."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from moe_study.analysis.effects.costs import costs_of_runs
from moe_study.analysis.effects.fronts import Front
from moe_study.analysis.page.charts import (
    HEIGHT,
    NATS,
    SEED,
    SHOWN_POINTS,
    SHOWN_SEEDS,
    Chart,
    Charts,
    Spec,
    numbers_told,
    quantity,
    zoom,
)
from moe_study.analysis.study import Part

NEAR = 0.05  # of the axis: points whose costs are this close stand side by side
LANE, LANES = 16, (0, 1, -1, 2, -2)  # pixels from one to the next
WIDE = 8  # largest over smallest cost from which on an axis is logarithmic


def add_cost_charts(charts: Charts, part: Part) -> None:
    """A chart for each cost that is known: the front is that of all points, also where only some can be drawn."""
    charts.start(
        "Loss against cost",
        "Small dots: seeds; bars: 95% t intervals of the mean over seeds, each alone. The line is the Pareto front of"
        " the points that are ranked: nothing that costs as little has a lower loss; its band joins their intervals."
        " Points of nearly one cost and loss stand side by side.",
    )
    for front in part.fronts:
        _add_front(charts, part, front)


def _add_front(charts: Charts, part: Part, front: Front) -> None:
    names = {look.label: look.name for look in charts.looks}
    shown = [point for point in front.points if point.label in names]
    if not shown:
        return
    cost = np.array([point.cost for point in shown])
    points = pd.DataFrame(
        {
            "name": [names[point.label] for point in shown],
            "cost": cost,
            "loss": [point.loss.mean for point in shown],
            "low": [point.loss.low for point in shown],
            "high": [point.loss.high for point in shown],
            "perplexity": [math.exp(point.loss.mean) for point in shown],
            "seeds": [point.loss.n for point in shown],
            "front": [
                point.standing if point.standing != front.ranked else "yes" if point.on_front else "no"
                for point in shown
            ],
            "share": [point.share for point in shown],
        }
    )
    log = bool(cost.max() > WIDE * cost.min())
    points["lane"] = _lanes(np.log(cost) if log else cost, points)
    lane_of = dict(zip(points["name"], points["lane"], strict=True))
    runs = part.runs[part.runs["label"].isin([point.label for point in shown])]
    of_runs = pd.DataFrame(
        {
            "name": [names[label] for label in runs["label"]],
            "seed": runs["seed"].astype(int).to_numpy(),
            "loss": runs["validation_loss"].to_numpy(dtype=float),
            "cost": costs_of_runs(runs)[front.cost].to_numpy(),
        }
    )
    of_runs["lane"] = of_runs["name"].map(lane_of)
    name, words = f"cost-{front.cost.value.replace('_', '-')}", front.cost.words
    chart = Chart(
        f"{charts.prefix}{name}",
        f"{words[:1].upper()}{words[1:]}",
        _spec(charts, name, words, log, sorted(set(points["lane"]))),
        f"Validation loss of every point against {words}, and the Pareto front; the table of fronts has the numbers.",
    )
    line = _line(front, float(cost.max()))
    charts.add(chart, **{name: points, f"{name}-runs": of_runs, f"{name}-front": line})


def _line(front: Front, end: float) -> pd.DataFrame:
    """The steps of the front, cheapest first, to the dearest point of all."""
    rows = [(point.cost, point.loss.mean, point.loss.low, point.loss.high) for point in front.on_front]
    if rows and rows[-1][0] < end:
        rows.append((end, *rows[-1][1:]))
    return pd.DataFrame(rows, columns=["cost", "loss", "low", "high"])


def _lanes(x: "np.ndarray", points: pd.DataFrame) -> list[int]:
    """For each point a place beside its cost, so that points of nearly one cost and loss do not hide one another.

    Points on the front choose first, since a line joins them.
    """
    y = points["loss"].to_numpy(dtype=float)
    pad = 0.04 * (np.nanmax(y) - np.nanmin(y))
    low = np.fmin(points["low"].to_numpy(dtype=float), y) - pad
    high = np.fmax(points["high"].to_numpy(dtype=float), y) + pad
    near = NEAR * (np.nanmax(x) - np.nanmin(x) or 1.0)
    lanes: dict[int, int] = {}
    for place in np.argsort((points["front"] != "yes").to_numpy(), kind="stable"):
        hides = (abs(x - x[place]) < near) & (low < high[place]) & (low[place] < high)
        taken = [lane for other, lane in lanes.items() if hides[other]]
        lanes[int(place)] = min(LANES, key=taken.count)
    return [lanes[place] for place in range(len(x))]


def _spec(charts: Charts, name: str, words: str, log: bool, lanes: Sequence[int]) -> Spec:
    kind = {"type": "log"} if log else {}
    x = quantity("cost", words, axis={"format": "~s", "tickCount": 5, "grid": False}, scale={**kind, "padding": 56})
    y = quantity("loss", f"validation loss, {NATS}", scale={"padding": 12})
    front = charts.name(f"{name}-front")
    band = {
        "data": front,
        "transform": [{"filter": "isValid(datum.low)"}],
        "mark": {"type": "area", "interpolate": "step-after", "fill": "var(--accent)", "opacity": 0.12, "clip": True},
        "encoding": {"x": x, "y": {**y, "field": "low"}, "y2": {"field": "high"}},
    }
    look = {"interpolate": "step-after", "stroke": "var(--accent)", "strokeWidth": 1, "clip": True}
    line = {
        "data": front,
        "mark": {"type": "line", **look},
        "encoding": {"x": x, "y": y},
    }
    layers = [layer for lane in lanes for layer in _lane(charts, name, words, x, y, lane)]
    layers[-1]["params"] = [zoom("x", "y")]
    return {"data": charts.name(name), "height": HEIGHT, "layer": [band, line, *layers]}


def _lane(charts: Charts, name: str, words: str, x: Spec, y: Spec, lane: int) -> list[Spec]:
    """Interval, seeds and mean of the points in one lane."""
    here = {"filter": f"datum.lane == {lane}"}
    says = [
        {"field": "name", "title": "point"},
        *numbers_told(("loss", "low", "high"), ".4f"),
        *numbers_told(("perplexity",), ".2f"),
        {"field": "cost", "title": words, "type": "quantitative", "format": ".4~s"},
        {"field": "front", "title": "on the front"},
        {"field": "share", "title": "of seed resamples", "type": "quantitative", "format": ".0%"},
        {"field": "seeds"},
    ]
    look: Spec = {"type": "point", "opacity": 1, "clip": True}
    bars = {
        "transform": [here, SHOWN_POINTS, {"filter": "isValid(datum.low)"}],
        "mark": {"type": "rule", "strokeWidth": 1.6, "clip": True, "xOffset": LANE * lane},
        "encoding": {"x": x, "y": {**y, "field": "low"}, "y2": {"field": "high"}, "stroke": charts.colour()},
    }
    dots = {
        "data": charts.name(f"{name}-runs"),
        "transform": [here, SHOWN_POINTS, SHOWN_SEEDS],
        "mark": {**look, "filled": True, "size": 12, "xOffset": LANE * lane + 7},
        "encoding": {"x": x, "y": y, "color": charts.colour(), "tooltip": [*SEED, *numbers_told(("loss",), ".4f")]},
    }
    means = {
        "transform": [here, SHOWN_POINTS],
        "mark": {**look, "size": 70, "strokeWidth": 1.6, "xOffset": LANE * lane},
        "encoding": {
            "x": x, "y": y, "stroke": charts.colour(), "fill": charts.fill(), "shape": charts.shape(),
            "tooltip": says,
        },
    }  # fmt: skip
    return [bars, dots, means]
