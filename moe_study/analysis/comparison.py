"""Which point has the lower loss, seed by seed.

A difference is called only where its Holm-adjusted p value over the family of comparisons is below 1 - level;
"the same" only where the equivalence test (TOST, Holm-adjusted too) says so at the margin.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
import pandas as pd

from moe_study.analysis.frame import done
from moe_study.analysis.pairs import Pair, differing_settings, ranked, settings_of
from moe_study.analysis.statistics import (
    PairedDifference,
    PooledNoise,
    equivalence_p,
    holm,
    paired_difference,
    pooled_noise,
)
from moe_study.errors import StudyError

MARGIN = 0.01  # nats: one percent of perplexity
ALONE = 5  # paired seeds from which on a pair of points needs no help from the noise of the others


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

    p values are Holm-adjusted over the family. What is pooled uses the seed noise of all points that are not
    leaking, on the assumption that it is alike; NaN from ALONE seeds on, where it is not needed.
    """

    point: str
    against: str
    difference: PairedDifference
    p: float
    p_same: float
    pooled_half: float  # half of the interval with pooled noise
    p_pooled: float
    margin: float
    family: int  # comparisons that were tested together
    differs_in: tuple[str, ...]  # settings in which the two configurations differ

    @property
    def verdict(self) -> Verdict:
        """What this pair of points shows alone; pooled noise has no say in it."""
        d = self.difference
        if d.n < 2:
            return Verdict.ONE_PAIR if d.n else Verdict.NO_PAIR
        if self.p < 1 - d.level:
            return Verdict.LOWER if d.mean < 0 else Verdict.HIGHER
        return Verdict.SAME if self.p_same < 1 - d.level else Verdict.UNCLEAR


def compare(
    frame: pd.DataFrame, pairs: Iterable[Pair], margin: float = MARGIN, level: float = 0.95
) -> list[Comparison]:
    """Compare the points of each pair of labels over the seeds they share, as one family.

    `frame` holds runs of one evaluation set. Errors: StudyError for a label that no finished run has.
    """
    runs = done(frame)
    if runs["evaluation"].nunique() > 1:
        raise StudyError(
            "these runs were evaluated on different data, context or amounts of text, so their losses cannot be "
            "compared; choose the runs of one evaluation set"
        )
    losses = losses_by_seed(runs)
    noise, pool, settings = shared_noise(runs), set(ranked(runs)["label"]), settings_of(runs)
    found = []
    for point, against in pairs:
        both = losses.loc[[_known(losses, point), _known(losses, against)]].dropna(axis=1).to_numpy()
        d = paired_difference(both[0], both[1], level)
        pooled_half, p_pooled = np.nan, np.nan
        if d.n < min(ALONE, noise.degrees + 1) and {point, against} <= pool:
            pooled_half, p_pooled = noise.half_width(d.n, level), noise.p(d.mean, d.n)
        p_same = float(equivalence_p(both[0] - both[1], margin))
        differs_in = differing_settings(settings, point, against)
        found.append(Comparison(point, against, d, d.p, p_same, pooled_half, p_pooled, margin, 0, differs_in))
    return _adjusted(found)


def _adjusted(found: list[Comparison]) -> list[Comparison]:
    """The comparisons as one family."""
    p, p_same, p_pooled = (holm([getattr(c, name) for c in found]) for name in ("p", "p_same", "p_pooled"))
    family = int(np.sum(~np.isnan(p)))
    return [
        replace(c, p=float(p[i]), p_same=float(p_same[i]), p_pooled=float(p_pooled[i]), family=family)
        for i, c in enumerate(found)
    ]


def losses_by_seed(runs: pd.DataFrame) -> pd.DataFrame:
    """Validation losses, points down (by label) and seeds across; NaN where there is no run."""
    return runs.pivot_table(index="label", columns="seed", values="validation_loss")


def shared_noise(frame: pd.DataFrame) -> PooledNoise:
    """Seed noise of all points that do not leak, pooled."""
    return pooled_noise(losses_by_seed(ranked(frame)).to_numpy())


def _known(losses: pd.DataFrame, label: str) -> str:
    if label not in losses.index:
        names = ", ".join(losses.index) or "none"
        raise StudyError(f"no finished run is called {label}; the points here are {names}")
    return label
