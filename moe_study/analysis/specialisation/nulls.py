"""Information of expert and label against what it would be if the label meant nothing to the router.

The headline is the EXCESS: the information measured, less the mean of the null. Its band holds the middle 95% of the
null, its p value is (1 + draws that reach the measured value) / (1 + draws) (Phipson and Smyth 2010).

Which null goes with which label (exchanges.py draws them):

| label of            | information      | labels are exchanged between                                          |
|---------------------|------------------|-----------------------------------------------------------------------|
| documents           | I(E; L)          | documents                                                             |
| documents           | I(E; L | value)  | documents for the spread; (document, value) groups for the centre     |
| tokens              | both             | (document, token id) groups, among the occurrences of one token id    |
| tokens: the id      | I(E; V)          | places of one document, by turning it                                 |

I(E; L | value), the value being the token id or a cluster, has two nulls because one does not do. To deal out the
labels anew over documents destroys what label and vocabulary share: a word of one topic then seems to occur under all,
and the plug-in estimate is biased upward by more than the measured one is. To exchange them within the occurrences of
each word keeps the vocabulary of every label, and so has the right mean; but its spread is too small, because it takes
the words of one document for independent of one another. So the null is the first, moved to the mean of the second.
Where labels hardly share a vocabulary the spread is too large, and the test finds less than it could, not more.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moe_study.analysis.specialisation.exchanges import DocumentExchange, DocumentTurn, GroupExchange
from moe_study.analysis.specialisation.information import LabelTables, entropy, labelled, x_log_x
from moe_study.analysis.specialisation.layer_trace import MISSING, Assignments, Ints, LayerTrace, assignments
from moe_study.errors import DataError

PERMUTATIONS = 1000
DRAWS_FOR_CENTRE = 100
DRAWS_AT_ONCE = 100
BAND = 0.95
SAME = 1e-9  # draws that differ by rounding alone reach the measured value, nats


@dataclass(frozen=True)
class Measured:
    """Information of the expert about a label over the entropy of the label, beside its null in the same units."""

    value: float
    null_mean: float
    null_low: float  # the middle 95% of the null
    null_high: float
    p: float
    permutations: int
    nats: float  # the value times the entropy of the label
    label_entropy: float
    tokens: int
    movable: float  # share of what was exchanged that could move at all; low: the test can find little

    @property
    def excess(self) -> float:
        """The headline."""
        return self.value - self.null_mean


def document_label(
    layers: Sequence[LayerTrace],
    name: str,
    within: str | None = None,
    by: str = "picks",
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> list[Measured]:
    """I(E; L) of each layer of one run with a label of documents; labels are exchanged over documents.

    `within` names another label of documents: then it is I(E; L | that one), and labels stay within its values.
    """
    codes_D, names = _of_one_run(layers)[0].document_label(name)
    strata_D, strata = layers[0].document_label(within) if within else (np.zeros_like(codes_D), ("all",))
    codes_D = np.where(strata_D == MISSING, MISSING, codes_D)
    exchange = DocumentExchange(codes_D, seed, strata_D)
    draws_RD = np.stack([codes_D] + [exchange.draw() for _ in range(permutations)])
    found = []
    for layer in layers:
        codes_T = codes_D[layer.document_T]
        picks = labelled(assignments(layer, by), codes_T)
        document_P = layer.document_T[picks.token_P]
        cell_P = (document_P * len(strata) + strata_D[document_P]) * layer.experts + picks.expert_P
        size = len(codes_D) * len(strata) * layer.experts
        cells = np.bincount(cell_P, picks.weight_P, minlength=size).astype(float)
        nats_R = _document_nats(draws_RD, len(names), cells.reshape(len(codes_D), len(strata), layer.experts))
        found.append(_measured(nats_R[0], nats_R[1:], picks, codes_T, exchange.movable))
    return found


def document_label_given(
    layers: Sequence[LayerTrace],
    name: str,
    value_T: Ints | None = None,
    by: str = "picks",
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> list[Measured]:
    """I(E; L | value) of each layer of one run with a label of documents; the value is the token id, or `value_T`.

    See the module for its two nulls. `movable` is the share of tokens whose (document, value) group has another to
    trade with.
    """
    first = _of_one_run(layers)[0]
    codes_D, _ = first.document_label(name)
    value_T = first.token_T if value_T is None else value_T
    codes_T = codes_D[first.document_T]
    picks = [labelled(assignments(layer, by), codes_T) for layer in layers]
    tables = [LabelTables(each, value_T) for each in picks]
    over_documents = DocumentExchange(codes_D, seed)
    over_groups = GroupExchange(codes_T, value_T, first.document_T, seed + 1, alike=False)
    spread_RN = np.empty((permutations, len(layers)))
    for nats_N in spread_RN:
        draw_T = over_documents.draw()[first.document_T]
        nats_N[:] = [table.nats(draw_T) for table in tables]
    centre_RN = np.empty((min(permutations, DRAWS_FOR_CENTRE), len(layers)))
    for nats_N in centre_RN:
        draw_T = over_groups.draw()
        nats_N[:] = [table.nats(draw_T) for table in tables]
    null_RN = spread_RN - spread_RN.mean(0) + centre_RN.mean(0)
    return [
        _measured(table.nats(codes_T), null_R, each, codes_T, over_groups.movable)
        for table, null_R, each in zip(tables, null_RN.T, picks, strict=True)
    ]


@dataclass(frozen=True)
class TokenLabel:
    """A label of tokens against its null: alone, and given the token id (or another value)."""

    alone: Measured
    given: Measured


def token_label(
    layers: Sequence[LayerTrace],
    codes_T: Ints,
    value_T: Ints | None = None,
    by: str = "picks",
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> list[TokenLabel]:
    """I(E; L) and I(E; L | value) of each layer of one run with a label of tokens; the value as above.

    The one null serves both. It leaves what the label owes to the value in place, so the excess of I(E; L), too, is
    what the expert knows of the label beyond the value.
    """
    first = _of_one_run(layers)[0]
    codes_T, value_T = np.asarray(codes_T), first.token_T if value_T is None else value_T
    picks = [labelled(assignments(layer, by), codes_T) for layer in layers]
    tables = [[LabelTables(each, np.zeros_like(codes_T)), LabelTables(each, value_T)] for each in picks]
    exchange = GroupExchange(codes_T, value_T, first.document_T, seed, alike=True)
    null_RNI = np.empty((permutations, len(layers), 2))
    for nats_NI in null_RNI:
        draw_T = exchange.draw()
        nats_NI[:] = [[table.nats(draw_T) for table in pair] for pair in tables]
    return [
        TokenLabel(
            *(
                _measured(table.nats(codes_T), null_R, each, codes_T, exchange.movable)
                for table, null_R in zip(pair, null_RI.T, strict=True)
            )
        )
        for pair, null_RI, each in zip(tables, null_RNI.swapaxes(0, 1), picks, strict=True)
    ]


def token_id(
    layers: Sequence[LayerTrace], by: str = "picks", permutations: int = PERMUTATIONS, seed: int = 0
) -> list[Measured]:
    """I(E; V) of each layer of one run with the token id; the tokens of a document are turned within it."""
    first = _of_one_run(layers)[0]
    codes_T = np.unique(first.token_T, return_inverse=True)[1]
    picks = [assignments(layer, by) for layer in layers]
    tables = [LabelTables(each, np.zeros_like(codes_T)) for each in picks]
    exchange = DocumentTurn(codes_T, first.document_T, seed)
    null_RN = np.empty((permutations, len(layers)))
    for nats_N in null_RN:
        draw_T = exchange.draw()
        nats_N[:] = [table.nats(draw_T) for table in tables]
    return [
        _measured(table.nats(codes_T), null_R, each, codes_T, exchange.movable)
        for table, null_R, each in zip(tables, null_RN.T, picks, strict=True)
    ]


def _document_nats(draws_RD: Ints, labels: int, cells_DCE: NDArray[np.float64]) -> NDArray[np.float64]:
    """I(E; L | C) of every draw of labels by document, from each document's weights by (stratum C, expert E)."""
    documents, strata, experts = cells_DCE.shape
    flat = cells_DCE.reshape(documents, -1)
    found = []
    for start in range(0, len(draws_RD), DRAWS_AT_ONCE):
        draws = draws_RD[start : start + DRAWS_AT_ONCE]
        members = (draws[:, None, :] == np.arange(labels)[:, None]).astype(float)  # [draws, labels, documents]
        table = (members.reshape(-1, documents) @ flat).reshape(len(draws), labels, strata, experts)
        by_stratum = x_log_x(table.sum((1, 3))).sum(-1)
        by_label, by_expert = x_log_x(table.sum(3)).sum((1, 2)), x_log_x(table.sum(1)).sum((1, 2))
        nats = x_log_x(table).sum((1, 2, 3)) - by_label - by_expert + by_stratum
        found.append(np.maximum(0, nats) / max(flat.sum(), 1e-300))
    return np.concatenate(found)


def _measured(nats: float, null_R: NDArray, picks: Assignments, codes_T: Ints, movable: float) -> Measured:
    """In units of the entropy of the label; NaN throughout where that is zero."""
    label_entropy = entropy(np.bincount(codes_T[picks.token_P], picks.weight_P).astype(float))
    unit = label_entropy if label_entropy > 0 else float("nan")
    low, high = np.quantile(null_R, [(1 - BAND) / 2, (1 + BAND) / 2])
    return Measured(
        value=float(nats) / unit,
        null_mean=float(null_R.mean()) / unit,
        null_low=float(low) / unit,
        null_high=float(high) / unit,
        p=(1 + int((null_R >= nats - SAME).sum())) / (1 + len(null_R)),
        permutations=len(null_R),
        nats=float(nats),
        label_entropy=label_entropy,
        tokens=int(picks.routed_T.sum()),
        movable=movable,
    )


def _of_one_run(layers: Sequence[LayerTrace]) -> Sequence[LayerTrace]:
    """The layers, if they are of the same tokens; DataError otherwise, or where there is none."""
    if not layers:
        raise DataError("no layer of experts to measure")
    for layer in layers[1:]:
        for name in ("token_T", "document_T"):
            ours, first = getattr(layer, name), getattr(layers[0], name)
            if ours is not first and not np.array_equal(ours, first):
                raise DataError("layers measured together must be of one run over one probe; their tokens differ")
    return layers
