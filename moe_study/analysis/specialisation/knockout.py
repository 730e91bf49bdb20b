"""What breaks when routes are changed: the loss by domain, beside the same done to random experts of equal load.

Input is how much each document loses by each intervention (posthoc/knockout/ measures that); documents are what is
resampled, since their tokens are not exchangeable. All differences are paired: changed less unchanged, token by token.

Shape suffixes: D documents, N draws of the null, B resamples, X interventions, M domains.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from moe_study.analysis.specialisation.layer_trace import Ints
from moe_study.analysis.statistics import holm, t_above, t_quantile

Array = NDArray[np.float64]
Labels = Mapping[str, tuple[Ints, tuple[str, ...]]]  # label -> codes by document (-1: none), and their names

ALL_LAYERS = -1
NONE = -1  # in the place of an expert
ALPHA = 0.05
LEVEL = 0.95
RESAMPLES = 1000


class Kind(StrEnum):
    """What is done to the routes."""

    REMOVE = "remove"  # the picks of one expert are gone
    REROUTE = "reroute"  # and go to each token's next best expert
    SWAP = "swap"  # picks of two experts are exchanged
    LOSE_BEST = "lose_best"  # each token loses the expert of its largest weight
    ONE_EXPERT = "one_expert"  # all picks go to one expert
    RANDOM_ROUTES = "random_routes"  # each token has as many picks as before, of random experts


@dataclass(frozen=True)
class RouteChange:
    """One thing that is done to the routes of a layer."""

    layer: int  # ALL_LAYERS: of all that decide
    kind: Kind
    expert: int = NONE
    other: int = NONE


@dataclass(frozen=True)
class Damage:
    """What a change of routes did to each document."""

    of: RouteChange
    nats_D: Array  # loss of all its tokens, changed less unchanged; random routes: mean over draws
    moved_D: Array  # assignments (token, expert) that are gone
    null_ND: Array  # the same done to random experts of equal load; no rows where there is no null


@dataclass(frozen=True)
class KnockedRun:
    """All that was done to one run over one probe."""

    tokens_D: Array  # tokens of each document that have a loss
    assigned: Mapping[int, Array]  # layer -> assignments of each document
    labels: Labels
    damages: tuple[Damage, ...]


@dataclass(frozen=True)
class DomainChange:
    """One row of the finding `knockout` (posthoc/knockout says what the columns mean)."""

    layer: int
    kind: Kind
    expert: int
    other: int
    label: str
    domain: str
    change: float
    low: float
    high: float
    null_mean: float
    null_low: float
    null_high: float
    excess: float
    excess_low: float
    excess_high: float
    off_target: float
    off_target_domain: str
    p: float
    needed: bool
    tokens: int
    documents: int
    share: float
    share_overall: float


@dataclass(frozen=True)
class _Estimates:
    """Of one domain: changes X, their excess over the null, and deviations of both over documents."""

    change_X: Array
    change_sd_X: Array
    excess_X: Array
    excess_sd_X: Array
    documents: int

    @property
    def freedom(self) -> int:
        return self.documents - 1


def domain_changes(run: KnockedRun, seed: int = 0, resamples: int = RESAMPLES) -> list[DomainChange]:
    """Every intervention by every domain, and by all tokens together (label and domain ""); p values adjusted."""
    random = np.random.default_rng(seed)
    everything = np.zeros(len(run.tokens_D), np.int64), ("",)
    found: list[DomainChange] = []
    for label, (codes_D, names) in {"": everything, **run.labels}.items():
        codes_D = np.where(run.tokens_D > 0, codes_D, NONE)
        members = {name: np.flatnonzero(codes_D == code) for code, name in enumerate(names)}
        members = {name: member for name, member in members.items() if len(member)}
        estimates = [_estimates(run, member, random, resamples) for member in members.values()]
        rows = [
            _row(run, place, label, domain, estimates, list(members), member)
            for place in range(len(run.damages))
            for domain, member in members.items()
        ]
        found += _adjusted(rows)
    return found


def _estimates(run: KnockedRun, member: Ints, random: np.random.Generator, resamples: int) -> _Estimates:
    """Whole documents are drawn with replacement; the deviation is that of the ratio of nats and tokens."""
    nats_DX = np.stack([damage.nats_D[member] for damage in run.damages], 1)
    null_DX = np.stack([_null_mean(damage)[member] for damage in run.damages], 1)
    tokens_D, documents = run.tokens_D[member], len(member)
    both_DX = np.concatenate([nats_DX, nats_DX - null_DX], 1)
    mean_X = both_DX.sum(0) / tokens_D.sum()
    sd_X = np.full(mean_X.shape, np.nan)
    if documents > 1:
        times_BD = random.multinomial(documents, np.full(documents, 1 / documents), size=resamples)
        resampled_BX = times_BD @ both_DX / (times_BD @ tokens_D)[:, None]
        sd_X = resampled_BX.std(0, ddof=1) * (documents / (documents - 1)) ** 0.5
    (change, excess), (change_sd, excess_sd) = np.split(mean_X, 2), np.split(sd_X, 2)
    return _Estimates(change, change_sd, excess, excess_sd, documents)


def _null_mean(damage: Damage) -> Array:
    return damage.null_ND.mean(0) if len(damage.null_ND) else np.full(len(damage.nats_D), np.nan)


def _row(
    run: KnockedRun,
    place: int,
    label: str,
    domain: str,
    estimates: Sequence[_Estimates],
    domains: Sequence[str],
    member: Ints,
) -> DomainChange:
    damage, here = run.damages[place], domains.index(domain)
    own, tokens = estimates[here], run.tokens_D[member].sum()
    others = [n for n in range(len(domains)) if n != here]
    worst = max(others, key=lambda n: float(estimates[n].change_X[place]), default=None)
    half, excess_half = (
        t_quantile((1 + LEVEL) / 2, own.freedom) * sd_X[place] if own.freedom else np.nan
        for sd_X in (own.change_sd_X, own.excess_sd_X)
    )
    mean, excess = float(own.change_X[place]), float(own.excess_X[place])
    band = _band(damage.null_ND[:, member].sum(1) / tokens)
    p = _p_needed(place, here, estimates) if damage.of.kind is Kind.REMOVE else np.nan
    return DomainChange(
        **vars(damage.of),
        label=label,
        domain=domain,
        change=mean,
        low=mean - half,
        high=mean + half,
        null_mean=band[1],
        null_low=band[0],
        null_high=band[2],
        excess=excess,
        excess_low=excess - excess_half,
        excess_high=excess + excess_half,
        off_target=np.nan if worst is None else float(estimates[worst].change_X[place]),
        off_target_domain="" if worst is None else domains[worst],
        p=p,
        needed=False,
        tokens=int(tokens),
        documents=len(member),
        share=_share(run, damage, member),
        share_overall=_share(run, damage, np.arange(len(run.tokens_D))),
    )


def _band(null_N: Array) -> tuple[float, float, float]:
    """(low, mean, high): where a further draw lies with 95%, for normal draws."""
    if not len(null_N):
        return np.nan, np.nan, np.nan
    mean, half, n = float(null_N.mean()), np.nan, len(null_N)
    if n > 1:
        half = float(t_quantile((1 + LEVEL) / 2, n - 1) * null_N.std(ddof=1) * (1 + 1 / n) ** 0.5)
    return mean - half, mean, mean + half


def _share(run: KnockedRun, damage: Damage, member: Ints) -> float:
    """Share of the assignments that the expert had."""
    if damage.of.kind not in (Kind.REMOVE, Kind.REROUTE):
        return np.nan
    assigned = run.assigned[damage.of.layer][member].sum()
    return float(damage.moved_D[member].sum() / assigned) if assigned else np.nan


def _p_needed(place: int, here: int, estimates: Sequence[_Estimates]) -> float:
    """Of "no more than at random, or no more than in some other domain": the largest p value of all comparisons.

    In another domain both the change and its excess over the null must be smaller: some domains lose more than others
    whatever is taken from them. A claim is made where all one-sided tests reject (intersection-union, Berger 1982).
    Domains of one document cannot be compared.
    """
    own = estimates[here]
    others = [other for other in estimates if other is not own and other.freedom]
    if not others or not own.freedom:
        return np.nan
    p_values = [_p_larger(own.excess_X[place], own.excess_sd_X[place], own.freedom)]
    for other in others:
        for name in ("change", "excess"):
            mean_X = getattr(own, f"{name}_X") - getattr(other, f"{name}_X")
            sds = getattr(own, f"{name}_sd_X")[place], getattr(other, f"{name}_sd_X")[place]
            p_values.append(_p_larger(mean_X[place], np.hypot(*sds), _welch(sds, (own.freedom, other.freedom))))
    return float(np.max(p_values))


def _p_larger(mean: float, sd: float, freedom: float) -> float:
    """One-sided, of a mean of at most 0."""
    if np.isnan(sd):
        return np.nan
    if sd == 0:
        return 0.0 if mean > 0 else 1.0
    return float(t_above(mean / sd, freedom))


def _welch(sds: tuple[float, float], freedoms: tuple[int, int]) -> float:
    """Degrees of freedom of a difference (Welch and Satterthwaite)."""
    parts = [sd**4 / freedom for sd, freedom in zip(sds, freedoms, strict=True)]
    return (sds[0] ** 2 + sds[1] ** 2) ** 2 / sum(parts) if sum(parts) else float(sum(freedoms))


def _adjusted(rows: Sequence[DomainChange]) -> Iterator[DomainChange]:
    """Holm over experts and domains of all layers of one label; nothing is needed by all tokens (label "")."""
    p_values = holm([row.p for row in rows])
    for row, p in zip(rows, p_values, strict=True):
        yield replace(row, p=float(p), needed=bool(p <= ALPHA))
