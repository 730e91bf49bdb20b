"""What was found in files: every number as CSV, and the sentences with tables for readers as markdown.

specialisation.md, .csv    the sentences and tables; information of points over seeds
NAME.csv                   any other measure of points over seeds (over_runs.OVER_SEEDS)
by_run/NAME.csv            every measure run by run, with the columns that run_tables lists
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from moe_study.analysis.format import NOTHING, number, with_leak_mark
from moe_study.analysis.specialisation.over_runs import ENDS, OVER_SEEDS, RunFindings, by_run, over_seeds_of
from moe_study.analysis.specialisation.points import Point, PointRow, to_frame
from moe_study.analysis.specialisation.run_tables import COLUMNS, CONTROL
from moe_study.analysis.tables_out import csv_text
from moe_study.files import write_text_atomic

HEADER = (
    "point", "seeds", "layer", "label", "given", "information", "null", "excess", "interval", "p seeds", "p documents",
    "adjusted",
)  # fmt: skip
MOST_ROWS = 100  # of a table for readers
HEADINGS = {
    CONTROL: "Experts and clusters of what their routers read: information about labels",
    "agreement": "Agreement with a router by label",
    "load": "Load, its evenness, and the router's entropy (nats) and margin",
    "distances": "Jensen-Shannon distances of domains",
    "committee": "Standing committees",
    "co_activation": "Co-activation",
    "paths": "Paths through the layers",
}


def write_report(points: Sequence[Point], runs: Sequence[RunFindings], lines: Sequence[str], out: Path) -> list[Path]:
    """What was written; measures that no run has have no file."""
    over_seeds = {name: table for name in OVER_SEEDS if len(table := over_seeds_of(runs, name))}
    each_run = {name: table for name in COLUMNS if len(table := by_run(runs, name))}
    sections = (line for name, table in over_seeds.items() for line in _section(name, table))
    texts = {
        "specialisation.md": "\n".join([*map(_as_item, lines), "", *_information(points), *sections]) + "\n",
        "specialisation.csv": csv_text(to_frame(points)),
        **{f"{name}.csv": csv_text(table) for name, table in over_seeds.items()},
        **{f"by_run/{name}.csv": csv_text(table) for name, table in each_run.items()},
    }
    for name, text in texts.items():
        write_text_atomic(out / name, text)
    return [out / name for name in texts]


def _as_item(line: str) -> str:
    return f"- {line.strip()}" if line.startswith(" ") else f"\n{line}\n"


def _information(points: Sequence[Point]) -> Iterator[str]:
    yield _row(HEADER)
    yield "|---|" + "---:|" * 2 + "---|" * 2 + "---:|" * (len(HEADER) - 5)
    for point in points:
        yield from (_row(_cells(point, row)) for row in point.rows)


def _section(name: str, table: pd.DataFrame) -> Iterator[str]:
    """A heading and the table of one measure: means over seeds, with their intervals where there are seeds enough."""
    by, of = OVER_SEEDS[name]
    yield from ("", f"## {HEADINGS[name]}", "")
    if len(table) > MOST_ROWS:
        yield f"{len(table)} rows: {name}.csv"
        return
    header = ("point", "seeds", *by, *(number.replace("_", " ") for number in of))
    yield _row(header)
    yield "|---|---:|" + "---|" * len(by) + "---:|" * len(of)
    for row in table.to_dict("records"):
        point = with_leak_mark(row["point"], row["leaks"])
        numbers = (_interval(*(row[f"{name}{end}"] for end in ENDS)) for name in of)
        yield _row((point, str(row["seeds"]), *(str(row[key]) for key in by), *numbers))


def _interval(mean: float, low: float, high: float) -> str:
    """The mean with its interval over seeds, where it has one that is not a point."""
    if np.isnan(mean):
        return NOTHING
    return f"{mean:z.4f}" if np.isnan(low) or low == high else f"{mean:z.4f} ({low:z.4f} to {high:z.4f})"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _cells(point: Point, row: PointRow) -> list[str]:
    of = row.over_seeds
    return [
        with_leak_mark(point.label, point.leaks),
        str(len(point.seeds)),
        str(row.layer),
        of.label,
        of.given,
        *(number(value, "{:z.4f}") for value in (of.value.mean, of.null_mean, of.excess.mean)),
        f"{number(of.excess.low, '{:z.4f}')} to {number(of.excess.high, '{:z.4f}')}",
        *(number(value, "{:z.4f}") for value in (of.p_seeds, of.p_documents, row.p_adjusted)),
    ]
