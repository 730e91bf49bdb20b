"""Which point has the lower loss, seed by seed, and in words that claim no more than the seeds carry.

A difference is called only where its Holm-adjusted p value over the whole family of comparisons is below
1 - level; "the same" only where the equivalence test (TOST, Holm-adjusted too) says so at the margin.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any

import numpy as np
import pandas as pd

from moe_study.analysis.frame import done, each
from moe_study.analysis.labels import IGNORED
from moe_study.analysis.statistics import (
    PairedDifference,
    equivalence_p,
    holm,
    minimum_detectable_difference,
    paired_difference,
    pooled_noise,
)
from moe_study.errors import StudyError

MARGIN = 0.01  # nats: one percent of perplexity
TWIN_TOLERANCE = 0.05  # a dense point whose parameters are this close is a point's twin


class Verdict(StrEnum):
    LOWER = "lower"
    HIGHER = "higher"
    SAME = "same within the margin"
    UNCLEAR = "cannot be told apart"
    ONE_PAIR = "one pair"
    NO_PAIR = "no pair"


@dataclass(frozen=True)
class Comparison:
    """`point` minus `against`, in nats a token: negative is better.

    p values are Holm-adjusted over the family.
    """

    point: str
    against: str
    difference: PairedDifference
    p: float
    p_same: float
    margin: float
    family: int  # comparisons that were tested together
    differs_in: tuple[str, ...]  # settings in which the two configurations differ

    @property
    def verdict(self) -> Verdict:
        d = self.difference
        if d.n < 2:
            return Verdict.ONE_PAIR if d.n else Verdict.NO_PAIR
        if self.p < 1 - d.level:
            return Verdict.LOWER if d.mean < 0 else Verdict.HIGHER
        return Verdict.SAME if self.p_same < 1 - d.level else Verdict.UNCLEAR

    @property
    def sentence(self) -> str:
        return _sentence(self)


def compare(
    frame: pd.DataFrame, pairs: Iterable[tuple[str, str]], margin: float = MARGIN, level: float = 0.95
) -> list[Comparison]:
    """Compare the points of each pair of labels over the seeds they share, as one family.

    `frame` holds runs of one evaluation set. Errors: StudyError for a label that no finished run has.
    """
    runs = done(frame)
    _check_one_evaluation(runs)
    losses = runs.pivot_table(index="label", columns="seed", values="validation_loss")
    settings, found = settings_of(runs), []
    for point, against in pairs:
        both = losses.loc[[_known(losses, point), _known(losses, against)]].dropna(axis=1).to_numpy()
        difference = paired_difference(both[0], both[1], level)
        p_same = float(equivalence_p(both[0] - both[1], margin))
        differs_in = differing_settings(settings, point, against)
        found.append(Comparison(point, against, difference, difference.p, p_same, margin, 0, differs_in))
    p_different = holm([c.p for c in found])
    p_same_all = holm([c.p_same for c in found])
    family = int(np.sum(~np.isnan(p_different)))
    return [
        replace(c, p=float(p), p_same=float(same), family=family)
        for c, p, same in zip(found, p_different, p_same_all, strict=True)
    ]


def default_reference(frame: pd.DataFrame) -> str:
    """The dense point with the fewest parameters; without one, the ranked point with the fewest."""
    points = ranked(frame)
    dense = points[points["routing.selection"] == "dense"]
    chosen = dense if len(dense) else points if len(points) else done(frame)
    if not len(chosen):
        raise StudyError("no run is done yet; there is nothing to compare")
    return str(chosen.sort_values(["num_params", "label"])["label"].iloc[0])


def ranked(frame: pd.DataFrame, rank_leaking: bool = False) -> pd.DataFrame:
    """The finished runs whose losses may be ranked: those whose routing reads no later token."""
    runs = done(frame)
    return runs if rank_leaking else runs[~runs["leaks"].astype(bool)]


def default_pairs(frame: pd.DataFrame, reference: str, rank_leaking: bool = False) -> list[tuple[str, str]]:
    """Every point against the reference, against its dense twins, and pairs that differ in one setting only.

    A twin is the dense point of equal active, or equal total, parameters (within TWIN_TOLERANCE).
    """
    points = ranked(frame, rank_leaking).drop_duplicates("label").sort_values(["validation_loss", "label"])
    dense = points[points["routing.selection"] == "dense"]
    pairs = [(point, reference) for point in points["label"]]
    for point in each(points[points["routing.selection"] != "dense"]):
        for cost in ("num_active_params", "num_params"):
            gap = (dense["num_params"] / getattr(point, cost) - 1).abs()
            if len(gap) and gap.min() <= TWIN_TOLERANCE:
                pairs.append((point.label, dense.loc[gap.idxmin(), "label"]))
    names, settings = list(points["label"]), settings_of(points)
    for place, point in enumerate(names):
        for other in names[place + 1 :]:
            if len(differing_settings(settings, point, other)) == 1:
                pairs.append((point, other))
    return _unique(pairs)


Settings = dict[str, dict[str, str]]  # of each point, by label: configuration columns, written out


def settings_of(runs: pd.DataFrame) -> Settings:
    """The configuration of every point, without what is no part of it."""
    points = runs.drop_duplicates("label")
    names = [str(c) for c in points if "." in str(c) and not str(c).startswith(IGNORED)]
    return {
        label: {name: repr(value) for name, value in zip(names, values, strict=True)}
        for label, values in zip(points["label"], points[names].itertuples(index=False), strict=True)
    }


def differing_settings(settings: Settings, point: str, other: str) -> tuple[str, ...]:
    """Configuration columns in which two points differ (a dense point has no router settings to differ
    in).
    """
    return tuple(name for name, value in settings[point].items() if settings[other][name] != value)


def pooled_note(frame: pd.DataFrame, level: float = 0.95) -> str | None:
    """What the seeds of all ranked points say together, where few seeds leave each pair with a wide interval.

    None with one seed, with fewer than three points, or with five seeds and more, where a pair can stand
    alone.
    """
    losses = ranked(frame).pivot_table(index="label", columns="seed", values="validation_loss").dropna(axis=1)
    points, seeds = losses.shape
    if not 2 <= seeds < 5 or points < 3:
        return None
    noise = pooled_noise(losses.to_numpy())
    return (
        f"With {seeds} seeds a pair alone has {seeds - 1} degree{'s' if seeds > 2 else ''} of freedom. "
        f"If the seed noise is alike at all {points} points, pooling it ({noise.degrees} degrees) gives "
        f"every paired difference a {level:.0%} interval of ±{noise.half_width(seeds, level):.4f} nats."
    )


def to_frame(comparisons: Iterable[Comparison]) -> pd.DataFrame:
    """One row per comparison, with its verdict and sentence, for CSV."""
    rows = []
    for c in comparisons:
        row: dict[str, Any] = {"point": c.point, "against": c.against, "verdict": c.verdict.value}
        row.update(asdict(c.difference))
        row.update(p_holm=c.p, p_same_holm=c.p_same, margin=c.margin, family=c.family)
        rows.append({**row, "differs_in": " ".join(c.differs_in), "sentence": c.sentence})
    return pd.DataFrame(rows)


def _sentence(c: Comparison) -> str:
    d = c.difference
    better = "lower" if d.mean < 0 else "higher"
    if c.verdict is Verdict.NO_PAIR:
        return f"{c.point} and {c.against} share no seed, so they cannot be compared in pairs."
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
    if d.low * d.high > 0:
        return (
            f"{c.point} against {c.against}: {better} loss by {size} ({span}), but not told apart once "
            f"{c.family} comparisons are allowed for (Holm-adjusted p {c.p:.2g})."
        )
    if d.n == 2:
        agree = f"the sign agrees in both ({better})" if d.same_sign else "the signs disagree"
        return (
            f"{c.point} against {c.against}: 2 seeds, the interval is too wide to tell "
            f"(difference {d.mean:+.4f} nats, {d.level:.0%} interval {_span(d)}); {agree}."
        )
    visible = minimum_detectable_difference(d.sd, d.n, d.level)
    return (
        f"{c.point} and {c.against} cannot be told apart (difference {d.mean:+.4f} nats, {span}; "
        f"at this noise, four in five studies of this size would find a difference of {visible:.4f})."
    )


def _span(d: PairedDifference) -> str:
    return f"{d.low:+.4f} to {d.high:+.4f}"


def _check_one_evaluation(runs: pd.DataFrame) -> None:
    if runs["evaluation"].nunique() > 1:
        raise StudyError(
            "these runs were evaluated on different data, context or amounts of text, so their losses "
            "cannot be compared; choose the runs of one evaluation set"
        )


def _known(losses: pd.DataFrame, label: str) -> str:
    if label not in losses.index:
        names = ", ".join(losses.index) or "none"
        raise StudyError(f"no finished run is called {label}; the points here are {names}")
    return label


def _unique(pairs: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Without pairs of a point with itself, and each pair once, whichever way round."""
    seen: dict[frozenset[str], tuple[str, str]] = {}
    for pair in pairs:
        if pair[0] != pair[1]:
            seen.setdefault(frozenset(pair), pair)
    return list(seen.values())
