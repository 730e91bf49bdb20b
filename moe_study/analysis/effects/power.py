"""What a study could have seen, and how many seeds a wanted margin needs."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from moe_study.analysis.comparison import LEVEL, MARGIN, Comparison, Tested
from moe_study.analysis.effects.contrasts import Effect
from moe_study.analysis.effects.equal_cost import EqualCost
from moe_study.analysis.effects.trends import Trend
from moe_study.analysis.statistics import POWER, least_seeds, power_of_difference, power_of_sameness

PRECISION = 1e-4  # relative, of a detectable difference


@dataclass(frozen=True)
class Power:
    """The power of one hypothesis, or of a typical pair of points, at `alpha`: the strictest level of Holm's procedure.

    The noise is that of the measured paired differences, taken as normal: a rough guide where seeds are few.
    """

    point: str  # empty for the typical pair, whose noise is the root mean square over all
    against: str
    n: int  # seeds that it has; of the typical pair the most common number
    sd: float  # of paired differences, nats per token
    margin: float
    family: int  # hypotheses that pay for one another
    alpha: float

    @property
    def is_typical(self) -> bool:
        return not self.point

    @functools.cached_property
    def detectable(self) -> float:
        """The least true difference that these seeds find with probability POWER; NaN for fewer than two."""
        return detectable_difference(self.sd, self.n, self.alpha)

    @functools.cached_property
    def seeds_to_find(self) -> int | None:
        """Seeds that find a true difference of `margin` with probability POWER; None beyond MOST_SEEDS."""
        return least_seeds(lambda n: power_of_difference(self.margin, self.sd, n, self.alpha) >= POWER, self.sd)

    @functools.cached_property
    def seeds_for_sameness(self) -> int | None:
        """Seeds that find two equal points the same within `margin` with probability POWER; None beyond MOST_SEEDS."""
        return least_seeds(lambda n: power_of_sameness(0.0, self.sd, n, self.margin, self.alpha) >= POWER, self.sd)


def powers(tested: Sequence[Tested], family: int, margin: float = MARGIN, level: float = LEVEL) -> tuple[Power, ...]:
    """The power of all that was tested and has two seeds, then that of a typical pair of points; none where none has.

    `family` is the number of hypotheses of the report (at least 1 is taken); `margin` that of the typical pair.
    """
    known = [one for one in tested if one.difference.n > 1]
    if not known:
        return ()
    alpha = (1 - level) / max(1, family)
    found = [Power(*_sides(one), one.difference.n, one.difference.sd, one.margin, family, alpha) for one in known]
    pairs = [power for power, one in zip(found, known, strict=True) if isinstance(one, Comparison)] or found
    sd = float(np.sqrt(np.mean([power.sd**2 for power in pairs])))
    counts = [power.n for power in pairs]
    usual = max(set(counts), key=lambda n: (counts.count(n), n))
    return (*found, Power("", "", usual, sd, margin, family, alpha))


def _sides(one: Tested) -> tuple[str, str]:
    """What is compared with what, in words."""
    if isinstance(one, Comparison):
        return one.point, one.against
    if isinstance(one, EqualCost):
        return one.point, f"{one.family_name} at equal {one.cost.words}"
    if isinstance(one, Trend):
        return one.name, f"itself per doubling of {one.size_words}"
    assert isinstance(one, Effect)  # nothing else is tested
    changes = one.contrast.changes
    return " with ".join(change.after for change in changes), " with ".join(change.before for change in changes)


def detectable_difference(sd: float, n: int, alpha: float, power: float = POWER) -> float:
    """The least true mean that the t test of `n` paired differences at `alpha` finds with probability `power`."""
    if n < 2 or not np.isfinite(sd):
        return float("nan")
    if sd == 0:
        return 0.0
    low, high = 0.0, sd
    while power_of_difference(high, sd, n, alpha) < power:
        low, high = high, 2 * high
    while high - low > PRECISION * high:
        middle = (low + high) / 2
        low, high = (low, middle) if power_of_difference(middle, sd, n, alpha) >= power else (middle, high)
    return high
