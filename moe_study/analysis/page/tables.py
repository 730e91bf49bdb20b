"""Tables of the page: cells of text, each with the value that it is sorted by."""

import math
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from moe_study.analysis.comparison import Comparison
from moe_study.analysis.effects.costs import Cost
from moe_study.analysis.format import APART_MARK, BATCH_MARK, LEAK_MARK, NOTHING, count, number, percent
from moe_study.analysis.frame import each
from moe_study.analysis.scores import score_cells
from moe_study.analysis.sections import section_tables
from moe_study.analysis.study import Part
from moe_study.analysis.table_text import columns_of, marks_by_label, notes_of
from moe_study.analysis.tables_out import Cells
from moe_study.analysis.wording import best_first

MOST_ROWS = 500  # of one table
NUMBER = re.compile(r"[-+]?[0-9]+(?:[.][0-9]+)?")
COSTS = {cost.value: cost.words for cost in Cost}
TITLES = {
    "equal_cost": "At equal cost",
    "equal_loss": "Cost at equal loss",
    "effects": "Effects of crossed settings",
    "trends": "Differences over size, per doubling",
    "pareto": "Pareto fronts",
    "power": "What these seeds could have seen",
    "leak_price": "The price of reading later tokens",
}
MARKS = {
    LEAK_MARK: "its routing reads later tokens",
    BATCH_MARK: "its routing reads other sequences of the batch",
    APART_MARK: "it lacks seeds that others have",
}


@dataclass(frozen=True)
class Cell:
    """What stands there, and what it is sorted by: a number or a text; None comes last."""

    text: str
    value: float | str | None = None

    @property
    def key(self) -> str:
        return "" if self.value is None else str(self.value)


@dataclass(frozen=True)
class Column:
    name: str
    is_number: bool
    note: str = ""  # what it means, where the name does not say it


@dataclass(frozen=True)
class Table:
    """One table with its notes; the first cell of a row names it."""

    id: str
    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    notes: Sequence[str] = ()


def tables_of(part: Part, prefix: str) -> Iterator[Table]:
    """All tables of a part that have rows."""
    yield points_table(part, prefix)
    compared = comparisons_table(part, prefix)
    if compared.rows:
        yield compared
    marks = marks_by_label(part.table)
    for name, frame, columns in section_tables(part):
        title = TITLES.get(name, name.replace("_", " "))
        yield table_of_frame(frame[columns], f"{prefix}{name.replace('_', '-')}", title, marks=marks)
    if len(part.scores):
        yield table_of_cells(score_cells(part.scores, part.reference, marks), f"{prefix}scores", "Downstream scores")


def points_table(part: Part, prefix: str) -> Table:
    """Every point with its seeds, loss, costs and marks: the table that `moe-study plots` prints."""
    table = part.table[part.table["is_point"]]
    texts = columns_of(table)
    columns = [Column(name, place > 0) for place, name in enumerate(texts)]
    rows = [
        [Cell(text(row), _sort_value(name, row)) for name, text in texts.items()] for row in each(table.head(MOST_ROWS))
    ]
    return Table(f"{prefix}points", "Points", columns, rows, [*notes_of(table), *part.mixed, *_left_out(len(table))])


def _sort_value(name: str, row: Any) -> float | str | None:
    names = {
        "point": "label", "seeds": "seeds", "loss": "loss", "perplexity ×/÷ sd": "perplexity",
        "bits/byte": "bits_per_byte", "accuracy ± sd": "accuracy", "params": "num_params",
        "active": "executed_active_params", "FLOPs/token": "executed_flops_per_token",
        "experts/token": "executed_per_token", "time": "train_seconds", "tokens/s": "tokens_per_second",
    }  # fmt: skip
    return known(getattr(row, names.get(name, "difference")))


def known(value: Any) -> float | str | None:
    """A value to sort by; None where there is none."""
    if value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value)):
        return None
    return str(value) if isinstance(value, str) else float(value)


def comparisons_table(part: Part, prefix: str) -> Table:
    """Every comparison, those that were tested first, with the interval that each was judged by."""
    level = percent(0.95)
    columns = [
        Column("comparison", False),
        Column("verdict", False),
        Column("difference", True, "nats per token; negative: the first has the lower loss"),
        Column(f"{level} interval, alone", True),
        Column("interval as tested", True, "at the level at which Holm's procedure decided"),
        Column("p", True, "Holm-adjusted over the family"),
        Column("p same", True, "of a difference beyond the margin: small where the two are the same; Holm-adjusted"),
        Column("margin", True),
        Column("seeds", True),
        Column("seeds needed", True),
        Column("differs in", False),
    ]
    found = [*best_first(part.comparisons), *part.others]
    marks = marks_by_label(part.table)
    rows = [_comparison(c, marks) for c in found[:MOST_ROWS]]
    return Table(f"{prefix}comparisons", "Comparisons", columns, rows, _left_out(len(found)))


def _comparison(c: Comparison, marks: Mapping[str, str]) -> list[Cell]:
    d = c.difference
    name = f"{marked(c.point, marks)} against {marked(c.against, marks)}"
    return [
        Cell(name, name),
        Cell(c.verdict.value, c.verdict.value),
        Cell(number(d.mean, "{:+.4f}"), known(d.mean)),
        Cell(span(d.low, d.high), known(d.low)),
        Cell(span(c.interval.low, c.interval.high), known(c.interval.low)),
        Cell(number(c.p, "{:.3g}"), known(c.p)),
        Cell(number(c.p_same, "{:.3g}") if c.family else NOTHING, known(c.p_same) if c.family else None),
        Cell(f"{c.margin:g}", c.margin),
        Cell(str(d.n), d.n),
        Cell(NOTHING if c.seeds_needed is None else str(c.seeds_needed), known(c.seeds_needed)),
        Cell(", ".join(c.differs_in) or NOTHING, ", ".join(c.differs_in)),
    ]


def marked(label: str, marks: Mapping[str, str]) -> str:
    """The label, with the marks that it has in `marks`."""
    return f"{label} {marks[label]}" if label in marks else label


def leak_marker(labels: Iterable[str], leaking: Collection[str]) -> Callable[[str], str]:
    """What marks, in any sentence, the points of `leaking` among `labels` that do not carry their mark yet."""
    longest_first = sorted(set(labels), key=len, reverse=True)  # "token top-2, frozen" is not "token top-2"
    named = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, longest_first))})(?![\w{LEAK_MARK}])(?! {LEAK_MARK})")

    def mark(sentence: str) -> str:
        return named.sub(lambda found: marked(found.group(), dict.fromkeys(leaking, LEAK_MARK)), sentence)

    return mark if leaking else str


def span(low: float, high: float) -> str:
    """The ends of an interval."""
    return NOTHING if math.isnan(low) else f"{low:+.4f} to {high:+.4f}"


def table_of_frame(
    frame: pd.DataFrame, id: str, title: str, notes: Sequence[str] = (), marks: Mapping[str, str] | None = None
) -> Table:
    """Any frame of named columns; a number and the ends of its interval become one column.

    Ends are NAME_low and NAME_high, or low and high, which belong to the column before them. Labels that have `marks`
    get them.
    """
    ends = _ends([str(name) for name in frame])
    shown = [str(name) for name in frame if not any(name in pair for pair in ends.values())]
    columns = [Column(name.replace("_", " "), _is_number(frame[name])) for name in shown]
    rows = [
        [_cell(row, name, ends.get(name), marks or {}) for name in shown]
        for row in frame.head(MOST_ROWS).to_dict("records")
    ]
    return Table(id, title, columns, rows, [*notes, *_left_out(len(frame))])


def table_of_cells(cells: Cells, id: str, title: str) -> Table:
    """A table as files have it (tables_out.py); cells are sorted by the first number in them, or as text."""
    columns = [Column(name, place not in cells.text_columns) for place, name in enumerate(cells.header)]
    values = [_first_number if column.is_number else str for column in columns]
    rows = [
        [Cell(text, value(text)) for text, value in zip(row, values, strict=True)] for row in cells.rows[:MOST_ROWS]
    ]
    return Table(id, title, columns, rows, [*cells.notes, *_left_out(len(cells.rows))])


def _first_number(text: str) -> float | None:
    found = NUMBER.search(text)
    return float(found.group()) if found else None


def _ends(names: Sequence[str]) -> dict[str, tuple[str, str]]:
    """By column, those that hold the ends of its interval."""
    found = {name: (f"{name}_low", f"{name}_high") for name in names if {f"{name}_low", f"{name}_high"} <= {*names}}
    if {"low", "high"} <= {*names} and names.index("low") > 0:
        found[names[names.index("low") - 1]] = ("low", "high")
    return found


def _is_number(values: "pd.Series[Any]") -> bool:
    return bool(pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values))


def _cell(row: Mapping[Any, Any], name: str, ends: tuple[str, str] | None, marks: Mapping[str, str]) -> Cell:
    value = row[name]
    if isinstance(value, str):
        text = marked(COSTS.get(value, value), marks)
        return Cell(text or NOTHING, text or None)
    sort = known(value)
    if sort is None:
        return Cell(NOTHING)
    if isinstance(value, bool):
        return Cell("yes" if value else "no", float(value))
    text = _number(float(sort))
    low, high = (known(row[end]) for end in ends or (name, name))
    if ends and low is not None and high is not None:
        text += f" ({_number(float(low))} to {_number(float(high))})"
    return Cell(text, sort)


def _number(value: float) -> str:
    if not math.isfinite(value):
        return f"{value:g}"
    if value == int(value) and abs(value) < 10_000:
        return f"{value:.0f}"
    return count(value) if abs(value) >= 10_000 else f"{value:.4f}" if abs(value) >= 1e-3 else f"{value:.2g}"


def _left_out(rows: int) -> list[str]:
    return [f"The first {MOST_ROWS} of {rows} rows; `moe-study plots` writes all"] if rows > MOST_ROWS else []
