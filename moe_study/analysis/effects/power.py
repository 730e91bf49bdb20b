"""What a study could have seen, and how many seeds a wanted margin needs."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from moe_study.analysis.comparison import LEVEL, MARGIN, Comparison
from moe_study.analysis.statistics import POWER, least_seeds, power_of_difference, power_of_sameness

PRECISION = 1e-4  # relative, of a detectable difference


@dataclass(frozen=True)
class Power:
    """The power of one comparison, or of a typical one, tested at `alpha`: the strictest level of Holm's procedure.

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


def powers(
    comparisons: Sequence[Comparison], family: int, margin: float = MARGIN, level: float = LEVEL
) -> tuple[Power, ...]:
    """The power of each comparison that has two seeds, then that of a typical one; none where none has.

    `family` is the number of hypotheses of the report (at least 1 is taken); `margin` that of the typical pair.
    """
    known = [c for c in comparisons if c.difference.n > 1]
    if not known:
        return ()
    alpha = (1 - level) / max(1, family)
    found = [Power(c.point, c.against, c.difference.n, c.difference.sd, c.margin, family, alpha) for c in known]
    sd = float(np.sqrt(np.mean([power.sd**2 for power in found])))
    counts = [power.n for power in found]
    usual = max(set(counts), key=lambda n: (counts.count(n), n))
    return (*found, Power("", "", usual, sd, margin, family, alpha))


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
