"""I(E; L | V) of one set of assignments under many labellings of its tokens, made to be fast.

Where all weights are multiples of one unit (every token has k picks) tables hold whole numbers, and x log x is looked
up. Formulas: `information`.

Shapes: D documents, E experts, L labels, V values of what is given, R rows (v, e) that occur, N draws, B blocks.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from moe_study.analysis.specialisation.information import x_log_x
from moe_study.analysis.specialisation.layer_trace import Assignments, Ints

Array = NDArray[np.float64]

DRAWS_AT_ONCE = 64
FULL_DRAWS = 100
BLOCKS = 64
TURN_BLOCKS = 8
FEWEST_BLOCKS = 8  # fewer would leave too few combinations: then every draw is made in full
MOST_CELLS = 2**25  # numbers held for recombination of turns


class Rows:
    """The assignments in rows (value, expert), sorted by value."""

    def __init__(self, picks: Assignments, value_T: Ints):
        value_P = np.asarray(value_T)[picks.token_P]
        key_P = value_P.astype(np.int64) * picks.experts + picks.expert_P
        keys, row_P = np.unique(key_P, return_inverse=True)
        order_P = np.argsort(row_P, kind="stable")
        self.row_P, self.token_P = row_P[order_P], picks.token_P[order_P]
        self.rows = len(keys)
        self.expert_R = keys % picks.experts
        self.first_row_V = np.flatnonzero(np.diff(keys // picks.experts, prepend=-1))
        self.whole = picks.unit is not None
        self.weight_P = None if self.whole else picks.weight_P[order_P]
        self.total = float(picks.weight_P.sum() / (picks.unit or 1.0))
        self.x_log_x: Callable[[NDArray], Array] = _looked_up(len(row_P)) if self.whole else x_log_x
        value_R = np.repeat(np.arange(len(self.first_row_V)), np.diff(self.first_row_V, append=self.rows))
        self.value_R = value_R
        ones_R = np.ones(self.rows, dtype=np.int64 if self.whole else np.float64)
        shape = (len(self.first_row_V), self.rows)
        self._over_experts = sparse.csr_array((ones_R, (value_R, np.arange(self.rows))), shape=shape)
        # What the labels do not change: the sums over N(e, v) and N(v).
        weight_R = np.bincount(self.row_P, self.weight_P, minlength=self.rows)
        self.fixed_V = self.x_log_x(self._over_experts @ weight_R)
        self.fixed_V -= np.bincount(value_R, self.x_log_x(weight_R), minlength=len(self.first_row_V))

    def cells(self, codes_T: Ints, labels: int) -> NDArray:
        """[row R, label L]: the weight of each label in each row; every token with a pick has a label."""
        cell_P = self.row_P * labels + codes_T[self.token_P]
        return np.bincount(cell_P, self.weight_P, minlength=self.rows * labels).reshape(self.rows, labels)

    def sums(self, cells_RL: NDArray) -> Array:
        """[V]: what each value adds to I(E; L | V), times the sum of all weights."""
        ones_L = np.ones(cells_RL.shape[1])
        joint_R, with_label_VL = self.x_log_x(cells_RL) @ ones_L, self._over_experts @ cells_RL
        joint_V = np.bincount(self.value_R, joint_R, minlength=len(self.fixed_V))
        return joint_V - self.x_log_x(with_label_VL) @ ones_L + self.fixed_V

    def nats(self, codes_T: Ints, labels: int) -> float:
        """I(E; L | V) for labels by token."""
        return max(0.0, float(self.sums(self.cells(codes_T, labels)).sum()) / max(self.total, 1e-300))


class DocumentTables:
    """I(E; L | V) for labels of documents: the tables of many draws are one product of sparse and one-hot matrices."""

    def __init__(self, picks: Assignments, value_T: Ints, document_T: Ints, labels: int):
        rows = Rows(picks, value_T)
        self.labels, self.total, self.x_log_x = labels, rows.total, rows.x_log_x
        document_P = document_T[rows.token_P]
        weight_P = np.ones(len(document_P)) if rows.weight_P is None else rows.weight_P
        shape = (rows.rows, int(document_T.max(initial=-1)) + 1)
        joint_RD = sparse.coo_array((weight_P, (rows.row_P, document_P)), shape=shape).tocsr()
        joint_RD.sum_duplicates()
        # A value with one expert tells nothing, whatever the labels.
        use_R = np.flatnonzero(np.bincount(rows.value_R)[rows.value_R] > 1) if rows.rows else rows.value_R
        joint_RD = joint_RD[use_R]
        values, value_R = np.unique(rows.value_R[use_R], return_inverse=True)
        shape = (len(values), len(use_R))
        over_experts = sparse.csr_array((np.ones(len(use_R)), (value_R, np.arange(len(use_R)))), shape=shape)
        value_VD = (over_experts @ joint_RD).tocsr()
        self.fixed = self._sum(value_VD.sum(1)) - self._sum(joint_RD.sum(1))
        # A row of one document is in one cell under every draw: its share of the sum is fixed.
        self.joint, fixed_joint = self._split(joint_RD, rows.whole)
        self.with_label, fixed_with_label = self._split(value_VD, rows.whole)
        self.fixed += fixed_joint - fixed_with_label

    def _split(self, weights: sparse.csr_array, whole: bool) -> tuple[sparse.csr_array, float]:
        """(rows of two documents or more, in the smallest numbers that hold them; the sum over the others)."""
        documents_R = np.diff(weights.indptr)
        rest = weights[np.flatnonzero(documents_R > 1)]
        fixed = self._sum(weights[np.flatnonzero(documents_R <= 1)].sum(1))
        if whole:
            largest = float(rest.sum(1).max(initial=0)) if rest.shape[0] else 0.0
            rest = rest.astype(np.int16 if largest < 2**15 else np.int32)
        return rest, fixed

    def _sum(self, weights: NDArray) -> float:
        return float(self.x_log_x(np.asarray(weights)).sum()) if np.size(weights) else 0.0

    def nats(self, draws_ND: Ints) -> Array:
        """I(E; L | V) in nats of each draw of labels by document; documents with picks have a label."""
        found = [np.zeros(0)]
        for start in range(0, len(draws_ND), DRAWS_AT_ONCE):
            draws = draws_ND[start : start + DRAWS_AT_ONCE]
            sums_N = np.full(len(draws), self.fixed)
            for label in range(self.labels):
                member_DN = np.ascontiguousarray((draws == label).T)
                for weights, sign in ((self.joint, 1), (self.with_label, -1)):
                    cells = weights @ member_DN.astype(weights.dtype)
                    sums_N += sign * self.x_log_x(cells).sum(0)
            found.append(np.maximum(0.0, sums_N) / max(self.total, 1e-300))
        return np.concatenate(found)


class BlockTables:
    """I(E; L) and I(E; L | V) for labels of tokens that are exchanged within each value, hence value by value apart.

    What is drawn for one value is independent of what is drawn for another. So the values are dealt into blocks, and a
    draw of block 1 with a draw of block 2, and so on, is a draw of the whole: 100 full draws give any number of others.
    """

    def __init__(self, picks: Assignments, value_T: Ints, labels: int, random: np.random.Generator):
        values, value_T = np.unique(np.asarray(value_T), return_inverse=True)
        value_T = random.permutation(len(values))[value_T]
        self.rows = Rows(picks, value_T)
        self.labels, self.experts = labels, picks.experts
        count = len(self.rows.first_row_V)
        first_V = np.unique(np.linspace(0, count, min(BLOCKS, count), endpoint=False).astype(np.int64))
        self.first_value_B = first_V
        block_V = np.repeat(np.arange(len(first_V)), np.diff(first_V, append=count))
        block_R = block_V[self.rows.value_R]
        self.blocks = len(first_V)
        self.block_P = block_R[self.rows.row_P]
        row = block_R * picks.experts + self.rows.expert_R
        self.to_blocks = sparse.csr_array(
            (np.ones(len(row), dtype=np.int64 if self.rows.whole else np.float64), (row, np.arange(len(row)))),
            shape=(self.blocks * picks.experts, len(row)),
        )

    def draw(self, codes_T: Ints) -> tuple[Array, Array]:
        """(the tables N(e, l) [B, E, L], the sums that make I(E; L | V) [B]) of each block for labels by token."""
        cells = self.rows.cells(codes_T, self.labels)
        tables = (self.to_blocks @ cells).reshape(self.blocks, self.experts, self.labels)
        return tables, np.add.reduceat(self.rows.sums(cells), self.first_value_B)

    def nats(self, tables: Array, sums: Array) -> Array:
        """[..., 2]: I(E; L) and I(E; L | V) in nats from tables [..., E, L] and sums [...] over all blocks."""
        alone = x_log_x(tables).sum((-2, -1)) - x_log_x(tables.sum(-1)).sum(-1) - x_log_x(tables.sum(-2)).sum(-1)
        alone += x_log_x(tables.sum((-2, -1)))
        return np.maximum(0.0, np.stack([alone, sums], axis=-1)) / max(self.rows.total, 1e-300)


class TurnTables:
    """I(E; V) with the token id, which is turned within each document, hence document by document apart.

    Documents are dealt into blocks, as values are in `BlockTables`; 1 block where tables for more would not fit.
    """

    def __init__(self, picks: Assignments, codes_T: Ints, document_T: Ints, random: np.random.Generator):
        self.token_P, self.weight_P = picks.token_P, None if picks.unit else picks.weight_P
        self.experts, self.values = picks.experts, int(codes_T.max(initial=-1)) + 1
        documents = int(document_T.max(initial=-1)) + 1
        fitting = MOST_CELLS // max(1, FULL_DRAWS * self.experts * self.values)
        self.blocks = min(documents, TURN_BLOCKS) if fitting >= TURN_BLOCKS else 1
        block_D = random.permutation(documents) % self.blocks if documents else np.zeros(0, dtype=np.int64)
        self.block_P = block_D[document_T[picks.token_P]]
        self.row_P = (self.block_P * self.experts + picks.expert_P) * self.values
        self.total = float(picks.weight_P.sum() / (picks.unit or 1.0))
        self.x_log_x: Callable[[NDArray], Array] = _looked_up(len(picks.token_P)) if picks.unit else x_log_x

    def draw(self, codes_T: Ints) -> NDArray:
        """[B, E, V]: the weights N(e, v) of each block for these token ids."""
        size = self.blocks * self.experts * self.values
        flat = np.bincount(self.row_P + codes_T[self.token_P], self.weight_P, minlength=size)
        return flat.reshape(self.blocks, self.experts, self.values).astype(
            np.float64 if self.weight_P is not None else np.int32
        )

    def nats(self, table_EV: NDArray) -> float:
        """I(E; V) in nats of the table of all blocks."""
        parts = [table_EV, table_EV.sum(0), table_EV.sum(1), table_EV.sum()]
        joint, by_value, by_expert, total = (float(self.x_log_x(part).sum()) for part in parts)
        return max(0.0, (joint - by_value - by_expert + total) / max(self.total, 1e-300))


def recombined(parts_MB: NDArray, choice_NB: Ints) -> NDArray:
    """[N, ...]: the sum over blocks of the part of each that was drawn for it; parts [M draws, B blocks, ...]."""
    found = np.zeros((len(choice_NB), *parts_MB.shape[2:]), dtype=parts_MB.dtype)
    for block in range(parts_MB.shape[1]):
        found += parts_MB[choice_NB[:, block], block]
    return found


def _looked_up(largest: int) -> Callable[[NDArray], Array]:
    """x log x of whole numbers 0 .. largest."""
    table = x_log_x(np.arange(largest + 1, dtype=float))
    return lambda counts: table[np.asarray(counts).astype(np.intp)]
