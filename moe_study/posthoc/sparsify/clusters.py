"""Balanced clusters of a layer's hidden units: the experts that a trained network falls into.

Units whose weights look alike tend to be active together, so that a token needs few of the clusters
(MoEfication, Zhang et al., 2110.01786, section 3.1: balanced k-means over the rows of the first weight matrix,
each scaled to length 1). Whether they do is for the control to say: a random partition may lose less.

Shape suffixes: H hidden units, D inputs, C clusters, S units of a cluster (H = C * S).
"""

import itertools

import numpy as np

RESTARTS = 4
ROUNDS = 100  # of one start; it usually settles much earlier


def balanced_clusters(rows_HD: np.ndarray, clusters: int, seed: int = 0) -> np.ndarray:
    """A partition of the rows into clusters of equal size, (C, S): each row's index stands in it once.

    Balanced k-means from k-means++ seeds, the best of a few starts; a function of its arguments alone.
    Clusters are in the order of their first member, and members ascend. C must divide H.
    """
    rows_HD = _unit_length(np.asarray(rows_HD, dtype=np.float64))
    draw = np.random.default_rng(seed)
    found = [_start(rows_HD, clusters, draw) for _ in range(RESTARTS)]
    _, label_H = min(found, key=lambda pair: pair[0])
    return members(label_H, clusters)


def random_clusters(units: int, clusters: int, seed: int = 0) -> np.ndarray:
    """The control: a partition into clusters of equal size that looks at no weight, (C, S)."""
    label_H = np.random.default_rng(seed).permutation(np.repeat(np.arange(clusters), units // clusters))
    return members(label_H, clusters)


def members(label_H: np.ndarray, clusters: int) -> np.ndarray:
    """Labels as lists of members, (C, S)."""
    by_cluster_CS = np.argsort(label_H, kind="stable").reshape(clusters, -1)
    return by_cluster_CS[np.argsort(by_cluster_CS[:, 0])]


def _start(rows_HD: np.ndarray, clusters: int, draw: np.random.Generator) -> tuple[float, np.ndarray]:
    """One k-means from fresh seeds: its cost (sum of squared distances) and labels."""
    cost_HC = _squared_distances(rows_HD, _seeds(rows_HD, clusters, draw))
    label_H = _fill(cost_HC)
    for _ in range(ROUNDS):
        before_H = label_H
        label_H = improve(cost_HC, label_H)
        centres_CD = np.stack([rows_HD[label_H == c].mean(0) for c in range(clusters)])
        cost_HC = _squared_distances(rows_HD, centres_CD)
        if (label_H == before_H).all():
            break
    return float(cost_HC[np.arange(len(label_H)), label_H].sum()), label_H


def _seeds(rows_HD: np.ndarray, clusters: int, draw: np.random.Generator) -> np.ndarray:
    """k-means++: each further seed is drawn with probability proportional to its squared distance."""
    seeds = [rows_HD[draw.integers(len(rows_HD))]]
    for _ in range(clusters - 1):
        nearest_H = _squared_distances(rows_HD, np.stack(seeds)).min(1) + 1e-12
        seeds.append(rows_HD[draw.choice(len(rows_HD), p=nearest_H / nearest_H.sum())])
    return np.stack(seeds)


def _fill(cost_HC: np.ndarray) -> np.ndarray:
    """A first balanced assignment: those with most to lose choose first, among the clusters with room."""
    units, clusters = cost_HC.shape
    room_C = np.full(clusters, units // clusters)
    label_H = np.empty(units, dtype=np.int64)
    for unit in np.argsort(cost_HC.min(1) - cost_HC.mean(1), kind="stable"):
        open_cost_C = np.where(room_C > 0, cost_HC[unit], np.inf)
        label_H[unit] = best = int(open_cost_C.argmin())
        room_C[best] -= 1
    return label_H


def improve(cost_HC: np.ndarray, label_H: np.ndarray) -> np.ndarray:
    """Labels of equal sizes and lower total cost: members of two clusters are exchanged until no pair gains.

    An exact assignment (Hungarian method) costs minutes at the sizes of GPT-2, and comes out about as good.
    """
    label_H, improved = label_H.copy(), True
    while improved:
        improved = False
        for a, b in itertools.combinations(range(cost_HC.shape[1]), 2):
            in_a_S, in_b_S = np.flatnonzero(label_H == a), np.flatnonzero(label_H == b)
            gain_a_S, gain_b_S = (cost_HC[in_a_S, a] - cost_HC[in_a_S, b], cost_HC[in_b_S, b] - cost_HC[in_b_S, a])
            order_a_S, order_b_S = np.argsort(-gain_a_S, kind="stable"), np.argsort(-gain_b_S, kind="stable")
            swaps = int((gain_a_S[order_a_S] + gain_b_S[order_b_S] > 1e-12).sum())
            if swaps:
                label_H[in_a_S[order_a_S[:swaps]]], label_H[in_b_S[order_b_S[:swaps]]] = b, a
                improved = True
    return label_H


def _squared_distances(rows_HD: np.ndarray, centres_CD: np.ndarray) -> np.ndarray:
    products_HC = rows_HD @ centres_CD.T
    return np.maximum((rows_HD**2).sum(1)[:, None] - 2 * products_HC + (centres_CD**2).sum(1), 0)


def _unit_length(rows_HD: np.ndarray) -> np.ndarray:
    return rows_HD / np.maximum(np.linalg.norm(rows_HD, axis=1, keepdims=True), 1e-12)
