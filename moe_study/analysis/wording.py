"""Comparisons in words that claim no more than the seeds carry, and as rows for CSV."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

import pandas as pd

from moe_study.analysis.absent import AbsentRun, reasons, states
from moe_study.analysis.comparison import Comparison, OneTested, Tested, Verdict
from moe_study.analysis.format import percent, with_leak_mark
from moe_study.analysis.statistics import MOST_SEEDS, POWER, Interval

HOW_TO_READ = (
    "An interval stands at the level at which Holm's procedure decided that comparison: it excludes 0 exactly where a "
    "difference is called, and lies within the margin exactly where two are called the same. Seeds that it would take: "
    f"for a chance of {percent(POWER)}, if difference and noise are as measured (normal, paired by seed)."
)

UNTESTED = "; not planned, so not tested"


def sentence(c: Comparison, leaking: Collection[str] = ()) -> str:
    """What one comparison shows, in one line; the labels of `leaking` carry their mark."""
    point, against = (with_leak_mark(name, name in leaking) for name in (c.point, c.against))
    return _claim(c, point, against) + (" (asked after results were there)" if c.asked.late else "")


def _claim(c: Comparison, point: str, against: str) -> str:
    absent = f"{point} and {against} share no finished seed, so they cannot be compared"
    return plain_sentence(c, point, against, absent=absent)


def plain_sentence(c: Tested, left: str, right: str, where: str = "", *, absent: str) -> str:
    """What is tested (or was measured) of `left` minus `right`; `absent` where no seed has both.

    `where` stands behind the two (" at equal cost").
    """
    d = c.difference
    better = "lower" if d.mean < 0 else "higher"
    match c.verdict:
        case Verdict.NO_PAIR:
            return absent
        case Verdict.ONE_PAIR:
            return (
                f"{left} against {right}{where}: {better} by {abs(d.mean):.4f} at the one seed they share; one pair "
                "has no interval, so this may be chance"
            )
        case Verdict.LOWER | Verdict.HIGHER:
            low, high = sorted((abs(c.interval.low), abs(c.interval.high)))
            small = f", less than the margin of {c.margin:g}" if high < c.margin else ""
            return (
                f"{left} has {better} loss than {right}{where} by {abs(d.mean):.4f} nats per token "
                f"({low:.4f} to {high:.4f}, {basis(c.interval)}){small}"
            )
        case Verdict.SAME:
            return f"{left} and {right}{where} are the same within {c.margin:g} nats per token: {span(c.same_interval)}"
        case Verdict.NOT_PLANNED:
            return f"{left} against {right}{where}: {span(d)}{UNTESTED}"
        case _:
            return f"{left} against {right}{where} cannot be told apart: {span(c.interval)}; {seeds_it_would_take(c)}"


def seeds_it_would_take(c: Tested) -> str:
    """How many seeds would decide it, in words."""
    if c.seeds_needed is None:
        return f"it would take more than {MOST_SEEDS} seeds"
    if c.seeds_needed <= c.difference.n:
        return f"about {c.seeds_needed} seeds decide such a case four times in five, so a few more may do"
    return f"about {c.seeds_needed} seeds would decide it"


def span(interval: Interval) -> str:
    """A mean with its interval."""
    return f"{interval.mean:+.4f} ({interval.low:+.4f} to {interval.high:+.4f}, {basis(interval)})"


def basis(interval: Interval) -> str:
    """What an interval stands on: its level and its seeds."""
    return f"{percent(interval.level)} interval, {interval.n} seeds"


def best_first(tested: Iterable[OneTested]) -> list[OneTested]:
    """Decided ones by what is gained, largest gain first; then the others, easiest to decide first."""
    found = list(tested)
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
        row.update(tested_columns(c, c.asked.late), differs_in=" ".join(c.differs_in))
        row.update(leaks=bool({c.point, c.against} & set(leaking)))
        row.update(absent_states=states(own), absent_reasons=reasons(own), sentence=sentence(c, leaking))
        yield row


def tested_columns(c: Tested, late: bool) -> dict[str, Any]:
    """What was tested, for one row of CSV: the verdict, the difference alone, and what the verdict stands on."""
    row: dict[str, Any] = {"verdict": c.verdict.value, **asdict(c.difference)}
    row.update(p_holm=c.p, p_same_holm=c.p_same, margin=c.margin, family=c.family, asked_late=late)
    for name, interval in (("tested", c.interval), ("same_tested", c.same_interval)):
        row.update({f"low_{name}": interval.low, f"high_{name}": interval.high, f"level_{name}": interval.level})
    return row | {"seeds_needed": c.seeds_needed}
