"""How much of what experts share the similarity of the hidden states explains by itself.

A router is a function of the hidden state, and hidden states of one language or topic are alike: an expert "for German"
may be no more than the router cutting a space in which German already lies apart (arXiv 2604.09780). So what experts
know of a label is set beside what clusters of the same hidden states know of it, as many clusters as experts, made
without the router; and it is asked what the expert knows within a cluster.

Shapes: T tokens, H width of the hidden state, C clusters, E experts.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.cluster import vq

from moe_study.analysis.specialisation.information import information
from moe_study.analysis.specialisation.layer_trace import MISSING, Ints, LayerTrace, assignments, combined
from moe_study.analysis.specialisation.nulls import (
    PERMUTATIONS,
    Measured,
    document_label,
    document_label_given,
    token_label,
)
from moe_study.errors import DataError

Array = NDArray[np.floating]

STARTS = 3
TOKENS_TO_CLUSTER = 20_000
PAIRS = 50_000
SIMILARITY_BINS = 20


def clusters(hidden_TH: Array, number: int, seed: int = 0, starts: int = STARTS) -> Ints:
    """The k-means cluster of each token (Lloyd, k-means++; the best of several starts).

    Centres come from at most 20,000 tokens drawn at random; then every token goes to the nearest.
    Errors: DataError where there are fewer different hidden states than clusters.
    """
    random = np.random.default_rng(seed)
    hidden_TH = np.asarray(hidden_TH, dtype=np.float64 if hidden_TH.dtype == np.float64 else np.float32)
    sample = hidden_TH
    if len(hidden_TH) > TOKENS_TO_CLUSTER:
        sample = hidden_TH[random.choice(len(hidden_TH), TOKENS_TO_CLUSTER, replace=False)]
    if len(sample) < number or len(np.unique(sample, axis=0)) < number:
        raise DataError(f"{len(sample):,} tokens do not have {number} different hidden states to cluster")
    best, least = None, np.inf
    for _ in range(starts):
        centres, _ = vq.kmeans2(sample, number, iter=50, minit="++", missing="warn", rng=random)
        distortion = float(np.square(vq.vq(sample, centres)[1]).sum())
        if distortion < least:
            best, least = centres, distortion
    return vq.vq(hidden_TH, best)[0].astype(np.int64)


def routed_by(layer: LayerTrace, code_T: Ints, values: int) -> LayerTrace:
    """The trace of a router that sends each token to the one expert of its code: clusters in the place of experts."""
    tokens = len(layer.token_T)
    return replace(
        layer,
        start_T1=np.arange(tokens + 1),
        expert_P=np.asarray(code_T),
        weight_P=np.ones(tokens),
        kept_P=np.ones(tokens, dtype=bool),
        experts=values,
    )


@dataclass(frozen=True)
class HiddenStateControl:
    """What experts and clusters of the hidden states know of one label."""

    expert: Measured
    cluster: Measured
    expert_given_cluster: Measured  # what is left of the expert's
    routes_explained: float  # I(expert; cluster) / H(expert): how much of the routes the clusters predict


def hidden_state_control(
    layer: LayerTrace,
    cluster_T: Ints,
    name: str,
    by: str = "picks",
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> HiddenStateControl:
    """The control for one label, of documents or of tokens.

    For a label of tokens all three are given the token id too: the expert's and the cluster's are I(.; L | token id),
    what is left is I(expert; L | token id and cluster).
    """
    cluster_T = np.asarray(cluster_T)
    by_cluster = routed_by(layer, cluster_T, int(cluster_T.max(initial=0)) + 1)
    if name in layer.document_labels:
        ours, theirs = (
            document_label([each], name, None, weighting, permutations, seed)[0]
            for each, weighting in ((layer, by), (by_cluster, "picks"))
        )
        left = document_label_given([layer], name, cluster_T, by, permutations, seed)[0]
    else:
        codes_T, _ = layer.label(name)
        both_T = combined(layer.token_T, cluster_T)
        ours, theirs, left = (
            token_label([each], codes_T, value_T, weighting, permutations, seed)[0].given
            for each, value_T, weighting in ((layer, None, by), (by_cluster, None, "picks"), (layer, both_T, by))
        )
    return HiddenStateControl(ours, theirs, left, information(layer, cluster_T, by=by).of_expert)


@dataclass(frozen=True)
class SharedExperts:
    """Experts that two tokens of different documents share, against how alike their hidden states are."""

    pairs: int
    overlap: float  # mean of the weight on the same experts, 0 to 1
    explained: float  # share of its variance between 20 bins of similarity
    same_label: float  # pairs of one label less pairs of two, as they come
    same_label_alike: float  # the same between pairs whose hidden states are equally alike


def shared_experts(
    layer: LayerTrace, hidden_TH: Array, name: str, by: str = "picks", pairs: int = PAIRS, seed: int = 0
) -> SharedExperts:
    """Overlap of two tokens: the sum over experts of the smaller of their weights. Similarity: the cosine.

    `same_label_alike` is the mean over bins of similarity of the difference, weighted by the pairs of one label: what a
    label adds to similarity. NaN where all pairs are of one kind.
    """
    random = np.random.default_rng(seed)
    codes_T, _ = layer.label(name)
    picks = assignments(layer, by)
    able = np.flatnonzero(picks.routed_T & (np.asarray(codes_T) != MISSING))
    if not len(able):
        raise DataError(f"no token has both a pick and the label {name!r}")
    first, second = random.choice(able, pairs), random.choice(able, pairs)
    apart = layer.document_T[first] != layer.document_T[second]
    first, second = first[apart], second[apart]
    used, place = np.unique(np.concatenate([first, second]), return_inverse=True)
    place_of_T = np.full(len(layer.token_T), -1)
    place_of_T[used] = np.arange(len(used))
    used_P = place_of_T[picks.token_P] >= 0
    weight_UE = np.zeros((len(used), layer.experts))
    np.add.at(weight_UE, (place_of_T[picks.token_P[used_P]], picks.expert_P[used_P]), picks.weight_P[used_P])
    unit_UH = np.asarray(hidden_TH, dtype=float)[used]
    unit_UH /= np.maximum(np.linalg.norm(unit_UH, axis=1, keepdims=True), 1e-300)
    a, b = place[: len(first)], place[len(first) :]
    overlap = np.minimum(weight_UE[a], weight_UE[b]).sum(1)
    similarity = (unit_UH[a] * unit_UH[b]).sum(1)
    same = np.asarray(codes_T)[first] == np.asarray(codes_T)[second]
    edges = np.quantile(similarity, np.linspace(0, 1, SIMILARITY_BINS + 1)[1:-1]) if len(similarity) else []
    bins = np.searchsorted(edges, similarity)
    return SharedExperts(
        pairs=len(overlap),
        overlap=float(overlap.mean()) if len(overlap) else float("nan"),
        explained=_between(overlap, bins),
        same_label=_difference(overlap, same, np.zeros_like(bins)),
        same_label_alike=_difference(overlap, same, bins),
    )


def _between(values: Array, bins: Ints) -> float:
    """Share of the variance that lies between bins (eta squared); NaN of values that are all equal."""
    if not len(values) or values.var() < 1e-15:
        return float("nan")
    sizes = np.bincount(bins)
    means = np.bincount(bins, values)[sizes > 0] / sizes[sizes > 0]
    return float((sizes[sizes > 0] * np.square(means - values.mean())).sum() / (len(values) * values.var()))


def _difference(values: Array, same: NDArray[np.bool_], bins: Ints) -> float:
    """Mean of the same less that of the others within each bin that has both, weighted by the same."""
    ones, others = np.bincount(bins, same), np.bincount(bins, ~same)
    both = (ones > 0) & (others > 0)
    if not both.any():
        return float("nan")
    mean_same = np.bincount(bins, values * same)[both] / ones[both]
    mean_other = np.bincount(bins, values * ~same)[both] / others[both]
    return float(np.average(mean_same - mean_other, weights=ones[both]))
