"""Knock-outs over seeds. Experts have no identity across seeds, so what is averaged is a number of the whole layer.

For a label, that number is the CONCENTRATION of the damage: for each expert that is removed, the largest over domains
of (the change of the loss in the domain less that in all others together), where the change is what is beyond as many
picks removed at random, since some domains lose more whatever is taken from them; the mean over experts, nats per
token.
It is above zero by chance alone, as the largest of several always is; so its null deals the domains out anew over the
documents, which keeps every document's own taste, and the headline is the excess over the null's mean.

Two p values, and a claim needs both: `p_seeds` (t test of the mean excess: would other seeds show it?) and
`p_documents` (the null of the mean over seeds, domains dealt out in the same way for all: would it be there if domains
meant nothing?). The larger is Holm-adjusted over the points and layers of a label.

Shape suffixes: D documents, M domains, R draws of the null, X experts removed.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from moe_study.analysis.specialisation.exchanges import DocumentExchange
from moe_study.analysis.specialisation.knockout import (
    ALL_LAYERS,
    ALPHA,
    NONE,
    Array,
    DomainChange,
    Kind,
    KnockedRun,
    domain_changes,
)
from moe_study.analysis.specialisation.layer_trace import Ints
from moe_study.analysis.statistics import Interval, holm, interval, t_test_p
from moe_study.errors import DataError

PERMUTATIONS = 1000
FEWEST_SEEDS = 2
MOVABLE = 0.9  # of the documents, for a label that others are dealt out within
SAME = 1e-12  # draws that differ by rounding alone reach the measured value, nats per token


@dataclass(frozen=True)
class Concentration:
    """Of one layer of one run and one label."""

    value: float
    null_R: NDArray[np.float64]

    @property
    def excess(self) -> float:
        return self.value - float(self.null_R.mean())


@dataclass(frozen=True)
class RunOfPoint:
    """One run, as it was knocked out."""

    point: str  # its label
    seed: int
    leaks: bool  # the routing reads later tokens
    changes: tuple[DomainChange, ...]
    concentrations: dict[tuple[int, str], Concentration]  # by layer and label
    layers: tuple[int, ...]  # that decide


@dataclass(frozen=True)
class LayerOverSeeds:
    """Concentration of the damage by domain in one layer of one point."""

    layer: int
    label: str
    value: Interval
    excess: Interval
    null_mean: float
    pairs: Interval  # of an expert and a domain that it is needed for, by run
    p_seeds: float
    p_documents: float
    p_adjusted: float = np.nan

    @property
    def shown(self) -> bool:
        return self.excess.mean > 0 and self.p_adjusted <= ALPHA


@dataclass(frozen=True)
class KindOverSeeds:
    """Change of the loss of all tokens, mean over experts, by what was done to a layer."""

    layer: int
    kind: Kind
    change: Interval
    null: Interval  # NaN where there is none


@dataclass(frozen=True)
class KnockedPoint:
    """One design point over its seeds."""

    label: str
    leaks: bool
    runs: tuple[RunOfPoint, ...]
    layers: tuple[LayerOverSeeds, ...]
    kinds: tuple[KindOverSeeds, ...]

    @property
    def tested(self) -> bool:
        return len(self.runs) >= FEWEST_SEEDS


def run_of_point(point: str, seed: int, leaks: bool, run: KnockedRun, permutations: int = PERMUTATIONS) -> RunOfPoint:
    """All numbers of one run."""
    layers = tuple(sorted({damage.of.layer for damage in run.damages} - {ALL_LAYERS}))
    found = {
        (layer, label): concentration(run, layer, label, permutations)
        for layer in layers
        for label in run.labels
        if _domains(run, label) > 1 and _removals(run, layer)
    }
    return RunOfPoint(point, seed, leaks, tuple(domain_changes(run)), found, layers)


def concentration(
    run: KnockedRun, layer: int, label: str, permutations: int = PERMUTATIONS, seed: int = 0
) -> Concentration:
    """The layer's number and its null; domains are dealt out over the documents that have one, and a loss.

    Within the values of every other label that leaves them free to move: topics within each language, so that what
    languages do is no chance of topics.
    """
    codes_D, names = _codes(run, label), run.labels[label][1]
    exchange = DocumentExchange(codes_D, seed, _strata(run, label))
    draws_RD = np.stack([codes_D, *(exchange.draw() for _ in range(permutations))])
    nats_DX = np.stack(_removals(run, layer), 1)
    value_R = _concentrations(draws_RD, len(names), nats_DX, run.tokens_D)
    return Concentration(float(value_R[0]), value_R[1:])


def _concentrations(draws_RD: Ints, domains: int, nats_DX: Array, tokens_D: Array) -> Array:
    member_MRD = (draws_RD == np.arange(domains)[:, None, None]).astype(float)
    nats_MRX, tokens_MR1 = member_MRD @ nats_DX, (member_MRD @ tokens_D)[..., None]
    with np.errstate(divide="ignore", invalid="ignore"):
        change_MRX = nats_MRX / tokens_MR1 - (nats_MRX.sum(0) - nats_MRX) / (tokens_MR1.sum(0) - tokens_MR1)
    return np.asarray(np.nanmax(change_MRX, 0).mean(1))  # domains without a document give no number


def _removals(run: KnockedRun, layer: int) -> list[Array]:
    """What each document loses by the removal of each expert, beyond as many picks at random."""
    removed = [each for each in run.damages if each.of.layer == layer and each.of.kind is Kind.REMOVE]
    return [each.nats_D - each.null_ND.mean(0) for each in removed]


def _codes(run: KnockedRun, label: str) -> Ints:
    """Of the documents that have a loss; NONE for the others."""
    return np.where(run.tokens_D > 0, run.labels[label][0], NONE)


def _strata(run: KnockedRun, label: str) -> Ints:
    """Codes of the documents that may trade."""
    codes_D, strata_D = _codes(run, label), np.zeros(len(run.tokens_D), np.int64)
    for other in (other for other in run.labels if other != label):
        finer_D = np.unique(np.stack([strata_D, _codes(run, other)]), axis=1, return_inverse=True)[1]
        if DocumentExchange(codes_D, 0, finer_D).movable >= MOVABLE:
            strata_D = finer_D
    return strata_D


def _domains(run: KnockedRun, label: str) -> int:
    """How many occur."""
    return len(np.setdiff1d(_codes(run, label), NONE))


def points_of(runs: Sequence[RunOfPoint]) -> list[KnockedPoint]:
    """The points of `runs`, in the order of their first run, seeds in order, p values adjusted by label.

    DataError where the seeds of a point were not knocked out alike.
    """
    by_point: dict[str, list[RunOfPoint]] = {}
    for run in runs:
        by_point.setdefault(run.point, []).append(run)
    return _adjusted([_point(sorted(own, key=lambda run: run.seed)) for own in by_point.values()])


def _point(runs: Sequence[RunOfPoint]) -> KnockedPoint:
    first = runs[0]
    if any(run.concentrations.keys() != first.concentrations.keys() for run in runs):
        raise DataError(f"the seeds of {first.point} were not knocked out in the same layers, or by the same labels")
    return KnockedPoint(
        first.point,
        any(run.leaks for run in runs),
        tuple(runs),
        tuple(_over_seeds(runs, *key) for key in first.concentrations),
        tuple(_kinds(runs)),
    )


def _over_seeds(runs: Sequence[RunOfPoint], layer: int, label: str) -> LayerOverSeeds:
    each = [run.concentrations[layer, label] for run in runs]
    excess = [one.excess for one in each]
    null_R, value = np.mean([one.null_R for one in each], 0), float(np.mean([one.value for one in each]))
    reached = 1 + int((null_R >= value - SAME).sum())
    return LayerOverSeeds(
        layer,
        label,
        value=interval([one.value for one in each]),
        excess=interval(excess),
        null_mean=float(null_R.mean()),
        pairs=interval([len(needed_pairs(run, label, layer)) for run in runs]),
        p_seeds=float(t_test_p(excess)),
        p_documents=reached / (1 + len(null_R)),
    )


def needed_pairs(run: RunOfPoint, label: str, layer: int) -> list[DomainChange]:
    """Rows of experts that a domain needs, by expert."""
    return [row for row in run.changes if row.needed and row.label == label and row.layer == layer]


def _kinds(runs: Sequence[RunOfPoint]) -> Iterator[KindOverSeeds]:
    asked = dict.fromkeys((row.layer, row.kind) for row in runs[0].changes if row.label == "")
    for layer, kind in asked:
        means = [_overall(run, layer, kind) for run in runs]
        yield KindOverSeeds(layer, kind, *(interval(values) for values in zip(*means, strict=True)))


def _overall(run: RunOfPoint, layer: int, kind: Kind) -> tuple[float, float]:
    """(change, null) of all tokens, mean over experts."""
    rows = [row for row in run.changes if (row.layer, row.kind, row.label) == (layer, kind, "")]
    return float(np.mean([row.change for row in rows])), float(np.mean([row.null_mean for row in rows]))


def _adjusted(points: Sequence[KnockedPoint]) -> list[KnockedPoint]:
    every = [row for point in points for row in point.layers]
    adjusted: dict[int, float] = {}
    for label in dict.fromkeys(row.label for row in every):
        family = [row for row in every if row.label == label]
        p_values = holm([np.maximum(row.p_seeds, row.p_documents) for row in family])
        adjusted |= {id(row): float(p) for row, p in zip(family, p_values, strict=True)}
    return [
        replace(point, layers=tuple(replace(row, p_adjusted=adjusted[id(row)]) for row in point.layers))
        for point in points
    ]
