"""Statistics over paired seeds, on the scale of the loss (nats per token).

Runs of one sweep share their seeds (initialisation and data order), so two points are compared seed by seed:
what a seed does to both cancels in the difference. All intervals are Student's t; one value has no interval.
Arrays hold the seeds S on the last axis, and everything works on stacks of experiments too.

The perplexity of a point is exp(mean over seeds of the loss), the geometric mean of its runs' perplexities:
then a difference of losses is a ratio of perplexities, and the interval of the loss becomes a multiplicative
one.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import gammaincinv, ndtr, stdtr, stdtrit  # scipy.stats gives the same bits in 40 times the time

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """Mean over `n` values with a t interval; `sd` is NaN and the ends are too where n < 2."""

    n: int
    mean: float
    sd: float
    low: float
    high: float
    level: float


@dataclass(frozen=True)
class PairedDifference(Interval):
    """Mean of paired differences, with the two-sided p value of the paired t test (NaN where n < 2)."""

    p: float
    same_sign: bool  # every pair differs in the same direction


def t_quantile(p: float, freedom: float) -> float:
    """What Student's t with so many degrees of freedom, at least one, stays below with a probability of `p` > 0."""
    return float(stdtrit(freedom, p))


def t_above(t: ArrayLike, freedom: float) -> Floats:
    """The probability that Student's t with so many degrees of freedom is above `t`."""
    return np.asarray(stdtr(freedom, -np.asarray(t, dtype=float)))


def t_interval(values_S: ArrayLike, level: float = 0.95) -> tuple[Floats, Floats, Floats, Floats]:
    """(mean, sd, low, high) over the last axis; sd and ends are NaN for fewer than two values.

    The interval is mean +- t(n-1) * sd / sqrt(n), exact for normal noise.
    """
    values = np.asarray(values_S, dtype=float)
    n = values.shape[-1]
    shape = values.shape[:-1]
    mean = values.mean(axis=-1) if n else np.full(shape, np.nan)
    if n < 2:
        nan = np.full(shape, np.nan)
        return mean, nan, nan.copy(), nan.copy()
    sd = values.std(axis=-1, ddof=1)
    half = t_quantile((1 + level) / 2, n - 1) * sd / np.sqrt(n)
    return mean, sd, mean - half, mean + half


def t_test_p(differences_S: ArrayLike) -> Floats:
    """Two-sided p value of mean zero over the last axis; NaN for fewer than two values.

    Values that are all equal give 1 where they are zero, and 0 elsewhere.
    """
    mean, sd, _, _ = t_interval(differences_S)
    n = np.shape(differences_S)[-1]
    if n < 2:
        return np.full_like(mean, np.nan)
    return 2 * t_above(_ratio(np.abs(mean), sd / np.sqrt(n)), n - 1)


def equivalence_p(differences_S: ArrayLike, margin: float) -> Floats:
    """p value of "the means differ by `margin` nats or more": two one-sided t tests (TOST, Schuirmann 1987).

    A small p says that the two are the same within the margin. NaN for fewer than two pairs.
    Errors: ValueError unless margin > 0.
    """
    if not margin > 0:
        raise ValueError(f"the margin must be positive, not {margin}")
    mean, sd, _, _ = t_interval(differences_S)
    n = np.shape(differences_S)[-1]
    if n < 2:
        return np.full_like(mean, np.nan)
    return t_above(_ratio(margin - np.abs(mean), sd / np.sqrt(n)), n - 1)


def holm(p_values: ArrayLike) -> Floats:
    """Holm's (1979) adjusted p values of one family; NaN ones stay NaN and do not count."""
    p = np.asarray(p_values, dtype=float)
    adjusted = np.full_like(p, np.nan)
    tested = np.flatnonzero(~np.isnan(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(p[order] * factors))
    return adjusted


def holm_steps(p_values: ArrayLike, alpha: float) -> NDArray[np.int64]:
    """By what each p value was multiplied when Holm's procedure decided on it at `alpha`; 0 for NaN.

    A hypothesis is rejected exactly where p * step < alpha, so the interval of level 1 - alpha / step excludes the
    hypothesis exactly there: intervals that never contradict the verdicts.
    """
    p = np.asarray(p_values, dtype=float)
    steps = np.zeros(p.shape, dtype=np.int64)
    tested = np.flatnonzero(~np.isnan(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    rejected = int(np.sum(holm(p)[order] < alpha))
    steps[order] = len(order) - np.minimum(np.arange(len(order)), rejected)
    return steps


def interval(values_S: ArrayLike, level: float = 0.95) -> Interval:
    """`t_interval` of one list of values."""
    mean, sd, low, high = t_interval(values_S, level)
    return Interval(np.shape(values_S)[-1], float(mean), float(sd), float(low), float(high), level)


def at_level(known: Interval, level: float) -> Interval:
    """The t interval of the same values at another level."""
    half = t_quantile((1 + level) / 2, known.n - 1) * known.sd / float(np.sqrt(known.n))
    return Interval(known.n, known.mean, known.sd, known.mean - half, known.mean + half, level)


def paired_difference(a_S: ArrayLike, b_S: ArrayLike, level: float = 0.95) -> PairedDifference:
    """a - b, seed by seed. Errors: ValueError where the two are not of one length."""
    a, b = np.asarray(a_S, dtype=float), np.asarray(b_S, dtype=float)
    if a.shape != b.shape:
        raise ValueError(f"pairs need as many values on both sides, not {a.shape} and {b.shape}")
    difference = a - b
    base = interval(difference, level)
    same_sign = bool(len(difference) and (np.all(difference > 0) or np.all(difference < 0)))
    return PairedDifference(**vars(base), p=float(t_test_p(difference)), same_sign=same_sign)


POWER = 0.8  # the chance of a decision that `seeds_needed` asks for
MOST_SEEDS = 1000  # `seeds_needed` looks no further


def power_of_difference(mean: float, sd: float, n: int, alpha: float) -> float:
    """The chance that the two-sided paired t test at `alpha` finds a true difference of `mean`.

    `sd` is that of the paired differences, n >= 2 the number of pairs. t = (Z + shift) / W with W the estimated over
    the true sd: the noncentral t, averaged over the quantiles of W (scipy's own fails far out).
    """
    shift = abs(mean) * np.sqrt(n) / sd
    reach = t_quantile(1 - alpha / 2, n - 1) * _estimated_over_true_sd(n)
    return float(np.mean(ndtr(shift - reach) + ndtr(-reach - shift)))


def power_of_sameness(mean: float, sd: float, n: int, margin: float, alpha: float) -> float:
    """The chance that two one-sided t tests at `alpha` each find |difference| < `margin`, where it is `mean`."""
    shift = mean * np.sqrt(n) / sd
    room = margin * np.sqrt(n) / sd - t_quantile(1 - alpha, n - 1) * _estimated_over_true_sd(n)
    found = ndtr(room - shift) - ndtr(-room - shift)
    return float(np.mean(np.where(room > 0, found, 0.0)))


def seeds_needed(
    mean: float, sd: float, margin: float, alpha: float, alpha_same: float, power: float = POWER
) -> int | None:
    """The least number of paired seeds that decides a comparison with probability `power`; None beyond MOST_SEEDS.

    Assumes that the paired differences are normal with the `mean` and `sd` that were measured, and that the
    comparison is tested at `alpha` for a difference and at `alpha_same` for equality within `margin`: a rough guide
    where both come from few seeds.
    """
    if not np.isfinite(mean):
        return None

    def decides(n: int) -> bool:
        return (
            power_of_difference(mean, sd, n, alpha) >= power
            or power_of_sameness(mean, sd, n, margin, alpha_same) >= power
        )

    return least_seeds(decides, sd)


def least_seeds(decides: Callable[[int], bool], sd: float) -> int | None:
    """The least n for which `decides(n)`, which holds from some n on; None beyond MOST_SEEDS, or without an `sd`."""
    if not np.isfinite(sd):
        return None
    if sd == 0:
        return 2
    low, high = 1, 2  # `low` does not decide
    while not decides(high):
        if high >= MOST_SEEDS:
            return None
        low, high = high, min(2 * high, MOST_SEEDS)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if decides(middle) else (middle, high)
    return high


@functools.lru_cache(maxsize=256)
def _estimated_over_true_sd(n: int) -> Floats:
    """Quantiles of the estimated over the true sd of n normal values, at equal probabilities."""
    quantiles = (np.arange(4000) + 0.5) / 4000
    return np.asarray(np.sqrt(2 * gammaincinv((n - 1) / 2, quantiles) / (n - 1)))


def _ratio(top: Floats, bottom: Floats) -> Floats:
    """top / bottom, where a zero bottom gives 0 or an infinity with the sign of top."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.asarray(top, dtype=float) / bottom
    return np.where(np.isnan(ratio) & (np.asarray(bottom) == 0), 0.0, ratio)
