"""Mutual information of expert and label, for the labels as they are and for thousands of exchanged ones.

An assignment is a pair (token, expert) with a weight; the weights of a token sum to 1 (`layer_trace.assignments`). With
N(e, l) the weight of the tokens of label l on expert e and W the sum of all,

    I(E; L)     = sum over e, l     of N(e, l) / W    log( N(e, l) W / (N(e) N(l)) )
    I(E; L | V) = sum over e, l, v  of N(e, l, v) / W log( N(e, l, v) N(v) / (N(e, v) N(l, v)) )

in nats, the plug-in estimate (Shannon 1948; Cover and Thomas, ch. 2). A token with two experts counts as half a token
on each: its label says nothing about which of the two, so with k picks the information is at most log(E / k).

The plug-in estimate is biased upward, by about (E - 1)(L - 1) / 2T for exchangeable tokens and by many times that for
tokens that come in documents. So it is never shown without a null (`nulls`).

Shapes: T tokens, P picks, E experts, L labels, V values of what is given (token ids, clusters), R rows: the (v, e) that
occur.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moe_study.analysis.specialisation.layer_trace import MISSING, Assignments, Ints, LayerTrace, assignments

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Information:
    """Information of expert and label in nats, with the entropies that bound it."""

    nats: float
    label_entropy: float
    expert_entropy: float
    tokens: int  # that have a label and a pick

    @property
    def of_label(self) -> float:
        """Over the entropy of the label: 1 where the expert tells the label; NaN where all have one label."""
        return self.nats / self.label_entropy if self.label_entropy > 0 else float("nan")

    @property
    def of_expert(self) -> float:
        """Over the entropy of the expert: 1 where the label tells the expert; NaN where all go to one."""
        return self.nats / self.expert_entropy if self.expert_entropy > 0 else float("nan")


def entropy(weights: Array) -> float:
    """Entropy in nats of weights (of any shape) that need not sum to 1; 0 of nothing."""
    total = float(np.sum(weights))
    return float(np.log(total) - np.sum(x_log_x(weights)) / total) if total > 0 else 0.0


def information_of_table(table: Array) -> float:
    """I in nats of a table of weights [..., L, E]; the leading axes are what is given: I(E; L | given)."""
    total = float(table.sum())
    if total <= 0:
        return 0.0
    by_label, by_expert = x_log_x(table.sum(-1)).sum(), x_log_x(table.sum(-2)).sum()
    nats = x_log_x(table).sum() - by_label - by_expert + x_log_x(table.sum((-2, -1))).sum()
    return max(0.0, float(nats) / total)


def information(
    layer: LayerTrace, codes_T: Ints, given_T: Ints | None = None, by: str = "picks", kept_only: bool = False
) -> Information:
    """Information of expert with a label (codes by token, -1 for none), given another one or not; see the module.

    Divided by the entropy of the label with and without `given_T`, so that the two can be set side by side.
    """
    picks = labelled(assignments(layer, by, kept_only), codes_T)
    codes_T = np.asarray(codes_T)
    table = picks.table(codes_T, int(codes_T.max(initial=0)) + 1)
    tables = LabelTables(picks, np.zeros(picks.tokens, dtype=np.int64) if given_T is None else given_T)
    return Information(
        nats=tables.nats(codes_T),
        label_entropy=entropy(table.sum(1)),
        expert_entropy=entropy(table.sum(0)),
        tokens=int(picks.routed_T.sum()),
    )


def labelled(picks: Assignments, codes_T: Ints) -> Assignments:
    """The assignments of tokens that have a label."""
    has_P = np.asarray(codes_T)[picks.token_P] != MISSING
    return Assignments(
        picks.token_P[has_P], picks.expert_P[has_P], picks.weight_P[has_P], picks.tokens, picks.experts, picks.unit
    )


class LabelTables:
    """I(E; L | V) of one set of assignments for many labellings of its tokens, made to be fast.

    Counts that are whole multiples of one unit stay whole numbers, and x log x is looked up. Values v with one
    expert carry no information whatever the labels, so they are left out once and for all.
    """

    def __init__(self, picks: Assignments, given_T: Ints):
        values, given_T = np.unique(np.asarray(given_T), return_inverse=True)
        row_P = given_T[picks.token_P] * picks.experts + picks.expert_P
        weight_VE = np.bincount(row_P, picks.weight_P, minlength=len(values) * picks.experts)
        several_V = (weight_VE.reshape(len(values), picks.experts) > 0).sum(1) > 1
        use_P = several_V[given_T[picks.token_P]]
        order_P = np.flatnonzero(use_P)[np.argsort(row_P[use_P], kind="stable")]

        self.total = float(picks.weight_P.sum())
        self.whole = picks.unit is not None
        scale = 1 / picks.unit if picks.unit else 1.0
        self.total *= scale
        self.token_P = picks.token_P[order_P]
        rows, self.row_P = np.unique(row_P[order_P], return_inverse=True)
        self.weight_P = None if self.whole else picks.weight_P[order_P]
        self.first_row_V = np.flatnonzero(np.diff(rows // picks.experts, prepend=-1))
        weight_R = np.bincount(self.row_P, self.weight_P, minlength=len(rows))
        self.table = _WholeXLogX(int(weight_R.sum())) if self.whole else None
        self.constant = -self._sum(weight_R) + self._sum(self._over_experts(weight_R)) if len(rows) else 0.0
        self.rows = len(rows)

    def nats(self, codes_T: Ints) -> float:
        """I(E; L | V) for labels by token, which may not be missing where a token has a pick."""
        if not self.rows:
            return 0.0
        code_P = np.asarray(codes_T)[self.token_P]
        labels = int(code_P.max()) + 1
        cell_P = self.row_P * labels + code_P
        cells = np.bincount(cell_P, self.weight_P, minlength=self.rows * labels)
        by_label = self._over_experts(cells.reshape(self.rows, labels))
        return max(0.0, (self._sum(cells) - self._sum(by_label) + self.constant) / self.total)

    def _over_experts(self, by_row: NDArray) -> NDArray:
        return np.add.reduceat(by_row, self.first_row_V, axis=0)

    def _sum(self, weights: NDArray) -> float:
        return float((self.table or x_log_x)(weights).sum())


class _WholeXLogX:
    """x log x of whole numbers 0 .. largest, looked up."""

    def __init__(self, largest: int):
        self.values = x_log_x(np.arange(largest + 1, dtype=float))

    def __call__(self, counts: NDArray) -> Array:
        return self.values[counts]


def x_log_x(weights: NDArray) -> Array:
    """x log x elementwise in nats, 0 at 0 (and at rounding below it)."""
    weights = np.maximum(np.asarray(weights, dtype=float), 0)
    return weights * np.log(weights, out=np.zeros_like(weights), where=weights > 0)
