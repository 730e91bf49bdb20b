"""Points over seeds in files: every number as CSV, and the sentences with a table of them as markdown."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from moe_study.analysis.format import LEAK_MARK, number
from moe_study.analysis.specialisation.points import Point, PointRow, to_frame
from moe_study.files import write_text_atomic

HEADER = (
    "point", "seeds", "layer", "label", "given", "information", "null", "excess", "interval", "p seeds", "p documents",
    "adjusted",
)  # fmt: skip


def write_report(points: Sequence[Point], lines: Sequence[str], out: Path) -> list[Path]:
    """specialisation.csv (all digits) and specialisation.md (`lines`, then the table); what was written."""
    texts = {
        "specialisation.csv": to_frame(points).to_csv(index=False),
        "specialisation.md": "\n".join([*map(_as_item, lines), "", *_table(points)]) + "\n",
    }
    for name, text in texts.items():
        write_text_atomic(out / name, text)
    return [out / name for name in texts]


def _as_item(line: str) -> str:
    return f"- {line.strip()}" if line.startswith(" ") else f"\n{line}\n"


def _table(points: Sequence[Point]) -> Iterator[str]:
    yield f"| {' | '.join(HEADER)} |"
    yield "|---|" + "---:|" * 2 + "---|" * 2 + "---:|" * (len(HEADER) - 5)
    for point in points:
        for row in point.rows:
            cells = (cell.replace("|", "\\|") for cell in _cells(point, row))
            yield f"| {' | '.join(cells)} |"


def _cells(point: Point, row: PointRow) -> list[str]:
    of = row.over_seeds
    return [
        f"{point.label} {LEAK_MARK}" if point.leaks else point.label,
        str(len(point.seeds)),
        str(row.layer),
        of.label,
        of.given,
        *(number(value, "{:z.4f}") for value in (of.value.mean, of.null_mean, of.excess.mean)),
        f"{number(of.excess.low, '{:z.4f}')} to {number(of.excess.high, '{:z.4f}')}",
        *(number(value, "{:z.4f}") for value in (of.p_seeds, of.p_documents, row.p_adjusted)),
    ]
