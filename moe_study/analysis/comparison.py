"""Which point has the lower loss, seed by seed.

All comparisons that are tested in one report are one family. A difference is called only where its Holm-adjusted
p value is below 1 - level; "the same" only where the equivalence test (TOST, Holm-adjusted too) says so at the margin.
So at most 5% of reports call any difference where there is none, and at most 5% call the same what differs by the
margin or more; each comparison has only one of these two hypotheses to be wrong about.
"""

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from moe_study.analysis.frame import done
from moe_study.analysis.pairs import Pair, Settings, differing_settings, settings_of
from moe_study.analysis.statistics import (
    Interval,
    PairedDifference,
    at_level,
    equivalence_p,
    holm,
    holm_steps,
    paired_difference,
    seeds_needed,
)
from moe_study.errors import StudyError

MARGIN = 0.01  # nats per token: one percent of perplexity
LEVEL = 0.95
MIN_SEEDS_FOR_INTERVAL = 2


class Verdict(StrEnum):
    LOWER = "lower"
    HIGHER = "higher"
    SAME = "same within the margin"
    UNCLEAR = "cannot be told apart"
    ONE_PAIR = "one pair"
    NO_PAIR = "no pair"
    NOT_PLANNED = "not planned"  # measured, but not tested: a description


OneTested = TypeVar("OneTested", bound="Tested")
DECIDED = (Verdict.LOWER, Verdict.HIGHER, Verdict.SAME)


class Also(NamedTuple):
    """Another request of a sweep file that is the same number, or its opposite: it is tested once."""

    written: str  # as the file has it
    sign: int  # -1 for the opposite


@dataclass(frozen=True)
class Asked:
    """A comparison that somebody wants: the loss of `point` minus that of `against`, both labels."""

    point: str
    against: str
    question: str = ""
    margin: float | None = None  # nats per token; None: that of the report
    late: bool = False  # stated when results of it were there already
    written: str = ""  # both sides as the sweep file has them, where it has
    also: tuple[Also, ...] = ()

    @property
    def labels(self) -> frozenset[str]:
        return frozenset((self.point, self.against))


@dataclass(frozen=True, kw_only=True)
class Tested:
    """A mean over seeds, in nats per token, and what a family of tests says of it; negative is better.

    `difference` stands alone, with an interval at the plain level. p values are Holm-adjusted over the family, and
    `interval` and `same_interval` have the levels at which Holm's procedure decided: the one excludes 0 exactly where
    a difference is called, the other lies within the margin exactly where it is called none. Outside of a family
    (family = 0) p values and both intervals are NaN.
    """

    difference: PairedDifference
    margin: float
    p: float
    p_same: float
    interval: Interval
    same_interval: Interval
    family: int = 0  # hypotheses that were tested together

    @property
    def verdict(self) -> Verdict:
        """What these seeds show by themselves: no noise of other points has a say in it."""
        d = self.difference
        if d.n < MIN_SEEDS_FOR_INTERVAL:
            return Verdict.ONE_PAIR if d.n else Verdict.NO_PAIR
        if not self.family:
            return Verdict.NOT_PLANNED
        if self.p < 1 - d.level:
            return Verdict.LOWER if d.mean < 0 else Verdict.HIGHER
        return Verdict.SAME if self.p_same < 1 - d.level else Verdict.UNCLEAR

    @property
    def decided(self) -> bool:
        return self.verdict in DECIDED

    @functools.cached_property
    def seeds_needed(self) -> int | None:
        """How many would decide it (see statistics.seeds_needed); None where it is decided, or out of reach."""
        if self.verdict is not Verdict.UNCLEAR:
            return None
        d, alphas = self.difference, (1 - self.interval.level, (1 - self.same_interval.level) / 2)
        return seeds_needed(d.mean, d.sd, self.margin, *alphas)


@dataclass(frozen=True, kw_only=True)
class TestedOverPoints(Tested):
    """A Tested of several points, over the seeds that all of them have."""

    seeds: tuple[int, ...]
    leaks: bool  # one of the points reads later tokens


@dataclass(frozen=True, kw_only=True)
class Comparison(Tested):
    """The loss of `point` minus that of `against`."""

    asked: Asked
    differs_in: tuple[str, ...]  # settings in which the two configurations differ

    @property
    def point(self) -> str:
        return self.asked.point

    @property
    def against(self) -> str:
        return self.asked.against


def untested(values_S: ArrayLike, margin: float, level: float = LEVEL) -> dict[str, Any]:
    """The fields of a Tested before any test, from the values seed by seed; `p_same` is that of the values alone."""
    values = np.asarray(values_S, dtype=float)
    nothing = Interval(len(values), np.nan, np.nan, np.nan, np.nan, np.nan)
    return {
        "difference": paired_difference(values, np.zeros(len(values)), level),
        "margin": margin,
        "p": np.nan,
        "p_same": float(equivalence_p(values, margin)),
        "interval": nothing,
        "same_interval": nothing,
    }


def compare(
    frame: pd.DataFrame, pairs: Iterable[Pair], margin: float = MARGIN, level: float = LEVEL
) -> list[Comparison]:
    """Compare the points of each pair of labels over the seeds they share, as one family.

    `frame` holds runs of one evaluation set. Errors: StudyError for a label that no finished run has.
    """
    asked = [Asked(*pair) for pair in pairs]
    known = list(dict.fromkeys(done(frame)["label"]))
    for label in (label for one in asked for label in (one.point, one.against)):
        if label not in known:
            names = ", ".join(sorted(known)) or "none"
            raise StudyError(f"no finished run is called {label}; the points here are {names}")
    return as_one_family(measure(frame, asked, margin, level))


def measure(
    frame: pd.DataFrame, asked: Iterable[Asked], margin: float = MARGIN, level: float = LEVEL
) -> list[Comparison]:
    """The differences that are `asked` for, over shared seeds, without any test.

    `frame` holds runs of one evaluation set; a label without a finished run gives a comparison without pairs.
    """
    runs = done(frame)
    if runs["evaluation"].nunique() > 1:
        raise StudyError(
            "these runs were evaluated on different data, context or amounts of text, so their losses cannot be "
            "compared; choose the runs of one evaluation set"
        )
    if not (asked := list(asked)):
        return []
    losses, settings = losses_by_seed(runs), settings_of(runs)
    return [_measured(losses, settings, one, one.margin or margin, level) for one in asked]


def _measured(losses: pd.DataFrame, settings: Settings, asked: Asked, margin: float, level: float) -> Comparison:
    both = np.empty((2, 0))
    differs_in: tuple[str, ...] = ()
    if {asked.point, asked.against} <= set(losses.index):
        both = shared_losses(losses, asked.point, asked.against)
        differs_in = differing_settings(settings, asked.point, asked.against)
    return Comparison(asked=asked, differs_in=differs_in, **untested(both[0] - both[1], margin, level))


def as_one_family(measured: Sequence[OneTested]) -> list[OneTested]:
    """All that is tested in one report, tested together: every p value pays for all of those that have an interval."""
    if not measured:
        return []
    level = measured[0].difference.level
    p_alone = [c.difference.p for c in measured]
    p, p_same = holm(p_alone), holm([c.p_same for c in measured])
    steps = holm_steps(p_alone, 1 - level).tolist()
    steps_same = holm_steps([c.p_same for c in measured], 1 - level).tolist()
    family = sum(step > 0 for step in steps)
    return [
        _tested(c, float(p[i]), float(p_same[i]), (1 - level) / steps[i], (1 - level) / steps_same[i], family)
        if steps[i]
        else c
        for i, c in enumerate(measured)
    ]


def _tested(c: OneTested, p: float, p_same: float, alpha: float, alpha_same: float, family: int) -> OneTested:
    intervals = at_level(c.difference, 1 - alpha), at_level(c.difference, 1 - 2 * alpha_same)
    return replace(c, p=p, p_same=p_same, interval=intervals[0], same_interval=intervals[1], family=family)


def losses_by_seed(runs: pd.DataFrame) -> pd.DataFrame:
    """Validation losses, points down (by label) and seeds across; NaN where there is no run."""
    return runs.groupby(["label", "seed"])["validation_loss"].mean().dropna().unstack("seed")


def shared_losses(losses: pd.DataFrame, point: str, against: str) -> np.ndarray:
    """The losses of two points, (2, seeds), over the seeds that both have; `losses` as of losses_by_seed."""
    both = np.stack([losses.loc[point].to_numpy(), losses.loc[against].to_numpy()])
    return both[:, ~np.isnan(both).any(axis=0)]
