"""Where the loss lies and where the work goes: both by position, by how frequent a token is, and by label.

Shapes: T tokens of a trace, D documents.
"""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from moe_study.analysis.specialisation.layer_trace import Ints, LayerTrace, position_label
from moe_study.runs.traces import Trace

COLUMNS = ("by", "place", "name", "tokens", "loss", "predicted", "experts")
FIFTHS = ("most frequent fifth", "second fifth", "third fifth", "fourth fifth", "rarest fifth")
TENTHS = 10
HARDNESS, POSITION, FREQUENCY = "loss of the next token", "position", "frequency"

Floats = NDArray[np.float64]


def by_token(trace: Trace) -> pd.DataFrame:
    """Mean loss and work of groups of a probe's tokens, one row for each group.

    Columns: by (position, frequency, loss of the next token, or a label), place (order within it), name, tokens, loss
    (nats, of predicting the group's tokens), predicted (how many of them have one: a document's first has none),
    experts (kept picks of the group's tokens, mean over tokens and layers; NaN without a mixture).

    What a token's experts do serves the prediction of the next one, so work is set beside the loss of that
    (`loss of the next token`, in ten groups of equal size). Position is the number of tokens that stand before in the
    window: for the loss, before what is predicted; for the work, before the token itself.
    """
    loss_T = np.asarray(trace.loss_T, dtype=np.float64)
    experts_T = experts_per_token(trace)
    position_T = np.asarray(trace.position_T, dtype=np.int64)
    own_T = position_T % trace.window
    seen_T = np.where(position_T > 0, (position_T - 1) % trace.window + 1, 0)
    seen_code_T, places = position_label(seen_T)  # a token can have one more before it than any has in its window
    rows = [*_rows(POSITION, (position_label(own_T)[0], places), loss_T, experts_T, seen_code_T)]
    rows += _rows(FREQUENCY, frequency_label(trace.token_T), loss_T, experts_T)
    rows += _rows(HARDNESS, _tenths(_next(loss_T, np.asarray(trace.document_T))), loss_T, experts_T)
    for name, (codes_D, values) in trace.document_labels.items():
        rows += _rows(name, (np.asarray(codes_D, dtype=np.int64)[trace.document_T], values), loss_T, experts_T)
    for name, (codes_T, values) in trace.token_labels.items():
        rows += _rows(name, (np.asarray(codes_T, dtype=np.int64), values), loss_T, experts_T)
    return pd.DataFrame(rows, columns=list(COLUMNS))


def experts_per_token(trace: Trace) -> Floats:
    """Kept picks of each token, mean over mixture layers; NaN without one."""
    layers = [LayerTrace(**trace.layer(layer)) for layer in trace.layers]
    if not layers:
        return np.full(len(trace.token_T), np.nan)
    kept = [np.bincount(one.token_of_P, one.kept_P.astype(float), len(one.token_T)) for one in layers]
    return np.mean(kept, axis=0)


def frequency_label(token_T: Ints) -> tuple[Ints, tuple[str, ...]]:
    """Five groups of token ids, from the most frequent ones on, each with about a fifth of all tokens."""
    token_T = np.asarray(token_T, dtype=np.int64)
    count_V = np.bincount(token_T)
    order_V = np.argsort(-count_V, kind="stable")
    before_V = np.empty(len(count_V))
    before_V[order_V] = np.cumsum(count_V[order_V]) - count_V[order_V]  # tokens of more frequent ids
    code_V = np.minimum(len(FIFTHS) * before_V // max(len(token_T), 1), len(FIFTHS) - 1).astype(np.int64)
    return code_V[token_T], FIFTHS


def _next(loss_T: Floats, document_T: Ints) -> Floats:
    """The loss of the token after; NaN at the end of a document."""
    next_T = np.full(len(loss_T), np.nan)
    same = document_T[1:] == document_T[:-1]
    next_T[:-1][same] = loss_T[1:][same]
    return next_T


def _tenths(value_T: Floats) -> tuple[Ints, tuple[str, ...]]:
    """Ten groups of equal size by rising value; -1 where there is none."""
    known = np.flatnonzero(~np.isnan(value_T))
    code_T = np.full(len(value_T), -1, dtype=np.int64)
    code_T[known[np.argsort(value_T[known], kind="stable")]] = TENTHS * np.arange(len(known)) // max(len(known), 1)
    ends = {0: " (easiest)", TENTHS - 1: " (hardest)"}
    return code_T, tuple(f"{place + 1}{ends.get(place, '')}" for place in range(TENTHS))


def _rows(
    by: str,
    label: tuple[Ints, tuple[str, ...]],
    loss_T: Floats,
    experts_T: Floats,
    loss_code_T: Ints | None = None,
) -> Iterator[tuple[object, ...]]:
    """A row for each value; `loss_code_T` where the loss is grouped otherwise than the work."""
    code_T, names = label
    loss_code_T = code_T if loss_code_T is None else loss_code_T
    for place, name in enumerate(names):
        own, predicted = code_T == place, (loss_code_T == place) & ~np.isnan(loss_T)
        if own.any() or predicted.any():
            loss, work = _mean(loss_T[predicted]), _mean(experts_T[own])
            yield by, place, name, int(own.sum()), loss, int(predicted.sum()), work


def _mean(values: Floats) -> float:
    return float(values.mean()) if len(values) else np.nan


