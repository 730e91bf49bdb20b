"""Comparisons in words that claim no more than the seeds carry, and as rows for CSV."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

import pandas as pd

from moe_study.analysis.absent import AbsentRun, reasons, states
from moe_study.analysis.comparison import Comparison, Verdict
from moe_study.analysis.format import LEAK_MARK, percent
from moe_study.analysis.statistics import MOST_SEEDS, POWER, Interval

HOW_TO_READ = (
    "An interval stands at the level at which Holm's procedure decided that comparison: it excludes 0 exactly where a "
    "difference is called, and lies within the margin exactly where two are called the same. Seeds that it would take: "
    f"for a chance of {percent(POWER)}, if difference and noise are as measured (normal, paired by seed)."
)


def sentence(c: Comparison, leaking: Collection[str] = ()) -> str:
    """What one comparison shows, in one line; the labels of `leaking` carry their mark."""
    point, against = (f"{name} {LEAK_MARK}" if name in leaking else name for name in (c.point, c.against))
    return _claim(c, point, against) + (" (asked after results were there)" if c.asked.late else "")


def _claim(c: Comparison, point: str, against: str) -> str:
    d = c.difference
    better = "lower" if d.mean < 0 else "higher"
    match c.verdict:
        case Verdict.NO_PAIR:
            return f"{point} and {against} share no finished seed, so they cannot be compared"
        case Verdict.ONE_PAIR:
            return (
                f"{point} against {against}: {better} by {abs(d.mean):.4f} at the one seed they share; one pair has no "
                "interval, so this may be chance"
            )
        case Verdict.LOWER | Verdict.HIGHER:
            low, high = sorted((abs(c.interval.low), abs(c.interval.high)))
            small = f", less than the margin of {c.margin:g}" if high < c.margin else ""
            return (
                f"{point} has {better} loss than {against} by {abs(d.mean):.4f} nats per token "
                f"({low:.4f} to {high:.4f}, {_basis(c.interval)}){small}"
            )
        case Verdict.SAME:
            return f"{point} and {against} are the same within {c.margin:g} nats per token: {_span(c.same_interval)}"
        case Verdict.NOT_PLANNED:
            return f"{point} against {against}: {_span(d)}; not planned, so not tested"
        case _:
            return f"{point} against {against} cannot be told apart: {_span(c.interval)}; {_seeds_it_would_take(c)}"


def _seeds_it_would_take(c: Comparison) -> str:
    if c.seeds_needed is None:
        return f"it would take more than {MOST_SEEDS} seeds"
    if c.seeds_needed <= c.difference.n:
        return f"about {c.seeds_needed} seeds decide such a case four times in five, so a few more may do"
    return f"about {c.seeds_needed} seeds would decide it"


def _span(interval: Interval) -> str:
    return f"{interval.mean:+.4f} ({interval.low:+.4f} to {interval.high:+.4f}, {_basis(interval)})"


def _basis(interval: Interval) -> str:
    return f"{percent(interval.level)} interval, {interval.n} seeds"


def best_first(comparisons: Iterable[Comparison]) -> list[Comparison]:
    """Decided ones by what the point gains, largest gain first; then the others, easiest to decide first."""
    found = list(comparisons)
    decided = sorted((c for c in found if c.decided), key=lambda c: c.difference.mean)
    others = [c for c in found if not c.decided]
    others.sort(key=lambda c: (c.difference.n < 2, c.seeds_needed or MOST_SEEDS + 1))
    return decided + others


def to_frame(
    comparisons: Sequence[Comparison], absent: Sequence[AbsentRun] = (), leaking: Collection[str] = ()
) -> pd.DataFrame:
    """One row per comparison, with its verdict and sentence, for CSV.

    `low` and `high` are those of the pair alone at `level`; the `_tested` ones are those that the verdict stands on.
    Runs without a result stand in `absent_states` and `absent_reasons` of the comparisons of their points; those of
    no comparison have rows of their own, whose verdict is "no result".
    """
    rows = list(_rows(comparisons, absent, leaking))
    named = {label for c in comparisons for label in (c.point, c.against)}
    for run in absent:
        if run.label not in named:
            found = {"absent_states": states([run]), "absent_reasons": reasons([run])}
            rows.append({"point": run.label, "verdict": "no result", **found, "sentence": run.sentence})
    frame = pd.DataFrame(rows)
    counts = [name for name in ("n", "family", "seeds_needed") if name in frame]
    return frame.astype(dict.fromkeys(counts, "Int64"))  # whole numbers also where some are not there


def _rows(
    comparisons: Sequence[Comparison], absent: Sequence[AbsentRun], leaking: Collection[str]
) -> Iterator[dict[str, Any]]:
    for c in comparisons:
        own = [run for run in absent if run.label in (c.point, c.against)]
        row: dict[str, Any] = {"question": c.asked.question, "point": c.point, "against": c.against}
        row.update(verdict=c.verdict.value, **asdict(c.difference))
        row.update(p_holm=c.p, p_same_holm=c.p_same, margin=c.margin, family=c.family, asked_late=c.asked.late)
        for name, interval in (("tested", c.interval), ("same_tested", c.same_interval)):
            row.update({f"low_{name}": interval.low, f"high_{name}": interval.high, f"level_{name}": interval.level})
        row.update(seeds_needed=c.seeds_needed, differs_in=" ".join(c.differs_in))
        row.update(leaks=bool({c.point, c.against} & set(leaking)))
        row.update(absent_states=states(own), absent_reasons=reasons(own), sentence=sentence(c, leaking))
        yield row
