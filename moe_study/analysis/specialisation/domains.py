"""How differently domains are routed: shares by domain, and Jensen-Shannon distances with intervals over documents.

Shapes: T tokens, D documents, L domains (values of a label of documents), E experts, B resamples.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from moe_study.analysis.specialisation.information import x_log_x
from moe_study.analysis.specialisation.layer_trace import MISSING, LayerTrace, assignments
from moe_study.analysis.statistics import t_quantile

Array = NDArray[np.float64]

RESAMPLES = 1000
HALVINGS = 100
BITS = float(np.log(2))


@dataclass(frozen=True)
class Shares:
    """Where the tokens of each domain go."""

    names: tuple[str, ...]
    share_LE: Array  # rows sum to 1; NaN for a domain without tokens
    tokens_L: Array

    @property
    def lift_LE(self) -> Array:
        """Share of an expert in a domain over its share in all of them together: 1 is what chance gives."""
        present_L = self.tokens_L > 0
        overall_E = self.tokens_L[present_L] @ self.share_LE[present_L] / max(1.0, self.tokens_L.sum())
        with np.errstate(divide="ignore", invalid="ignore"):
            return self.share_LE / overall_E


def shares(layer: LayerTrace, name: str, by: str = "picks", kept_only: bool = False) -> Shares:
    """Share of the assignments (by="picks") or of the gate mass (by="gate") of each expert, by any label.

    A token counts 1, however many experts it has.
    """
    codes_T, names = layer.label(name)
    table = assignments(layer, by, kept_only).table(codes_T, len(names))
    tokens_L = table.sum(1)
    share_LE = np.divide(table, tokens_L[:, None], out=np.full_like(table, np.nan), where=tokens_L[:, None] > 0)
    return Shares(names, share_LE, tokens_L)


def weights_by_document(layer: LayerTrace, by: str = "picks") -> Array:
    """[document D, expert E]: the weight that the tokens of each document send to each expert."""
    return assignments(layer, by).table(layer.document_T, layer.documents)


def divergence(first_E: Array, second_E: Array) -> Array:
    """Jensen-Shannon divergence in bits of weights [..., E] that need not sum to 1 (Lin 1991).

    JSD(p, q) = H((p + q) / 2) - (H(p) + H(q)) / 2, from 0 to 1; its root is a distance (Endres and Schindelin 2003).
    """
    p, q = first_E / first_E.sum(-1, keepdims=True), second_E / second_E.sum(-1, keepdims=True)
    return np.maximum(0, (x_log_x(p) + x_log_x(q) - 2 * x_log_x((p + q) / 2)).sum(-1) / (2 * BITS))


@dataclass(frozen=True)
class DomainDistance:
    """Jensen-Shannon distance of two domains, 0 (the same shares) to 1 (no expert in common)."""

    first: str
    second: str
    plug_in: float  # of the documents at hand: biased upward
    distance: float  # less its bias, estimated by the bootstrap
    low: float
    high: float
    floor: float  # what two samples of one domain come to, by split halves
    p: float  # of "the two are one domain", documents exchanged between them
    documents: tuple[int, int]


def domain_distances(
    layer: LayerTrace,
    name: str,
    by: str = "picks",
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> list[DomainDistance]:
    """Distances of every two domains that have at least two documents each.

    The interval is made on the divergence, which is smooth where the distance has a corner (at 0). Its centre is twice
    the measured value less the mean of the bootstrap, since a resample is biased by as much again; its half is the
    bootstrap's deviation times Student's t. Whole documents are resampled, within domains. It covers the truth as often
    as it says where domains differ, and more often where they hardly do.
    The floor: a domain's documents are halved at random; halves have half the documents, so the mean divergence is
    halved, and the mean of the two domains' is taken.
    """
    random = np.random.default_rng(seed)
    codes_D, names = layer.document_label(name)
    weights_DE = weights_by_document(layer, by)
    codes_D = np.where(weights_DE.sum(1) > 0, codes_D, MISSING)
    domains = {code: weights_DE[codes_D == code] for code in range(len(names)) if (codes_D == code).sum() > 1}
    resampled = {code: _resampled(documents_DE, resamples, random) for code, documents_DE in domains.items()}
    floors = {code: _halves_divergence(documents_DE, random) / 2 for code, documents_DE in domains.items()}
    found = []
    for first, second in combinations(domains, 2):
        sizes = len(domains[first]), len(domains[second])
        measured = float(divergence(domains[first].sum(0), domains[second].sum(0)))
        centre, half = _interval(measured, divergence(resampled[first], resampled[second]), sizes, level)
        null_R = _exchanged_divergences(domains[first], domains[second], resamples, random)
        low, distance, high = np.sqrt(np.clip([centre - half, centre, centre + half], 0, 1))
        found.append(
            DomainDistance(
                names[first],
                names[second],
                plug_in=measured**0.5,
                distance=float(distance),
                low=float(low),
                high=float(high),
                floor=float(np.sqrt((floors[first] + floors[second]) / 2)),
                p=(1 + int((null_R >= measured - 1e-12).sum())) / (1 + resamples),
                documents=sizes,
            )
        )
    return found


def _interval(measured: float, resampled_B: Array, sizes: Sequence[int], level: float) -> tuple[float, float]:
    """(centre, half width): less the bias; deviation and degrees of freedom as of the domain with fewer documents."""
    few = min(sizes)
    deviation = float(resampled_B.std(ddof=1)) * (few / (few - 1)) ** 0.5
    return 2 * measured - float(resampled_B.mean()), t_quantile((1 + level) / 2, few - 1) * deviation


def _resampled(weights_DE: Array, resamples: int, random: np.random.Generator) -> Array:
    """[B, E]: sums over documents drawn with replacement."""
    documents = len(weights_DE)
    times_BD = random.multinomial(documents, np.full(documents, 1 / documents), size=resamples)
    return times_BD @ weights_DE


def _halves_divergence(weights_DE: Array, random: np.random.Generator) -> float:
    """Mean divergence between two random halves of the documents; of an odd number one is left out."""
    half = len(weights_DE) // 2
    order_BD = random.permuted(np.tile(np.arange(len(weights_DE)), (HALVINGS, 1)), axis=1)
    first, second = weights_DE[order_BD[:, :half]].sum(1), weights_DE[order_BD[:, half : 2 * half]].sum(1)
    return float(divergence(first, second).mean())


def _exchanged_divergences(first_DE: Array, second_DE: Array, draws: int, random: np.random.Generator) -> Array:
    """Divergences after the documents of two domains are dealt out anew over both."""
    both_DE = np.concatenate([first_DE, second_DE])
    member_D = (np.arange(len(both_DE)) < len(first_DE)).astype(float)
    members_BD = random.permuted(np.tile(member_D, (draws, 1)), axis=1)
    return divergence(members_BD @ both_DE, (1 - members_BD) @ both_DE)
