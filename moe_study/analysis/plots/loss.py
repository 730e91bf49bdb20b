"""Pictures of losses: perplexity against cost, paired differences to a reference, and loss over training."""

import itertools
import math
import textwrap
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from matplotlib.transforms import offset_copy

from moe_study.analysis.comparison import LEVEL
from moe_study.analysis.format import APART_MARK, LEAK_MARK, count, percent
from moe_study.analysis.frame import each
from moe_study.analysis.plots.style import INK, PointStyle, house_style, labels_at_right, mean_mark, new_figure, title
from moe_study.analysis.study import Part
from moe_study.analysis.table import APART, NO_RESULT

COST_NAMES = {
    "executed_active_params": "active parameters",
    "num_params": "total parameters",
    "executed_flops_per_token": "forward FLOPs per token",
    "train_seconds": "training time, seconds",
}
EARLY = 0.15  # of a run, whose losses would make the rest flat
LATE = 0.2  # of training, after which differences over training are drawn
WIDE = 3  # seeds from which on a t interval is drawn; below it, the seeds themselves
CROWDED = 10  # points beyond which perplexities are drawn without their spread
LANE = 10  # printer's points between points of one cost


def perplexity_against_cost(
    part: Part,
    styles: dict[str, PointStyle],
    costs: Sequence[str] = ("executed_active_params", "num_params", "executed_flops_per_token"),
) -> Figure:
    """Perplexity of every point against its costs, one panel each, on a common vertical axis.

    Dots are seeds, bars 95% t intervals of the mean loss (from WIDE seeds on), hollow marks leak; more than
    CROWDED points show their means only. A line joins the dense points: what lies beneath it beats them.
    """
    table = _with_results(part.table)
    crowded = len(table) > CROWDED
    shown = [_shown(row, part.losses, crowded) for row in each(table)]
    with house_style():
        figure = new_figure(2.1 * len(costs) + 1.9, _height(len(table)))
        panels = figure.subplots(1, len(costs), sharey=True, squeeze=False)[0]
        values = np.concatenate([[*s.seeds, s.mean, *(s.interval or ())] for s in shown])
        pad = 0.06 * (np.ptp(values) or 1.0)
        panels[0].set_ylim(values.min() - pad, values.max() + pad)
        dense = table[table["label"].isin(part.runs[part.runs["routing.selection"] == "dense"]["label"])]
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
        title(figure, "Perplexity against cost", "; ".join(notes) + mark_note(table))
        labels_at_right(panels[-1], {point.label: point.mean for point in shown}, styles)
    return figure


@dataclass(frozen=True)
class _Shown:
    """What is drawn of one point's perplexity."""

    label: str
    mean: float
    seeds: tuple[float, ...]
    interval: tuple[float, float] | None


def _shown(row: Any, losses: pd.DataFrame, crowded: bool) -> _Shown:
    seeds = np.exp(losses.loc[row.label].dropna().to_numpy())
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
    mean: float
    low: float  # of this pair's t interval, NaN for one seed
    high: float
    standing: str  # in the table


def paired_differences(part: Part, styles: dict[str, PointStyle]) -> Figure:
    """Loss of every point minus the reference's, seed by seed, with intervals; in the order of the table.

    Bars are t intervals of one pair of points alone, not adjusted for how many there are. The grey band is the margin
    inside which two points count as the same.
    """
    reference, margin = part.reference, part.margin
    bars = _bars(part, styles)
    with house_style():
        figure = new_figure(6.2, 1.15 + 0.3 * max(2, len(bars)))
        axes = figure.subplots()
        axes.axvspan(-margin, margin, color="#ececec", lw=0, zorder=0)
        axes.axvline(0, color=INK, lw=0.8, zorder=1)
        axes.set_xlim(_differences_span(bars, margin))
        heights = np.arange(len(bars))[::-1].astype(float)
        changes = [bar.standing != before.standing for before, bar in itertools.pairwise(bars)]
        heights -= 0.4 * np.cumsum([0, *changes])[: len(bars)]  # a gap above those set apart
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
        axes.set_xlabel(textwrap.fill(f"loss minus that of {reference}, nats per token (left is better)", 60))
        note = f"dots: seeds; bars: {percent(LEVEL)} t intervals, each alone"
        if all(len(bar.seeds_S) == 1 for bar in bars):
            note = "one seed, so no interval"
        note += f"; grey band: ±{margin:g}"
        title(figure, f"Loss against {reference}, paired by seed", note + mark_note(part.table))
    return figure


def _bars(part: Part, styles: dict[str, PointStyle]) -> list[_Bar]:
    table = part.table[part.table["pairs"].fillna(0) > 0]  # neither the reference nor what shares no seed with it
    return [
        _Bar(
            styles[row.label],
            (part.losses.loc[row.label] - part.losses.loc[part.reference]).dropna().to_numpy(),
            row.difference,
            row.difference_low,
            row.difference_high,
            row.standing,
        )
        for row in each(table)
    ]


def _differences_span(bars: Sequence[_Bar], margin: float) -> tuple[float, float]:
    """Limits that hold every seed; wider ones for intervals only as far as they leave the rest readable."""
    needed = [-margin, margin]
    wanted = [-margin, margin]
    for bar in bars:
        needed += [*bar.seeds_S]
        wanted += [value for value in (bar.low, bar.high) if not math.isnan(value)]
    low, high = min(needed), max(needed)
    most = 0.5 * (high - low)
    pad = 0.04 * (high - low)
    return max(low - most, min(low, *wanted)) - pad, min(high + most, max(high, *wanted)) + pad


def _draw_bar(axes: Axes, bar: _Bar, y: float) -> None:
    style = bar.style
    if not math.isnan(bar.low):
        left, right = axes.get_xlim()
        axes.plot([max(bar.low, left), min(bar.high, right)], [y, y], color=style.colour, lw=1.1, zorder=2)
        for edge, outside, head in ((left, bar.low < left, "<"), (right, bar.high > right, ">")):
            if outside:  # an arrow head where the interval leaves the picture
                axes.plot(edge, y, head, color=style.colour, ms=4, clip_on=False, zorder=4)
    if len(bar.seeds_S) > 1:
        axes.plot(bar.seeds_S, np.full(len(bar.seeds_S), y - 0.3), ".", ms=3.5, color=style.colour, mew=0, zorder=3)
    mean_mark(axes, bar.mean, y, style)


def loss_curves(part: Part, styles: dict[str, PointStyle]) -> Figure:
    """Left: loss over training, mean over seeds (band: from the lowest seed to the highest).

    Right: the same minus the reference's, seed by seed, after the first fifth of what both were trained on; left out
    where no other point has a seed of the reference. Validation loss where it was measured at least four times, else
    the training loss, smoothed.
    """
    reference = part.reference
    kind, long = one_kind(part.curves)
    long, end = paired_with(long, reference)
    with house_style():
        is_paired = end > 0
        figure = new_figure(8.6 if is_paired else 5.6, _height(len(styles)))
        left, right = figure.subplots(1, 2, width_ratios=(1, 1)) if is_paired else [figure.subplots()] * 2
        last = long["tokens"].max()
        ends: dict[str, float] = {}
        for name, style in styles.items():
            own = long[long["label"] == name]
            if not len(own):
                continue
            _curve(left, own, "loss", style)
            labelled, column = (own.dropna(subset="gap"), "gap") if is_paired else (own.dropna(subset="loss"), "loss")
            if is_paired and len(labelled):
                _curve(right, labelled, column, style)
            if len(labelled):
                ends[name] = labelled[labelled["tokens"] == labelled["tokens"].max()][column].mean()
        floor, top = long["loss"].min(), long["loss"][long["tokens"] >= EARLY * run_lengths(long)].max()
        left.set_ylim(floor - 0.06 * (top - floor), top + 0.04 * (top - floor))
        left.set_ylabel(f"{kind} loss, nats per token")
        for axes in figure.axes:
            axes.grid(axis="y")
            axes.set_xlabel("training tokens")
            axes.xaxis.set_major_locator(MaxNLocator(5))
            axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: count(x)))
        left.set_xlim(0, last)
        if is_paired:
            right.set_ylabel(f"minus that of {reference}, nats")
            right.set_xlim(LATE * end, end)
        band = "bands: from the lowest seed to the highest" if long["seed"].nunique() > 1 else "one seed"
        title(figure, "Loss over training", band + mark_note(part.table))
        labels_at_right(right, ends, styles)
    return figure


def one_kind(curves: pd.DataFrame) -> tuple[str, pd.DataFrame]:
    """The validation losses if there are enough of them, else the training losses smoothed over steps."""
    validation = curves[curves["kind"] == "validation"]
    if len(validation) and validation.groupby("key").size().min() >= 4:
        return "validation", validation
    train = curves[curves["kind"] == "train"].sort_values(["key", "step"])
    smooth = train.groupby("key")["loss"].transform(lambda s: s.ewm(span=max(2, len(s) / 20)).mean())
    return "training (smoothed)", train.assign(loss=smooth)


def run_lengths(long: pd.DataFrame) -> pd.Series:
    """Tokens at the last row of each row's run."""
    return long.groupby("key")["tokens"].transform("max")


def paired_with(long: pd.DataFrame, reference: str) -> tuple[pd.DataFrame, float]:
    """`long` with a column gap, and the tokens at which the last gap of another point stands, NaN without one.

    gap: `minus_reference` from the first fifth (LATE) of those tokens on, NaN before.
    """
    gap_L = minus_reference(long, reference)
    others_L = (long["label"] != reference).to_numpy()
    end = long["tokens"][others_L & ~np.isnan(gap_L)].max()
    return long.assign(gap=np.where(long["tokens"] >= LATE * end, gap_L, np.nan)), end


def minus_reference(long: pd.DataFrame, reference: str) -> np.ndarray:
    """Loss minus the reference's of the same seed after as many tokens, for each row of curves of one kind.

    Between tokens at which the reference was logged its loss is taken on a straight line (points may differ in their
    batch); NaN before and after those, and for a seed that the reference has not.
    """
    gap_L = np.full(len(long), np.nan)
    known = long[(long["label"] == reference) & long["loss"].notna()].sort_values("tokens")
    seed_L, tokens_L = long["seed"].to_numpy(), long["tokens"].to_numpy(dtype=float)
    for seed, base in known.groupby("seed"):
        own_L = seed_L == seed
        there = np.interp(tokens_L[own_L], base["tokens"], base["loss"], left=np.nan, right=np.nan)
        gap_L[own_L] = long["loss"].to_numpy()[own_L] - there
    return gap_L


def _curve(axes: Axes, long: pd.DataFrame, column: str, style: PointStyle) -> None:
    by_step = long.groupby("tokens")[column]
    mean, low, high = by_step.mean(), by_step.min(), by_step.max()
    axes.fill_between(mean.index, low, high, color=style.colour, alpha=0.13, lw=0)
    axes.plot(mean.index, mean, color=style.colour, ls=style.line)


def _height(labels: int) -> float:
    """Inches that give every label in the right margin its line."""
    return max(3.3, 1.0 + 0.165 * labels)


def mark_note(table: pd.DataFrame) -> str:
    """The meaning of the marks that points of the table carry."""
    leaks = f"; {LEAK_MARK} routing reads later tokens" if table["leaks"].eq(True).any() else ""
    return leaks + (f"; {APART_MARK} lacks seeds" if table["standing"].eq(APART).any() else "")


def _with_results(table: pd.DataFrame) -> pd.DataFrame:
    return table[table["standing"] != NO_RESULT]
