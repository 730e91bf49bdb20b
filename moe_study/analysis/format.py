"""Numbers and marks as people read them: one form for tables, pictures and sentences."""

import math

LEAK_MARK = "†"
BATCH_MARK = "‡"


def count(value: float) -> str:
    """1234567 as "1.23M"."""
    if value is None or math.isnan(value):
        return "–"
    for size, unit in ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


def duration(seconds: float) -> str:
    """Wall clock as "41s", "3m12s", "2h05m"."""
    if math.isnan(seconds):
        return "–"
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.0f}s" if seconds >= 10 else f"{seconds:.1f}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
