"""Statistics over paired seeds, on the scale of the loss (nats a token).

Runs of one sweep share their seeds (initialisation and data order), so two points are compared seed by seed:
what a seed does to both cancels in the difference. All intervals are Student's t; one value has no interval.
Arrays hold the seeds S on the last axis, and everything works on stacks of experiments too.

The perplexity of a point is exp(mean over seeds of the loss), the geometric mean of its runs' perplexities:
then a difference of losses is a ratio of perplexities, and the interval of the loss becomes a multiplicative
one.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, stats

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
    half = stats.t.ppf((1 + level) / 2, n - 1) * sd / np.sqrt(n)
    return mean, sd, mean - half, mean + half


def t_test_p(differences_S: ArrayLike) -> Floats:
    """Two-sided p value of mean zero over the last axis; NaN for fewer than two values.

    Values that are all equal give 1 where they are zero, and 0 elsewhere.
    """
    mean, sd, _, _ = t_interval(differences_S)
    n = np.shape(differences_S)[-1]
    if n < 2:
        return np.full_like(mean, np.nan)
    return np.asarray(2 * stats.t.sf(_ratio(np.abs(mean), sd / np.sqrt(n)), n - 1))


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
    return np.asarray(stats.t.sf(_ratio(margin - np.abs(mean), sd / np.sqrt(n)), n - 1))


def holm(p_values: ArrayLike) -> Floats:
    """Holm's (1979) adjusted p values of one family; NaN ones stay NaN and do not count."""
    p = np.asarray(p_values, dtype=float)
    adjusted = np.full_like(p, np.nan)
    tested = np.flatnonzero(~np.isnan(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(p[order] * factors))
    return adjusted


def interval(values_S: ArrayLike, level: float = 0.95) -> Interval:
    """`t_interval` of one list of values."""
    mean, sd, low, high = t_interval(values_S, level)
    return Interval(np.shape(values_S)[-1], float(mean), float(sd), float(low), float(high), level)


def paired_difference(a_S: ArrayLike, b_S: ArrayLike, level: float = 0.95) -> PairedDifference:
    """a - b, seed by seed. Errors: ValueError where the two are not of one length."""
    a, b = np.asarray(a_S, dtype=float), np.asarray(b_S, dtype=float)
    if a.shape != b.shape:
        raise ValueError(f"pairs need as many values on both sides, not {a.shape} and {b.shape}")
    difference = a - b
    base = interval(difference, level)
    same_sign = bool(len(difference) and (np.all(difference > 0) or np.all(difference < 0)))
    return PairedDifference(**vars(base), p=float(t_test_p(difference)), same_sign=same_sign)


@dataclass(frozen=True)
class PooledNoise:
    """Noise of one run around "point + seed", estimated from all points together."""

    sd: float  # nats; NaN where `degrees` is 0
    degrees: int

    def half_width(self, n: int, level: float = 0.95) -> float:
        """Half of the t interval of a paired difference over n seeds."""
        if self.degrees < 1 or n < 1:
            return float("nan")
        return float(stats.t.ppf((1 + level) / 2, self.degrees)) * self.sd * float(np.sqrt(2 / n))

    def p(self, difference: float, n: int) -> float:
        """Two-sided p value of a mean paired difference over n seeds."""
        if self.degrees < 1 or n < 1:
            return float("nan")
        error = np.asarray(self.sd * np.sqrt(2 / n))
        return float(2 * stats.t.sf(_ratio(np.abs(np.asarray(difference)), error), self.degrees))


def pooled_noise(losses_PS: ArrayLike) -> PooledNoise:
    """Residual noise of losses [points P, seeds S] in the additive model loss = point + seed + noise.

    The randomised block design (Fisher): (P-1)(S-1) degrees of freedom, against S-1 for one pair alone; fewer
    where runs are missing (NaN). It holds if the noise is alike at all points, which few seeds cannot check.
    """
    losses = np.asarray(losses_PS, dtype=float)
    point, seed = np.nonzero(~np.isnan(losses))
    design = np.hstack([np.eye(losses.shape[0])[point], np.eye(losses.shape[1])[seed]])
    values = losses[point, seed]
    degrees = len(values) - int(np.linalg.matrix_rank(design)) if len(values) else 0
    if degrees < 1:
        return PooledNoise(float("nan"), 0)
    residual = values - design @ np.linalg.lstsq(design, values, rcond=None)[0]
    return PooledNoise(float(np.sqrt(residual @ residual / degrees)), degrees)


def minimum_detectable_difference(sd: float, n: int, level: float = 0.95, power: float = 0.8) -> float:
    """The true difference that the paired t test finds with probability `power` (from the noncentral t).

    `sd` is that of the paired differences, n the number of pairs; NaN where n < 2. With an sd that was itself
    estimated from few pairs this is a rough guide.
    """
    if n < 2 or not np.isfinite(sd):
        return float("nan")
    threshold = stats.t.ppf((1 + level) / 2, n - 1)
    # t = (Z + shift) / W with W the estimated over the true sd; W runs over its quantiles (scipy's nct fails
    # far out)
    quantiles = (np.arange(8000) + 0.5) / 8000
    reach = threshold * np.sqrt(stats.chi2.ppf(quantiles, n - 1) / (n - 1))

    def missing(shift: float) -> float:
        found = stats.norm.sf(reach - shift) + stats.norm.cdf(-reach - shift)
        return float(found.mean()) - power

    return float(optimize.brentq(missing, 0, 10 * threshold)) * sd / float(np.sqrt(n))


def _ratio(top: Floats, bottom: Floats) -> Floats:
    """top / bottom, where a zero bottom gives 0 or an infinity with the sign of top."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.asarray(top, dtype=float) / bottom
    return np.where(np.isnan(ratio) & (np.asarray(bottom) == 0), 0.0, ratio)
