"""What else was measured of the points' experts, in a line for each point: beside hidden states, a label router, load
and distances of domains. All numbers are means over seeds, intervals are over seeds; tables hold the rest.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from moe_study.analysis.format import with_bounds, with_leak_mark
from moe_study.analysis.specialisation.over_runs import ENDS, RunFindings, over_seeds_of
from moe_study.analysis.specialisation.points import MeasuredRun, PointRow, Question, measured_run, points_of
from moe_study.analysis.specialisation.run_tables import CLUSTER, CONTROL, CONTROL_TOKENS, TOKEN_ID

ALIKE = f"hidden states are alike (as many {CLUSTER}s of what routers read as experts, first {CONTROL_TOKENS:,} tokens)"


def answers(runs: Sequence[RunFindings]) -> Iterator[str]:
    """A heading for each measure that was made, and a line for each point with experts under it."""
    yield from _block(f"What is left of what experts know of labels where {ALIKE}?", control_lines(runs))
    for heading, name, line in MEASURES:
        table = over_seeds_of(runs, name)
        by_point = table.groupby("point", sort=False)
        yield from _block(heading, (f"{_name(point, own)}: {line(own)}" for point, own in by_point))


def _block(heading: str, lines: Iterator[str]) -> Iterator[str]:
    """Nothing where there is no line."""
    for place, line in enumerate(lines):
        if place == 0:
            yield heading
        yield f"  {line}"


def control_lines(runs: Sequence[RunFindings]) -> Iterator[str]:
    """What is left of the expert's information among tokens of one cluster: of each label in the layer that knows most.

    Where even there the expert's own may be nothing, there is nothing to ask. Intervals and nulls are taken each alone.
    """
    controlled = [run for run in runs if CONTROL in run.tables and len(run.tables[CONTROL])]
    for point in points_of([_controlled(run) for run in controlled]):
        by_place = {(row.layer, row.question): row for row in point.rows}
        most: dict[Question, PointRow] = {}  # what is left of it -> the expert's own
        for row in sorted(point.rows, key=lambda row: row.over_seeds.excess.mean):
            if (left := _left_of(row.question)) and _knows(row):
                most[left] = row
        parts = [_left(row, by_place[row.layer, left]) for left, row in most.items()]
        name = with_leak_mark(point.label, point.leaks)
        yield f"{name}: {'; '.join(parts) or 'what its experts know of labels here may be nothing'}"


def _controlled(run: RunFindings) -> MeasuredRun:
    """A run as `points_of` takes it: what is given is led by what knows it, the expert or the cluster."""
    table = run.tables[CONTROL]
    given = [f"{of}, {given}" for of, given in zip(table["of"], table["given"], strict=True)]
    return measured_run(run.point, run.seed, run.leaks, table.assign(given=given))


def _left_of(question: Question) -> Question | None:
    """The question of what is left, for that of what the expert knows at all."""
    left = {"expert, ": f"expert, {CLUSTER}", f"expert, {TOKEN_ID}": f"expert, {TOKEN_ID} and {CLUSTER}"}
    return Question(question.label, left[question.given]) if question.given in left else None


def _knows(row: PointRow) -> bool:
    """Whether the interval over seeds lies above zero and the mean above its null's band; of one seed, the latter."""
    of = row.over_seeds
    return not of.excess.low <= 0 and of.excess.mean > 0 and of.value.mean > of.null_high


def _left(own: PointRow, left: PointRow) -> str:
    label = own.question.label if own.question.given == "expert, " else f"{own.question.label} beyond {TOKEN_ID}"
    remains = "is left" if _knows(left) else "is left, which may be nothing"
    return f"of {_of(own)} about {label} in layer {own.layer}, {_of(left)} {remains}"


def _of(row: PointRow) -> str:
    excess = row.over_seeds.excess
    return _interval(excess.mean, excess.low, excess.high, "z.4f")


def _agreement(table: pd.DataFrame) -> str:
    parts = []
    for label, own in table.groupby("label", sort=False):
        row = _largest(own, own["share"] - own["chance"])
        bounds = f"chance {row['chance']:.3f}, at best {row['bound']:.3f}"
        parts.append(f"by {label} {_share(row, 'share')} of the tokens in layer {row['layer']} ({bounds})")
    return ", ".join(parts)


def _load(table: pd.DataFrame) -> str:
    row = _largest(table, table["largest_violation"])
    mean, low, high = (1 + row[f"largest_violation{end}"] for end in ENDS)
    busiest = _interval(mean, low, high, ".2f")
    parts = [f"the busiest expert takes {busiest} times an even share in layer {row['layer']}"]
    if (unused := table["unused"].sum()) > 0:
        parts.append(f"{unused:.2g} experts are not used")
    if (dropped := table["dropped"].max()) > 0:
        parts.append(f"{dropped:.1%} of the picks are dropped")
    return ", ".join(parts)


def _distances(table: pd.DataFrame) -> str:
    parts = []
    for label, own in table.groupby("label", sort=False):
        row = _largest(own, own["distance"] - own["floor"])
        pair = f"{row['first']} and {row['second']} in layer {row['layer']}"
        parts.append(f"by {label} {_share(row, 'distance')} of {pair} (within one {label} {row['floor']:.3f})")
    return "; ".join(parts)


MEASURES: tuple[tuple[str, str, Callable[[pd.DataFrame], str]], ...] = (
    ("Where do tokens go as a router by label would send them (the layer where most)?", "agreement", _agreement),
    ("How even is the load (the least even layer)?", "load", _load),
    ("How differently are domains routed (the two furthest apart; 0 is alike, 1 apart)?", "distances", _distances),
)


def _largest(table: pd.DataFrame, by: pd.Series) -> dict[Any, Any]:
    """The row with the largest value; the first where none has one."""
    rows = table.to_dict("records")
    return rows[int(np.nanargmax(by.to_numpy()))] if by.notna().any() else rows[0]


def _share(row: dict[Any, Any], name: str) -> str:
    """A number between 0 and 1, as are the ends of its interval."""
    mean, low, high = (float(np.clip(row[f"{name}{end}"], 0, 1)) for end in ENDS)
    return _interval(mean, low, high, ".3f")


def _interval(mean: float, low: float, high: float, form: str) -> str:
    """The mean with its interval over seeds, if it has one."""
    return "no number" if np.isnan(mean) else with_bounds(mean, low, high, form)


def _name(point: Any, table: pd.DataFrame) -> str:
    return with_leak_mark(str(point), bool(table["leaks"].any()))
