"""What token and sequence routing attend to, for a reader who has not asked: a line for each point.

    token top-2 (4 seeds): 9.7% of which token it is in layer 0 (0.4% by chance; shown); 6.4% of its language in layer 1
    (0.2% by chance; not shown); 0.4% of its topic in layer 1 (0.3% by chance; not shown)
"""

from collections.abc import Iterator, Sequence

import numpy as np

from moe_study.analysis.format import with_leak_mark
from moe_study.analysis.specialisation.points import Point, PointRow
from moe_study.analysis.specialisation.sentences import LEAK_NOTE

MOST_POINTS = 8
LABELS = {"token id": "which token it is", "language": "its language", "topic": "its topic"}  # of the default probe


def closing_lines(points: Sequence[Point], about: str, more: str) -> Iterator[str]:
    """`about` describes the probe in some words, `more` is the command that says more."""
    asked = [point for point in points if not point.dense]
    if not asked:
        yield "What do experts attend to? No run has experts"
        return
    yield f"What do experts attend to? Of what there is to know of a token, its experts tell ({about}):"
    for point in asked[:MOST_POINTS]:
        seeds = len(point.seeds)
        name = f"{with_leak_mark(point.label, point.leaks)} ({seeds} seed{'s' if seeds > 1 else ''})"
        parts = [part for label in LABELS if (part := _told(point, label))]
        yield f"  {name}: {'; '.join(parts) or 'nothing that could be measured'}"
    if len(asked) > MOST_POINTS:
        yield f"  (and {len(asked) - MOST_POINTS} more points)"
    yield (
        "In brackets what they would tell by chance, labels dealt out anew over the texts (tokens within each)."
        " Shown: more than that, for other seeds and other texts, too. Not shown does not mean absent"
    )
    if any(point.leaks for point in asked[:MOST_POINTS]):
        yield LEAK_NOTE
    yield f"More: {more}"


def _told(point: Point, label: str) -> str:
    """Of the layer whose experts tell the most beyond chance, among those where it is shown if there are any."""
    rows = [row for row in point.rows if row.question == (label, "") and not np.isnan(row.over_seeds.excess.mean)]
    if not rows:
        return ""
    row = max([row for row in rows if row.shown] or rows, key=lambda row: row.over_seeds.excess.mean)
    return f"{_percent(row.over_seeds.value.mean)} of {LABELS[label]} in layer {row.layer} ({_chance(point, row)})"


def _chance(point: Point, row: PointRow) -> str:
    verdict = "one seed, not tested" if not point.tested else "shown" if row.shown else "not shown"
    return f"{_percent(row.over_seeds.null_mean)} by chance; {verdict}"


def _percent(value: float) -> str:
    return f"{100 * value:.1f}%"
