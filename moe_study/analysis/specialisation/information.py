"""Mutual information of expert and label, for the labels as they are; `tables` has it for thousands of exchanged ones.

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

from moe_study.analysis.specialisation.layer_trace import MISSING, Assignments, Ints, LayerTrace, assignments, combined

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


def information(
    layer: LayerTrace, codes_T: Ints, given_T: Ints | None = None, by: str = "picks", kept_only: bool = False
) -> Information:
    """Information of expert with a label (codes by token, -1 for none), given another one or not; see the module.

    Divided by the entropy of the label with and without `given_T`, so that the two can be set side by side.
    """
    picks = labelled(assignments(layer, by, kept_only), codes_T)
    codes_T = np.asarray(codes_T)
    table = picks.table(codes_T, int(codes_T.max(initial=0)) + 1)
    given_T = np.zeros(picks.tokens, dtype=np.int64) if given_T is None else np.asarray(given_T)
    return Information(
        nats=information_given(picks, codes_T, given_T),
        label_entropy=entropy(table.sum(1)),
        expert_entropy=entropy(table.sum(0)),
        tokens=int(picks.routed_T.sum()),
    )


def information_given(picks: Assignments, codes_T: Ints, given_T: Ints) -> float:
    """I(E; L | given) in nats of assignments whose tokens all have a label; only cells that occur are held."""
    total = float(picks.weight_P.sum())
    if total <= 0:
        return 0.0
    given_P, code_P = np.asarray(given_T)[picks.token_P], np.asarray(codes_T)[picks.token_P]

    def cells(*keys: Ints) -> float:
        return float(x_log_x(np.bincount(combined(*keys), picks.weight_P)).sum())

    joint, by_label = cells(given_P, code_P, picks.expert_P), cells(given_P, code_P)
    return max(0.0, (joint - by_label - cells(given_P, picks.expert_P) + cells(given_P)) / total)


def labelled(picks: Assignments, codes_T: Ints) -> Assignments:
    """The assignments of tokens that have a label."""
    has_P = np.asarray(codes_T)[picks.token_P] != MISSING
    return Assignments(
        picks.token_P[has_P], picks.expert_P[has_P], picks.weight_P[has_P], picks.tokens, picks.experts, picks.unit
    )


def x_log_x(weights: NDArray) -> Array:
    """x log x elementwise in nats, 0 at 0 (and at rounding below it)."""
    weights = np.maximum(np.asarray(weights, dtype=float), 0)
    return weights * np.log(weights, out=np.zeros_like(weights), where=weights > 0)
