"""Charts of what experts do: information about each label by layer, and what breaks without an expert."""

import numpy as np
import pandas as pd

from moe_study.analysis.page.charts import HEIGHT, SHOWN_POINTS, SHOWN_SEEDS, Chart, Charts, Spec, quantity, zoom
from moe_study.analysis.probes import ProbeFindings
from moe_study.analysis.specialisation.knockout import ALL_LAYERS
from moe_study.analysis.specialisation.knockout_sentences import WHAT
from moe_study.analysis.statistics import t_interval

FROM_ZERO = {"zero": True, "padding": 10}
BAND_WIDTH = 0.8  # of a layer, for the points side by side


def add_inside_charts(charts: Charts, probe: ProbeFindings) -> None:
    """All that the findings on a probe allow."""
    names = {look.label: look.name for look in charts.looks}
    charts.start(
        f"What experts tell of labels: {probe.over('information')}",
        "Of all there is to know of a label, what the expert tells: 1 where it tells the label. Bars: 95% intervals"
        " over seeds; grey: what comes out where labels mean nothing (the middle 95%); star: shown for other seeds and"
        " other documents, adjusted for a question's layers and points. Beyond: what it adds to what is named there.",
    )
    rows = probe.information[probe.information["point"].isin(names)]
    questions = dict.fromkeys(zip(rows["label"], rows["given"], strict=True))
    for number, (label, given) in enumerate(questions):
        own = rows[(rows["label"] == label) & (rows["given"] == given)]
        _add_information(charts, probe, own, names, f"{label} beyond {given}" if given else label, number)
    _add_knockouts(charts, probe, names)


def _add_information(
    charts: Charts, probe: ProbeFindings, own: pd.DataFrame, names: dict[str, str], words: str, number: int
) -> None:
    data = pd.DataFrame({"name": own["point"].map(names), "layer": own["layer"].astype(int)})
    for column in ("value", "value_low", "value_high", "null_low", "null_high", "p_adjusted"):
        data[column] = own[column].astype(float)
    data["seeds"] = own["seeds"].astype(int)
    data["shown"] = ["not tested" if one is None else "shown" if one else "not shown" for one in own["shown"]]
    data = _side_by_side(data)
    name = f"information-{probe.name}-{number}"
    says = f"Share of what there is to know of {words} that the expert tells, by layer, for every point."
    title = f"{words[:1].upper()}{words[1:]}"
    charts.add(Chart(f"{charts.prefix}{name}", title, _information(charts, name, data), says), **{name: data})


def _side_by_side(data: pd.DataFrame) -> pd.DataFrame:
    """With the place of every row: its layer, and beside it the points."""
    points = {name: place for place, name in enumerate(dict.fromkeys(data["name"]))}
    step = BAND_WIDTH / max(1, len(points))
    place = data["layer"] + (data["name"].map(points) - (len(points) - 1) / 2) * step
    return data.assign(place=place, left=place - step / 2, right=place + step / 2)


def _layers(data: pd.DataFrame) -> Spec:
    layers = sorted({int(layer) for layer in data["layer"]})
    axis = {"values": layers, "format": "d", "grid": False}
    scale = {"domain": [layers[0] - 0.6, layers[-1] + 0.6]}
    return quantity("place", "layer", axis=axis, scale=scale)


def _information(charts: Charts, name: str, data: pd.DataFrame) -> Spec:
    x, y = _layers(data), quantity("value", "of all there is to know", scale=FROM_ZERO)
    says = [
        {"field": "name", "title": "point"}, {"field": "layer"},
        *({"field": field, "title": title, "type": "quantitative", "format": ".4f"} for field, title in (
            ("value", "tells"), ("value_low", "from"), ("value_high", "to"),
            ("null_low", "by chance from"), ("null_high", "by chance to"))),
        {"field": "p_adjusted", "title": "p (Holm)", "type": "quantitative", "format": ".2g"},
        {"field": "shown", "title": "verdict"}, {"field": "seeds"},
    ]  # fmt: skip
    stroke = {"stroke": charts.colour()}
    bands = {
        "mark": {"type": "rect", "fill": "var(--band)", "clip": True},
        "encoding": {
            "x": {**x, "field": "left"}, "x2": {"field": "right"}, "y": {**y, "field": "null_low"},
            "y2": {"field": "null_high"},
        },
    }  # fmt: skip
    bars = {
        "transform": [{"filter": "isValid(datum.value_low)"}],
        "mark": {"type": "rule", "strokeWidth": 1.6, "clip": True},
        "encoding": {"x": x, "y": {**y, "field": "value_low"}, "y2": {"field": "value_high"}, **stroke},
    }
    stars = {
        "transform": [
            {"filter": "datum.shown == 'shown'"},
            {"calculate": "max(datum.value, datum.value_high, datum.null_high)", "as": "top"},
        ],
        "mark": {"type": "text", "text": "★", "dy": -8, "fontSize": 10, "clip": True},
        "encoding": {"x": x, "y": {**y, "field": "top"}, "color": charts.colour()},
    }
    dots = {
        "params": [zoom("x", "y")],
        "mark": {"type": "point", "size": 46, "strokeWidth": 1.4, "opacity": 1, "clip": True},
        "encoding": {"x": x, "y": y, **stroke, "fill": charts.fill(), "shape": charts.shape(), "tooltip": says},
    }
    layers = [bands, bars, *([stars] if data["shown"].eq("shown").any() else []), dots]
    return {"data": charts.name(name), "transform": [SHOWN_POINTS], "height": HEIGHT - 60, "layer": layers}


# Knock-outs -----------------------------------------------------------------------------------------------


def _add_knockouts(charts: Charts, probe: ProbeFindings, names: dict[str, str]) -> None:
    changes = probe.knockout
    changes = changes[(changes["of"] == "") & changes["label"].isin(names)] if len(changes) else changes
    if not len(changes):
        return
    groups = changes.groupby(["label", "seed", "kind", "layer"], sort=False)
    by_run = groups[["change", "null_mean"]].mean().reset_index()
    by_run = by_run.assign(name=by_run["label"].map(names), seed=by_run["seed"].astype(int))
    charts.start(
        f"What breaks without experts: {probe.over('knockout')}",
        "Change of the loss over all tokens, mean over experts. Dots: seeds; bars: 95% intervals over seeds; grey line:"
        " the same done to random experts of equal load.",
    )
    for kind, own in by_run.groupby("kind", sort=False):
        words = WHAT.get(str(kind), str(kind).replace("_", " "))  # type: ignore[call-overload]
        means = _over_seeds(own)
        name = f"knockout-{probe.name}-{str(kind).replace('_', '-')}"
        seeds = _places_of(means, own)[["name", "seed", "layer", "place", "change"]]
        says = f"Change of the loss of every point by layer: {words}."
        title = f"{words[:1].upper()}{words[1:]}"
        chart = Chart(f"{charts.prefix}{name}", title, _knockout(charts, name, means), says)
        charts.add(chart, **{name: means, f"{name}-seeds": seeds})


def _over_seeds(by_run: pd.DataFrame) -> pd.DataFrame:
    rows = []
    for name, layer in dict.fromkeys(zip(by_run["name"], by_run["layer"], strict=True)):
        own = by_run[(by_run["name"] == name) & (by_run["layer"] == layer)]
        mean, _, low, high = t_interval(own["change"].to_numpy(dtype=float))
        null = own["null_mean"].to_numpy(dtype=float)
        random = float(null.mean()) if len(null) and not np.isnan(null).any() else np.nan
        rows.append((name, int(layer), float(mean), float(low), float(high), random, len(own)))
    columns = ["name", "layer", "change", "low", "high", "random", "seeds"]
    return _side_by_side(pd.DataFrame(rows, columns=columns))


def _places_of(means: pd.DataFrame, by_run: pd.DataFrame) -> pd.DataFrame:
    return by_run.merge(means[["name", "layer", "place"]], on=["name", "layer"])


def _knockout(charts: Charts, name: str, means: pd.DataFrame) -> Spec:
    x, y = _layers(means), quantity("change", "nats per token; up is worse", scale=FROM_ZERO)
    if (means["layer"] == ALL_LAYERS).any():
        x["axis"]["labelExpr"] = f"datum.value == {ALL_LAYERS} ? 'all' : datum.label"
    stroke = {"stroke": charts.colour()}
    says = [
        {"field": "name", "title": "point"}, {"field": "layer"},
        *({"field": field, "type": "quantitative", "format": "+.4f"} for field in ("change", "low", "high", "random")),
        {"field": "seeds"},
    ]  # fmt: skip
    random = {
        "transform": [{"filter": "isValid(datum.random)"}],
        "mark": {"type": "rule", "stroke": "var(--faint)", "strokeWidth": 2, "clip": True},
        "encoding": {"x": {**x, "field": "left"}, "x2": {"field": "right"}, "y": {**y, "field": "random"}},
    }
    bars = {
        "transform": [{"filter": "isValid(datum.low)"}],
        "mark": {"type": "rule", "strokeWidth": 1.6, "clip": True},
        "encoding": {"x": x, "y": {**y, "field": "low"}, "y2": {"field": "high"}, **stroke},
    }
    seeds = {
        "data": charts.name(f"{name}-seeds"),
        "transform": [SHOWN_POINTS, SHOWN_SEEDS],
        "mark": {"type": "point", "filled": True, "size": 12, "xOffset": 7, "opacity": 0.8, "clip": True},
        "encoding": {
            "x": x, "y": y, "color": charts.colour(),
            "tooltip": [{"field": "name", "title": "point"}, {"field": "layer"}, {"field": "seed"},
                        {"field": "change", "type": "quantitative", "format": "+.4f"}],
        },
    }  # fmt: skip
    dots = {
        "params": [zoom("x", "y")],
        "mark": {"type": "point", "size": 46, "strokeWidth": 1.4, "opacity": 1, "clip": True},
        "encoding": {"x": x, "y": y, **stroke, "fill": charts.fill(), "shape": charts.shape(), "tooltip": says},
    }
    layers = [*([random] if means["random"].notna().any() else []), bars, seeds, dots]
    return {"data": charts.name(name), "transform": [SHOWN_POINTS], "height": HEIGHT - 60, "layer": layers}
