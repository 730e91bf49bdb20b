"""What each share of an expert in a domain would be if the domain meant nothing to the router: a band for every bar.

Labels are exchanged as in `nulls`: those of documents over documents, those of tokens by whole (document, token id)
groups among the occurrences of one token id. So the null of a label of tokens keeps what its tokens' ids attract: a
share beyond it is owed to the label itself.

Shapes: D documents, L domains, E experts, R draws.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moe_study.analysis.specialisation.domains import weights_by_document
from moe_study.analysis.specialisation.exchanges import DocumentExchange, GroupExchange
from moe_study.analysis.specialisation.layer_trace import LayerTrace, assignments
from moe_study.analysis.specialisation.nulls import BAND, PERMUTATIONS

Array = NDArray[np.float64]

MOST_TOKEN_DRAWS = 100  # a draw of labels of tokens passes over all of them


@dataclass(frozen=True)
class ShareNull:
    """Mean and the middle 95% of every share over draws; NaN for a domain that no draw gives a token with a pick."""

    mean_LE: Array
    low_LE: Array
    high_LE: Array
    draws: int


def share_nulls(
    layers: Sequence[LayerTrace], name: str, by: str = "picks", permutations: int = PERMUTATIONS, seed: int = 0
) -> list[ShareNull]:
    """The null of `domains.shares` for each layer of one run: `permutations` draws, but at most 100 for tokens."""
    if not layers:
        return []
    of_documents = name in layers[0].document_labels
    return (_over_documents if of_documents else _over_groups)(layers, name, by, permutations, seed)


def _over_documents(layers: Sequence[LayerTrace], name: str, by: str, permutations: int, seed: int) -> list[ShareNull]:
    codes_D, names = layers[0].document_label(name)
    exchange = DocumentExchange(codes_D, seed)
    draws_RD = np.stack([exchange.draw() for _ in range(permutations)])
    member_LRD = [(draws_RD == label).astype(float) for label in range(len(names))]
    found = []
    for layer in layers:
        weights_DE = weights_by_document(layer, by)
        found.append(_null(np.stack([member_RD @ weights_DE for member_RD in member_LRD], axis=1)))
    return found


def _over_groups(layers: Sequence[LayerTrace], name: str, by: str, permutations: int, seed: int) -> list[ShareNull]:
    codes_T, names = layers[0].label(name)
    exchange = GroupExchange(codes_T, layers[0].token_T, layers[0].document_T, seed, alike=True)
    picks = [assignments(layer, by) for layer in layers]
    drawn = (exchange.draw() for _ in range(min(permutations, MOST_TOKEN_DRAWS)))
    tables = [[each.table(draw_T, len(names)) for each in picks] for draw_T in drawn]
    return [_null(np.stack(of_layer)) for of_layer in zip(*tables, strict=True)]


def _null(tables_RLE: Array) -> ShareNull:
    """Of tables of weights: shares of every draw, then over draws."""
    total_RL1 = tables_RLE.sum(2, keepdims=True)
    shares_RLE = np.divide(tables_RLE, total_RL1, out=np.full_like(tables_RLE, np.nan), where=total_RL1 > 0)
    never_L = np.isnan(shares_RLE).all((0, 2))
    shares_RLE[:, never_L] = 0.0  # so that numpy does not warn of domains without a token
    low_LE, high_LE = np.nanquantile(shares_RLE, [(1 - BAND) / 2, (1 + BAND) / 2], axis=0)
    mean_LE = np.nanmean(shares_RLE, axis=0)
    for values_LE in (mean_LE, low_LE, high_LE):
        values_LE[never_L] = np.nan
    return ShareNull(mean_LE, low_LE, high_LE, len(tables_RLE))
