"""Numbers, marks and aligned columns as people read them: one form for tables, pictures and sentences."""

import math
import re
from collections.abc import Iterator, Sequence

LEAK_MARK = "†"
BATCH_MARK = "‡"
APART_MARK = "§"
NOTHING = "–"


def count(value: float) -> str:
    """1234567 as "1.23M"."""
    if value is None or math.isnan(value):
        return NOTHING
    if math.isinf(value):
        return f"{value:g}"
    for size, unit in ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


def duration(seconds: float) -> str:
    """Wall clock as "41s", "3m12s", "2h05m"."""
    if math.isnan(seconds):
        return NOTHING
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.0f}s" if seconds >= 10 else f"{seconds:.1f}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


def natural(text: str) -> tuple[str | int, ...]:
    """A key to sort texts by, numbers in them by their size: width 64 before width 128."""
    return tuple(int(piece) if piece.isdecimal() else piece for piece in re.split(r"(\d+)", text))


def number(value: float | None, form: str) -> str:
    """`value` in a format such as "{:.4f}"; a dash where there is none."""
    return NOTHING if value is None or math.isnan(value) else form.format(value)


def percent(level: float) -> str:
    """A level of confidence: 0.95 as "95%", 0.99444 as "99.44%"."""
    return f"{100 * level:.4g}%"


def with_bounds(mean: float, low: float, high: float, form: str) -> str:
    """A mean in a format such as "+.3f", with its interval if it has one."""
    return f"{mean:{form}}" if math.isnan(low) else f"{mean:{form}} [{low:{form}}, {high:{form}}]"


def with_leak_mark(label: str, leaks: bool) -> str:
    """The label of a point, with a mark where its routing reads later tokens."""
    return f"{label} {LEAK_MARK}" if leaks else label


def aligned(rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> Iterator[str]:
    """Lines of equal columns, two spaces apart; the columns in `right` are set to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [
            cell.rjust(width) if place in right else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()
