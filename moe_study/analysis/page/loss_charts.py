"""Charts of losses: over training, and paired with the reference."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from moe_study.analysis.format import percent
from moe_study.analysis.frame import each
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
from moe_study.analysis.plots.loss import EARLY, one_kind, paired_with, run_lengths
from moe_study.analysis.study import Part

MOST_STEPS = 200  # of one curve


def add_loss_charts(charts: Charts, part: Part) -> None:
    """All that the finished runs of a part allow; `part` holds the points to draw (plots.all.readable)."""
    charts.start("Loss")
    _add_curves(charts, part)
    _add_differences(charts, part)


# Over training --------------------------------------------------------------------------------------------


def _add_curves(charts: Charts, part: Part) -> None:
    if not len(part.curves):
        return
    kind, long = one_kind(part.curves)
    most = int(long.groupby("key").size().max())
    names = dict(zip([look.label for look in charts.looks], charts.names, strict=True))
    told, _ = paired_with(long.dropna(subset="loss"), part.reference)
    thin = _thinned(told)
    rows = pd.DataFrame({"name": thin["label"].map(names), "seed": thin["seed"].astype(int)})
    rows = rows.assign(tokens=thin["tokens"].astype(float), loss=thin["loss"].astype(float), gap=thin["gap"])
    notes = [f"{kind} loss", "thick: mean over the seeds shown; thin: seeds" if len(charts.seeds) > 1 else "one seed"]
    if most > MOST_STEPS:
        notes.append(f"{MOST_STEPS} of up to {most} logged steps of each run, evenly spread")
    charts.add(
        Chart(
            f"{charts.prefix}curves",
            "Loss over training",
            _curves(charts, "loss", f"loss, {NATS}", _span(thin)),
            f"Lines: {kind} loss of every point over training tokens. Its last values stand in the table of points.",
            notes,
        ),
        curves=rows,
    )
    if len(names) > 1 and rows["gap"].notna().any():
        charts.add(
            Chart(
                f"{charts.prefix}gaps",
                "Loss over training, minus that of the reference",
                _curves(charts, "gap", f"minus {names[part.reference]}, {NATS}", None),
                f"Lines: {kind} loss of every point minus that of {names[part.reference]}, of the same seed after as"
                " many tokens.",
                [f"paired with {names[part.reference]} by seed and tokens; after the first fifth of what both saw"],
            )
        )


def _thinned(long: pd.DataFrame) -> pd.DataFrame:
    """At most MOST_STEPS rows of each run, evenly spread, the last among them."""
    long = long.sort_values(["key", "step"])
    place = long.groupby("key").cumcount().to_numpy()
    last = long.groupby("key")["key"].transform("size").to_numpy() - 1
    step = np.maximum(1, np.ceil((last + 1) / MOST_STEPS))
    return long[(last - place) % step == 0]


def _span(long: pd.DataFrame) -> tuple[float, float]:
    """What is seen first of the losses: each run's early ones may lie beyond."""
    low, high = float(long["loss"].min()), float(long["loss"][long["tokens"] >= EARLY * run_lengths(long)].max())
    return low - 0.05 * (high - low), high + 0.05 * (high - low)


def _curves(charts: Charts, value: str, title: str, span: tuple[float, float] | None) -> Spec:
    scale = {"domain": list(span)} if span else {"nice": True}
    x = quantity("tokens", "training tokens", axis={"format": "~s", "grid": False})
    mean = [{"aggregate": [{"op": "mean", "field": value, "as": "mean"}], "groupby": ["name", "tokens"]}]
    colour, dash = charts.colour(), charts.dash()
    seeds = {
        "mark": {"type": "line", "strokeWidth": 1, "opacity": 0.28, "clip": True},
        "encoding": {"x": x, "y": quantity(value, title, scale=scale), "color": colour, "detail": {"field": "seed"}},
    }
    means = {
        "transform": mean,
        "params": [zoom("x", "y")],
        "mark": {"type": "line", "strokeWidth": 2, "clip": True},
        "encoding": {"x": x, "y": quantity("mean", title, scale=scale), "color": colour, "strokeDash": dash},
    }
    nearest = {"type": "point", "fields": ["tokens"], "nearest": True, "on": "pointermove", "clear": "pointerout"}
    shown = {"condition": {"param": "here", "empty": False, "value": 0.6}, "value": 0}
    ruler = {
        "transform": [*mean, {"pivot": "name", "value": "mean", "groupby": ["tokens"]}],
        "params": [{"name": "here", "select": nearest}],
        "mark": {"type": "rule", "stroke": "var(--faint)", "strokeWidth": 1, "tooltip": {"content": "data"}},
        "encoding": {"x": x, "opacity": shown},
    }
    return {
        "data": charts.name("curves"),
        "transform": [SHOWN_POINTS, SHOWN_SEEDS, {"filter": f"isValid(datum.{value})"}],
        "height": HEIGHT,
        "layer": [*([seeds] if len(charts.seeds) > 1 else []), means, ruler],
    }


# Paired with the reference --------------------------------------------------------------------------------


def _add_differences(charts: Charts, part: Part) -> None:
    table = part.table[part.table["pairs"].fillna(0) > 0]
    names = {look.label: look.name for look in charts.looks}
    if not len(table):
        return
    rows, seeds = [], []
    for row in each(table):
        low, high = row.difference_low, row.difference_high
        rows.append((names[row.label], row.difference, low, high, int(row.pairs), row.standing))
        gaps = (part.losses.loc[row.label] - part.losses.loc[part.reference]).dropna().to_dict()
        seeds += [(names[row.label], int(seed), float(gap)) for seed, gap in gaps.items()]
    reference, level = names[part.reference], percent(part.table.attrs["level"])
    notes = [
        f"dots: seeds; bars: {level} t intervals of each pair of points alone; grey band: within {part.margin:g} of"
        f" {reference}, which counts as the same"
    ]
    chart = Chart(
        f"{charts.prefix}differences",
        f"Loss minus that of {reference}, paired by seed",
        _differences(charts, [row[0] for row in rows], part.margin, _reach(rows, seeds, part.margin)),
        f"Difference in loss to {reference} of each point with its interval; the table of points has the numbers.",
        notes,
    )
    columns = ["name", "difference", "low", "high", "seeds", "standing"]
    charts.add(
        chart,
        differences=pd.DataFrame(rows, columns=columns),
        pairs=pd.DataFrame(seeds, columns=["name", "seed", "difference"]),
    )


def _reach(
    rows: Sequence[tuple[Any, ...]], seeds: Sequence[tuple[str, int, float]], margin: float
) -> tuple[float, float]:
    """Ends of an axis that holds every seed; intervals only as far as they leave the rest readable."""
    needed = [-margin, margin, *(gap for _, _, gap in seeds)]
    low, high = min(needed), max(needed)
    most, ends = 0.5 * (high - low), [end for row in rows for end in row[2:4] if not math.isnan(end)]
    low, high = max(low - most, min([low, *ends])), min(high + most, max([high, *ends]))
    pad = 0.04 * (high - low)
    return low - pad, high + pad


def _differences(charts: Charts, order: Sequence[str], margin: float, reach: tuple[float, float]) -> Spec:
    axis = {"ticks": False, "domain": False, "labelPadding": 8}
    y: Spec = {"field": "name", "type": "nominal", "title": None, "sort": list(order), "axis": axis}
    ticks = {"format": "+~g", "tickCount": 6}
    x = quantity("difference", f"{NATS}; left is better", axis=ticks, scale={"domain": list(reach)})
    of_points, of_seeds = charts.name("differences"), charts.name("pairs")
    stroke = {"stroke": charts.colour()}
    says: list[Spec] = [
        {"field": "name", "title": "point"}, *numbers_told(("difference", "low", "high"), "+.4f"),
        {"field": "seeds", "title": "seeds"}, {"field": "standing"},
    ]  # fmt: skip
    band = {
        "data": {"values": [{"from": -margin, "to": margin}]},
        "mark": {"type": "rect", "fill": "var(--band)", "clip": True},
        "encoding": {"x": {"field": "from", "type": "quantitative"}, "x2": {"field": "to"}},
    }
    zero = {
        "data": {"values": [{"zero": 0}]},
        "mark": {"type": "rule", "stroke": "var(--ink)", "clip": True},
        "encoding": {"x": {"field": "zero", "type": "quantitative"}},
    }
    bars: Spec = {
        "data": of_points,
        "transform": [SHOWN_POINTS, {"filter": "isValid(datum.low)"}],
        "mark": {"type": "rule", "strokeWidth": 1.6, "clip": True},
        "encoding": {"y": y, "x": {**x, "field": "low"}, "x2": {"field": "high"}, **stroke, "tooltip": says},
    }
    dots: Spec = {
        "data": of_seeds,
        "transform": [SHOWN_POINTS, SHOWN_SEEDS],
        "mark": {"type": "point", "filled": True, "size": 14, "yOffset": 8, "opacity": 0.8, "clip": True},
        "encoding": {
            "y": y, "x": x, "color": charts.colour(),
            "tooltip": [*SEED, *numbers_told(("difference",), "+.4f")],
        },
    }  # fmt: skip
    means = {
        "data": of_points,
        "transform": [SHOWN_POINTS],
        "params": [zoom("x")],
        "mark": {"type": "point", "size": 70, "strokeWidth": 1.6, "clip": True, "opacity": 1},
        "encoding": {"y": y, "x": x, **stroke, "fill": charts.fill(), "shape": charts.shape(), "tooltip": says},
    }
    return {"height": 30 * len(order) + 10, "layer": [band, zero, bars, dots, means]}
