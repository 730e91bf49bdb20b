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
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from moe_study.analysis.specialisation.exchanges import DocumentExchange, DocumentTurn, GroupExchange
from moe_study.analysis.specialisation.information import entropy, labelled, x_log_x
from moe_study.analysis.specialisation.layer_trace import MISSING, Assignments, Ints, LayerTrace, assignments
from moe_study.analysis.specialisation.tables import (
    FEWEST_BLOCKS,
    FULL_DRAWS,
    BlockTables,
    DocumentTables,
    Rows,
    TurnTables,
    recombined,
)
from moe_study.errors import DataError

PERMUTATIONS = 1000
DRAWS_FOR_CENTRE = 32
MOST_CELLS = 2**23  # of one-hot labels held at once
HALVINGS = 100
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
    seed: int  # of the draws
    nats: float  # the value times the entropy of the label
    label_entropy: float
    tokens: int
    floor: float  # what the expert knows of random halves of the documents of one label; NaN for labels of tokens
    movable: float  # share of what was exchanged that could move at all; low: the test can find little
    null_R: NDArray[np.float64] = field(repr=False, compare=False)  # the draws, for `rows.over_seeds`

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
        floor = split_half_floor(picks.table(layer.document_T, len(codes_D)), codes_D, seed)
        found.append(_measured(nats_R[0], nats_R[1:], picks, codes_T, exchange.movable, seed, floor))
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
    codes_D, names = first.document_label(name)
    value_T = first.token_T if value_T is None else value_T
    codes_T = codes_D[first.document_T]
    picks = [labelled(assignments(layer, by), codes_T) for layer in layers]
    over_documents = DocumentExchange(codes_D, seed)
    draws_RD = np.stack([codes_D] + [over_documents.draw() for _ in range(permutations)])
    over_groups = GroupExchange(codes_T, value_T, first.document_T, seed + 1, alike=False)
    rows = [Rows(each, value_T) for each in picks]
    centre_RN = np.empty((min(permutations, DRAWS_FOR_CENTRE), len(layers)))
    for nats_N in centre_RN:
        draw_T = over_groups.draw()
        nats_N[:] = [each.nats(draw_T, len(names)) for each in rows]
    found = []
    for each, centre in zip(picks, centre_RN.mean(0), strict=True):
        nats_R = DocumentTables(each, value_T, first.document_T, len(names)).nats(draws_RD)
        null_R = nats_R[1:] - nats_R[1:].mean() + centre
        found.append(_measured(nats_R[0], null_R, each, codes_T, over_groups.movable, seed))
    return found


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
    labels = int(codes_T.max(initial=0)) + 1
    exchange = GroupExchange(codes_T, value_T, first.document_T, seed, alike=True)
    picks = [labelled(assignments(layer, by), codes_T) for layer in layers]
    tables = [BlockTables(each, value_T, labels, np.random.default_rng(seed)) for each in picks]
    full = _full_draws(permutations, min(table.blocks for table in tables))
    drawn = [[table.draw(draw_T) for table in tables] for draw_T in (exchange.draw() for _ in range(full))]
    found = []
    for each, table, of_layer in zip(picks, tables, zip(*drawn, strict=True), strict=True):
        choice_RB = _choice(permutations, full, table.blocks, seed)
        parts = [recombined(np.stack(part), choice_RB) for part in zip(*of_layer, strict=True)]
        null_R2 = _widened(table.nats(*parts), full)
        measured = table.nats(*(part.sum(0) for part in table.draw(codes_T)))
        found.append(
            TokenLabel(
                *(
                    _measured(nats, null_R, each, codes_T, exchange.movable, seed)
                    for nats, null_R in zip(measured, null_R2.T, strict=True)
                )
            )
        )
    return found


def token_id(
    layers: Sequence[LayerTrace], by: str = "picks", permutations: int = PERMUTATIONS, seed: int = 0
) -> list[Measured]:
    """I(E; V) of each layer of one run with the token id; the tokens of a document are turned within it."""
    first = _of_one_run(layers)[0]
    codes_T = np.unique(first.token_T, return_inverse=True)[1]
    exchange = DocumentTurn(codes_T, first.document_T, seed)
    picks = [assignments(layer, by) for layer in layers]
    tables = [TurnTables(each, codes_T, first.document_T, np.random.default_rng(seed)) for each in picks]
    full = _full_draws(permutations, min(table.blocks for table in tables))
    in_full = full == permutations
    drawn: list[list] = [[] for _ in layers]
    for _ in range(full):
        draw_T = exchange.draw()
        for table, of_layer in zip(tables, drawn, strict=True):
            blocks = table.draw(draw_T)
            of_layer.append(table.nats(blocks.sum(0)) if in_full else blocks)
    found = []
    for each, table, of_layer in zip(picks, tables, drawn, strict=True):
        parts = np.stack(of_layer)
        choice_RB = _choice(permutations, full, table.blocks, seed)
        null = parts if in_full else [table.nats(recombined(parts, choice_B[None])[0]) for choice_B in choice_RB]
        null_R = _widened(np.array(null), full)
        found.append(_measured(table.nats(table.draw(codes_T).sum(0)), null_R, each, codes_T, exchange.movable, seed))
    return found


def _full_draws(permutations: int, blocks: int) -> int:
    """How many draws are made in full; the others are recombined of their blocks."""
    return permutations if blocks < FEWEST_BLOCKS else min(permutations, FULL_DRAWS)


def _choice(permutations: int, full: int, blocks: int, seed: int) -> Ints:
    """[permutations, B]: which full draw each block is taken from."""
    if full == permutations:
        return np.repeat(np.arange(full)[:, None], blocks, axis=1)
    return np.random.default_rng(seed).integers(full, size=(permutations, blocks))


def _widened(null_R: NDArray[np.float64], full: int) -> NDArray[np.float64]:
    """Draws recombined of `full` ones, spread by as much more as a mean and a spread of so few are uncertain.

    As the prediction interval of a new value from n others: (n + 1) / (n - 1) times the variance.
    """
    if len(null_R) == full or full < 2:
        return null_R
    mean = null_R.mean(0)
    return mean + (null_R - mean) * np.sqrt((full + 1) / (full - 1))


def _document_nats(draws_RD: Ints, labels: int, cells_DCE: NDArray[np.float64]) -> NDArray[np.float64]:
    """I(E; L | C) of every draw of labels by document, from each document's weights by (stratum C, expert E)."""
    documents, strata, experts = cells_DCE.shape
    flat = cells_DCE.reshape(documents, -1)
    at_once = max(1, MOST_CELLS // max(1, labels * documents))
    found = []
    for start in range(0, len(draws_RD), at_once):
        draws = draws_RD[start : start + at_once]
        members = (draws[:, None, :] == np.arange(labels)[:, None]).astype(float)  # [draws, labels, documents]
        table = (members.reshape(-1, documents) @ flat).reshape(len(draws), labels, strata, experts)
        by_stratum = x_log_x(table.sum((1, 3))).sum(-1)
        by_label, by_expert = x_log_x(table.sum(3)).sum((1, 2)), x_log_x(table.sum(1)).sum((1, 2))
        nats = x_log_x(table).sum((1, 2, 3)) - by_label - by_expert + by_stratum
        found.append(np.maximum(0, nats) / max(flat.sum(), 1e-300))
    return np.concatenate(found)


def split_half_floor(weights_DE: NDArray[np.float64], codes_D: Ints, seed: int = 0) -> float:
    """I(E; half | L) / log 2, the documents of every label halved at random: mean of 100 halvings.

    Two samples of one domain differ too, and by as much. It is a fraction of what could be known of the halves, as the
    measured value is of what could be known of the label. NaN without two documents of one label.
    """
    labels, label_D = np.unique(codes_D, return_inverse=True)
    order_D = np.argsort(label_D, kind="stable")
    rank_D = np.empty(len(codes_D), dtype=np.int64)
    sizes = np.bincount(label_D)
    rank_D[order_D] = np.arange(len(codes_D)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    half_D = np.where((codes_D == MISSING) | (rank_D >= 2 * (sizes // 2)[label_D]), MISSING, rank_D % 2)
    if np.all(half_D == MISSING):
        return float("nan")
    exchange = DocumentExchange(half_D, seed, label_D)
    draws_RD = np.stack([exchange.draw() for _ in range(HALVINGS)])
    used_D = half_D != MISSING
    cells_DLE = (label_D[:, None] == np.arange(len(labels)))[:, :, None] * (weights_DE * used_D[:, None])[:, None, :]
    return float(_document_nats(draws_RD, 2, cells_DLE).mean() / np.log(2))


def _measured(
    nats: float,
    null_R: NDArray,
    picks: Assignments,
    codes_T: Ints,
    movable: float,
    seed: int,
    floor: float = float("nan"),
) -> Measured:
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
        seed=seed,
        nats=float(nats),
        label_entropy=label_entropy,
        tokens=int(picks.routed_T.sum()),
        floor=floor,
        movable=movable,
        null_R=null_R / unit,
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
