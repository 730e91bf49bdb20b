"""Pictures of losses: perplexity against cost, paired differences to a reference, and loss over training."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from matplotlib.transforms import offset_copy

from moe_study.analysis.comparison import MARGIN, compare, losses_by_seed
from moe_study.analysis.format import LEAK_MARK, count
from moe_study.analysis.frame import done, each
from moe_study.analysis.pairs import default_reference
from moe_study.analysis.plots.style import INK, PointStyle, house_style, labels_at_right, mean_mark, new_figure, title
from moe_study.analysis.statistics import PairedDifference
from moe_study.analysis.table import perplexity_table

COST_NAMES = {
    "num_active_params": "active parameters",
    "num_params": "total parameters",
    "flops_per_token": "forward FLOPs a token",
    "train_seconds": "training time, seconds",
}
WIDE = 3  # seeds from which on a t interval is drawn; below it, the seeds themselves
CROWDED = 10  # points beyond which perplexities are drawn without their spread
LANE = 10  # printer's points between points of one cost


def perplexity_against_cost(
    frame: pd.DataFrame,
    styles: dict[str, PointStyle],
    costs: Sequence[str] = ("num_active_params", "num_params", "flops_per_token"),
) -> Figure:
    """Perplexity of every point against its costs, one panel each, on a common vertical axis.

    Dots are seeds, bars 95% t intervals of the mean loss (from WIDE seeds on), hollow marks leak; more than
    CROWDED points show their means only. A line joins the dense points: what lies beneath it beats them.
    """
    table = perplexity_table(frame)
    runs = done(frame)
    crowded = len(table) > CROWDED
    shown = [_shown(row, runs, crowded) for row in each(table)]
    with house_style():
        figure = new_figure(2.1 * len(costs) + 1.9, _height(len(table)))
        panels = figure.subplots(1, len(costs), sharey=True, squeeze=False)[0]
        values = np.concatenate([[*s.seeds, s.mean, *(s.interval or ())] for s in shown])
        pad = 0.06 * (np.ptp(values) or 1.0)
        panels[0].set_ylim(values.min() - pad, values.max() + pad)
        dense = table[table["label"].isin(runs[runs["routing.selection"] == "dense"]["label"])]
        for axes, cost in zip(panels, costs, strict=True):
            line = dense.sort_values(cost)
            axes.plot(line[cost], line["perplexity"], color="#c4c4c4", lw=1, ls=(0, (4, 2)), zorder=1)
            _cost_axis(axes, table[cost], cost)
            for point, x, lane in zip(
                shown, table[cost], _lanes(axes, table[cost], shown, pad, set(dense["label"])), strict=True
            ):
                _perplexity_mark(axes, x, point, styles[point.label], LANE * lane)
        panels[0].set_ylabel("validation perplexity")
        panels[0].yaxis.set_major_locator(MaxNLocator(6))
        notes = ["one seed" if table["seeds"].max() == 1 else "means over seeds" if crowded else "dots: seeds"]
        notes += ["bars: 95% t intervals of the mean loss"] if any(s.interval for s in shown) else []
        notes += ["dashed: dense points"] if len(dense) > 1 else []
        notes += ["side by side: equal cost"]
        title(figure, "Perplexity against cost", "; ".join(notes) + leak_note(table))
        labels_at_right(panels[-1], {point.label: point.mean for point in shown}, styles)
    return figure


@dataclass(frozen=True)
class _Shown:
    """What is drawn of one point's perplexity."""

    label: str
    mean: float
    seeds: tuple[float, ...]
    interval: tuple[float, float] | None


def _shown(row: Any, runs: pd.DataFrame, crowded: bool) -> _Shown:
    seeds = np.exp(runs[runs["label"] == row.label]["validation_loss"].to_numpy())
    interval = (row.perplexity_low, row.perplexity_high) if row.seeds >= WIDE and not crowded else None
    return _Shown(row.label, row.perplexity, () if crowded or row.seeds == 1 else tuple(seeds), interval)


def _lanes(axes: Axes, costs: pd.Series, shown: Sequence[_Shown], half: float, first: Collection[str]) -> list[int]:
    """A lane (0, 1, -1, 2, -2) for each point, so that points of nearly one cost do not lie on each other.

    `half` is half the height of a mark, in perplexity; the points of `first` choose before the others.
    """
    order = sorted(range(len(shown)), key=lambda place: shown[place].label not in first)
    forward = axes.xaxis.get_transform().transform
    x = forward(costs.to_numpy(dtype=float))
    left, right = forward(np.asarray(axes.get_xlim()))
    near = 0.06 * (right - left)
    lanes = [0] * len(shown)
    spans = [(min(e), max(e)) for e in ([*s.seeds, *(s.interval or ()), s.mean - half, s.mean + half] for s in shown)]
    for rank, place in enumerate(order):
        low, high = spans[place]
        taken = [
            lanes[other]
            for other in order[:rank]
            if abs(x[other] - x[place]) < near and spans[other][0] < high and low < spans[other][1]
        ]
        lanes[place] = min((0, 1, -1, 2, -2), key=taken.count)
    return lanes


def _perplexity_mark(axes: Axes, x: float, point: _Shown, style: PointStyle, shift: float) -> None:
    """One point, `shift` printer's points to the side of its cost; its seeds beside it, where they are seen."""
    figure = axes.get_figure(root=True)
    here = offset_copy(axes.transData, figure, x=shift, units="points")
    aside = offset_copy(axes.transData, figure, x=shift + 5.5, units="points")
    if point.interval:
        axes.plot([x, x], point.interval, color=style.colour, lw=1.4, zorder=2, transform=here)
    axes.plot([x] * len(point.seeds), point.seeds, ".", ms=3.5, color=style.colour, mew=0, transform=aside)
    mean_mark(axes, x, point.mean, style, transform=here)


def _cost_axis(axes: Axes, values: pd.Series, cost: str) -> None:
    axes.grid(axis="y")
    low, high = values.min(), values.max()
    if low > 0 and high / low > 8:
        axes.set_xscale("log")
        axes.set_xlim(low / 1.6, high * 1.6)
        axes.xaxis.set_major_locator(LogLocator(10, subs=(1, 3), numticks=6))
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        pad = 0.3 * (high - low) or 0.1 * high
        axes.set_xlim(low - pad, high + pad)
        axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: count(x)))
    axes.set_xlabel(COST_NAMES[cost])


@dataclass(frozen=True)
class _Bar:
    """One point in the picture of paired differences."""

    style: PointStyle
    seeds_S: np.ndarray  # differences
    own: PairedDifference  # this pair of points alone
    pooled: float  # half width of the interval with pooled noise, or NaN


def paired_differences(
    frame: pd.DataFrame,
    styles: dict[str, PointStyle],
    reference: str | None = None,
    margin: float = MARGIN,
    level: float = 0.95,
) -> Figure:
    """Loss of every point minus the reference's, seed by seed, with intervals; best on top, leaking ones below.

    Thin bars are t intervals of one pair of points alone; thick ones, drawn for few seeds, pool the seed noise
    of all ranked points. The grey band is the margin inside which two points count as the same.
    """
    reference = reference if reference is not None else default_reference(frame)
    bars = _bars(frame, styles, reference, level)
    with house_style():
        figure = new_figure(6.2, 1.15 + 0.3 * max(2, len(bars)))
        axes = figure.subplots()
        axes.axvspan(-margin, margin, color="#ececec", lw=0, zorder=0)
        axes.axvline(0, color=INK, lw=0.8, zorder=1)
        axes.set_xlim(_differences_span(bars, margin))
        heights = np.arange(len(bars))[::-1].astype(float)
        heights -= [0.4 * bar.style.leaks for bar in bars]  # a gap above the leaking ones
        for bar, y in zip(bars, heights, strict=True):
            _draw_bar(axes, bar, y)
        axes.set_yticks(heights, [bar.style.name for bar in bars])
        for tick, bar in zip(axes.get_yticklabels(), bars, strict=True):
            tick.set_color(bar.style.colour)
        axes.tick_params(axis="y", length=0, pad=9)
        axes.spines["left"].set_visible(False)
        axes.set_ylim(min(heights, default=0) - 0.6, len(bars) - 0.4)
        axes.grid(axis="x")
        axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.set_xlabel(f"loss minus that of {reference}, nats a token (left is better)")
        note = f"dots: seeds; bars: {level:.0%} t intervals"
        if any(bar.pooled == bar.pooled for bar in bars):
            note = f"dots: seeds; thin: {level:.0%} t interval; thick: seed noise pooled over points"
        if all(bar.own.n == 1 for bar in bars):
            note = "one seed, so no interval"
        note += f"; grey band: ±{margin:g}"
        title(figure, f"Loss against {reference}, paired by seed", note + leak_note(done(frame)))
    return figure


def _bars(frame: pd.DataFrame, styles: dict[str, PointStyle], reference: str, level: float) -> list[_Bar]:
    names = [name for name in perplexity_table(frame, reference)["label"] if name != reference]
    losses = losses_by_seed(done(frame))
    bars = []
    for one in compare(frame, [(name, reference) for name in names], level=level):
        seeds_S = (losses.loc[one.point] - losses.loc[reference]).dropna().to_numpy()
        if len(seeds_S):
            bars.append(_Bar(styles[one.point], seeds_S, one.difference, one.pooled_half))
    return bars


def _differences_span(bars: Sequence[_Bar], margin: float) -> tuple[float, float]:
    """Limits that hold every seed and pooled interval; wider ones only as far as they leave the rest readable."""
    needed = [-margin, margin]
    wanted = [-margin, margin]
    for bar in bars:
        half = 0.0 if math.isnan(bar.pooled) else bar.pooled
        needed += [*bar.seeds_S, bar.own.mean - half, bar.own.mean + half]
        wanted += [value for value in (bar.own.low, bar.own.high) if not math.isnan(value)]
    low, high = min(needed), max(needed)
    most = 0.5 * (high - low)
    pad = 0.04 * (high - low)
    return max(low - most, min(low, *wanted)) - pad, min(high + most, max(high, *wanted)) + pad


def _draw_bar(axes: Axes, bar: _Bar, y: float) -> None:
    style, own = bar.style, bar.own
    if not math.isnan(bar.pooled):
        ends = [own.mean - bar.pooled, own.mean + bar.pooled]
        axes.plot(ends, [y, y], color=style.colour, lw=4.5, alpha=0.35, solid_capstyle="butt", zorder=2)
    if not math.isnan(own.low):
        left, right = axes.get_xlim()
        axes.plot([max(own.low, left), min(own.high, right)], [y, y], color=style.colour, lw=1.1, zorder=2)
        for edge, outside, head in ((left, own.low < left, "<"), (right, own.high > right, ">")):
            if outside:  # an arrow head where the interval leaves the picture
                axes.plot(edge, y, head, color=style.colour, ms=4, clip_on=False, zorder=4)
    if own.n > 1:
        axes.plot(bar.seeds_S, np.full(own.n, y - 0.3), ".", ms=3.5, color=style.colour, mew=0, zorder=3)
    mean_mark(axes, own.mean, y, style)


def loss_curves(
    frame: pd.DataFrame, curves: pd.DataFrame, styles: dict[str, PointStyle], reference: str | None = None
) -> Figure:
    """Left: loss over training, mean over seeds (band: from the lowest seed to the highest).

    Right: the same minus the reference's, seed by seed, after the first fifth of training. Validation loss where
    it was measured at least four times, else the training loss, smoothed.
    """
    reference = reference if reference is not None else default_reference(frame)
    kind, long = _one_kind(curves)
    with house_style():
        figure = new_figure(8.6, _height(len(styles)))
        left, right = figure.subplots(1, 2, width_ratios=(1, 1))
        last = long["tokens"].max()
        base = long[long["label"] == reference].set_index(["seed", "step"])["loss"]
        ends: dict[str, float] = {}
        for name, style in styles.items():
            own = long[long["label"] == name]
            if not len(own):
                continue
            _curve(left, own, "loss", style)
            joined = own.assign(gap=own["loss"].to_numpy() - base.reindex(_seed_steps(own)).to_numpy())
            late = joined.dropna(subset="gap")
            late = late[late["tokens"] >= 0.2 * last]
            if len(late):
                _curve(right, late, "gap", style)
                ends[name] = late[late["step"] == late["step"].max()]["gap"].mean()
        early = long[(long["tokens"] >= 0.15 * last)]["loss"]
        floor, top = long["loss"].min(), early.max() if len(early) else long["loss"].max()
        left.set_ylim(floor - 0.06 * (top - floor), top + 0.04 * (top - floor))
        left.set_ylabel(f"{kind} loss, nats a token")
        right.set_ylabel(f"minus that of {reference}, nats")
        for axes in (left, right):
            axes.grid(axis="y")
            axes.set_xlabel("training tokens")
            axes.xaxis.set_major_locator(MaxNLocator(5))
            axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: count(x)))
        left.set_xlim(0, last)
        right.set_xlim(0.2 * last, last)
        band = "bands: from the lowest seed to the highest" if long["seed"].nunique() > 1 else "one seed"
        title(figure, "Loss over training", band + leak_note(done(frame)))
        labels_at_right(right, ends, styles)
    return figure


def _one_kind(curves: pd.DataFrame) -> tuple[str, pd.DataFrame]:
    """The validation losses if there are enough of them, else the training losses smoothed over steps."""
    validation = curves[curves["kind"] == "validation"]
    if len(validation) and validation.groupby("key").size().min() >= 4:
        return "validation", validation
    train = curves[curves["kind"] == "train"].sort_values(["key", "step"])
    smooth = train.groupby("key")["loss"].transform(lambda s: s.ewm(span=max(2, len(s) / 20)).mean())
    return "training (smoothed)", train.assign(loss=smooth)


def _curve(axes: Axes, long: pd.DataFrame, column: str, style: PointStyle) -> None:
    by_step = long.groupby("tokens")[column]
    mean, low, high = by_step.mean(), by_step.min(), by_step.max()
    axes.fill_between(mean.index, low, high, color=style.colour, alpha=0.13, lw=0)
    axes.plot(mean.index, mean, color=style.colour, ls=style.line)


def _seed_steps(long: pd.DataFrame) -> pd.MultiIndex:
    return pd.MultiIndex.from_frame(long[["seed", "step"]])


def _height(labels: int) -> float:
    """Inches that give every label in the right margin its line."""
    return max(3.3, 1.0 + 0.165 * labels)


def leak_note(table: pd.DataFrame) -> str:
    """The meaning of the mark, where a point of the table carries it."""
    return f"; {LEAK_MARK} routing reads later tokens" if table["leaks"].astype(bool).any() else ""
