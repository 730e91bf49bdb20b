"""Comparisons in words that claim no more than the seeds carry, and as rows for CSV."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from moe_study.analysis.comparison import ALONE, Comparison, Verdict, losses_by_seed, shared_noise
from moe_study.analysis.pairs import ranked
from moe_study.analysis.statistics import PairedDifference, minimum_detectable_difference


def sentence(c: Comparison) -> str:
    """What one comparison shows."""
    d = c.difference
    if c.verdict is Verdict.NO_PAIR:
        return f"{c.point} and {c.against} share no seed, so they cannot be compared in pairs."
    better = "lower" if d.mean < 0 else "higher"
    size = f"{abs(d.mean):.4f} nats"
    if c.verdict is Verdict.ONE_PAIR:
        return (
            f"{c.point} against {c.against}: {better} loss by {size} at the one seed they share; "
            "one pair has no interval, so this may be chance."
        )
    span = f"{d.level:.0%} interval {_span(d)}, {d.n} paired seeds"
    if c.verdict in (Verdict.LOWER, Verdict.HIGHER):
        small = max(abs(d.low), abs(d.high)) < c.margin
        within = f", a difference below the margin of {c.margin:g} nats" if small else ""
        return f"{c.point} has {better} loss than {c.against} by {size} ({span}){within}."
    if c.verdict is Verdict.SAME:
        return (
            f"{c.point} and {c.against} are the same within {c.margin:g} nats "
            f"(difference {d.mean:+.4f}, {span}; equivalence p {c.p_same:.2g})."
        )
    return _unclear(c, better, span) + _pooled(c) + "."


def _unclear(c: Comparison, better: str, span: str) -> str:
    d = c.difference
    if d.low * d.high > 0:
        return (
            f"{c.point} against {c.against}: {better} loss by {abs(d.mean):.4f} nats ({span}), but not told apart "
            f"once {c.family} comparisons are allowed for (Holm-adjusted p {c.p:.2g})"
        )
    if d.n == 2:
        agree = f"the sign agrees in both ({better})" if d.same_sign else "the signs disagree"
        return (
            f"{c.point} against {c.against}: {d.mean:+.4f} nats, but with 2 seeds the interval is too wide to tell "
            f"({d.level:.0%}: {_span(d)}); {agree}"
        )
    visible = minimum_detectable_difference(d.sd, d.n, d.level)
    return (
        f"{c.point} and {c.against} cannot be told apart (difference {d.mean:+.4f} nats, {span}; "
        f"at this noise, four in five studies of this size would find a difference of {visible:.4f})"
    )


def _pooled(c: Comparison) -> str:
    """What the noise of all points adds to a pair with few seeds."""
    if np.isnan(c.p_pooled):
        return ""
    told = "told apart" if c.p_pooled < 1 - c.difference.level else "not told apart either"
    return f"; with pooled noise ±{c.pooled_half:.4f}, {told}"


def pooled_note(frame: pd.DataFrame, level: float = 0.95) -> str:
    """What "pooled noise" stands on; empty where no pair of points needs it."""
    losses = losses_by_seed(ranked(frame))
    seeds, noise = losses.notna().sum(axis=1).max(), shared_noise(frame)
    if not 2 <= seeds < min(ALONE, noise.degrees + 1):
        return ""
    alone = f"{seeds - 1} degree{'s' if seeds > 2 else ''}"
    return (
        f"With {seeds} seeds a pair of points has {alone} of freedom. Pooled noise is that of all {len(losses)} points "
        f"together ({noise.degrees} degrees, sd {noise.sd:.4f} nats), taken to be alike at all of them."
    )


def to_frame(answers: Mapping[str, Sequence[Comparison]]) -> pd.DataFrame:
    """One row per comparison of every question, with its verdict and sentence, for CSV."""
    rows = []
    for question, comparisons in answers.items():
        for c in comparisons:
            row: dict[str, Any] = {"question": question, "point": c.point, "against": c.against}
            row.update(verdict=c.verdict.value, **asdict(c.difference))
            row.update(p_holm=c.p, p_same_holm=c.p_same, margin=c.margin, family=c.family)
            row.update(pooled_half=c.pooled_half, p_pooled_holm=c.p_pooled)
            rows.append({**row, "differs_in": " ".join(c.differs_in), "sentence": sentence(c)})
    return pd.DataFrame(rows)


def _span(d: PairedDifference) -> str:
    return f"{d.low:+.4f} to {d.high:+.4f}"
