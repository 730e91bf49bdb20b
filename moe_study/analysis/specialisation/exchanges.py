"""Draws of labels exchanged between what is exchangeable when the label means nothing to the router.

Tokens of one document are not: a document has a taste of its own, for experts and for labels. Each class hands out
labels for the tokens, one draw a call; all draws of one object come from its seed.

Shapes: T tokens, D documents, G groups: the occurrences of one value (a token id, a cluster) in one document.
"""

import numpy as np

from moe_study.analysis.specialisation.layer_trace import MISSING, Ints, combined

SIZE_RATIO = 1.5  # what counts as about one size; at most 2, see `GroupExchange.draw`
DRAWS_OF_ONE_ORDER = 50


class DocumentExchange:
    """Labels of documents dealt out anew over the documents that have one; within strata where they are given.

    Strata (codes by document) keep what a label shares with another label of documents: topics dealt out within each
    language.
    """

    def __init__(self, codes_D: Ints, seed: int, strata_D: Ints | None = None):
        self.codes_D = np.asarray(codes_D)
        self.random = np.random.default_rng(seed)
        has_D = np.flatnonzero(self.codes_D != MISSING)
        if strata_D is None:
            self.strata = [has_D]
        else:
            strata_D = np.asarray(strata_D)[has_D]
            self.strata = [has_D[strata_D == value] for value in np.unique(strata_D)]

    @property
    def movable(self) -> float:
        """Share of the labelled documents whose label could change."""
        moves = [len(stratum) for stratum in self.strata if len(np.unique(self.codes_D[stratum])) > 1]
        return sum(moves) / max(1, sum(map(len, self.strata)))

    def draw(self) -> Ints:
        """Labels by document; the documents without one stay without."""
        codes_D = self.codes_D.copy()
        for stratum in self.strata:
            codes_D[stratum] = self.codes_D[self.random.permutation(stratum)]
        return codes_D


class GroupExchange:
    """Labels of tokens, exchanged by whole (document, value) groups among the occurrences of one value.

    What a label owes to the token id stays, and so do runs of one label within a document. A group takes the labels
    of another one of about its size whole, cut or begun again where the sizes differ. `alike` lets only documents of
    about one length trade: a label such as the position is otherwise a property of documents in disguise (short ones
    have early positions alone), and their tastes would pass for its meaning.

    A draw turns the ring of a value's groups by a random number of groups: the turns are a group of permutations, which
    is all that a permutation test needs (Lehmann and Romano, ch. 15), and cost no sort. The order on the ring is drawn
    anew every 50 draws.
    """

    def __init__(self, codes_T: Ints, value_T: Ints, document_T: Ints, seed: int, alike: bool):
        self.random = np.random.default_rng(seed)
        self.codes_T = np.asarray(codes_T)
        length_class_D = _size_class(np.bincount(document_T))
        tokens = np.flatnonzero(self.codes_T != MISSING)
        value_T, document_T = np.asarray(value_T)[tokens], np.asarray(document_T)[tokens]
        order = np.lexsort((document_T, value_T))  # stable: position by position within a group
        self.token_T = tokens[order]
        value_T, document_T = value_T[order], document_T[order]
        new_T = np.diff(value_T, prepend=-1) != 0
        new_T |= np.diff(document_T, prepend=-1) != 0
        self.start_G = np.flatnonzero(new_T)
        self.size_G = np.diff(self.start_G, append=len(tokens))
        ring_of_G = [value_T[self.start_G], _size_class(self.size_G)]
        if alike:
            ring_of_G.append(length_class_D[document_T[self.start_G]])
        self.ring_G = combined(*ring_of_G)
        self.groups_of_ring = np.bincount(self.ring_G)
        self.draws = 0

    @property
    def movable(self) -> float:
        """Share of the labelled tokens whose group has another to trade with."""
        trades_G = self.groups_of_ring[self.ring_G] > 1
        return float(self.size_G[trades_G].sum() / max(1, self.size_G.sum()))

    def draw(self) -> Ints:
        """Labels by token; the tokens without one stay without."""
        if self.draws % DRAWS_OF_ONE_ORDER == 0:
            self._reorder()
        self.draws += 1
        turn_ring = np.floor(self.random.random(len(self.groups_of_ring)) * self.groups_of_ring).astype(np.int64)
        source_G = np.arange(len(self.ring_G)) + turn_ring[self.ring_G]
        source_G -= np.where(source_G >= self.end_G, self.groups_of_ring[self.ring_G], 0)
        size_T = self.size_G[source_G][self.group_T]
        within_T = np.where(self.within_T >= size_T, self.within_T - size_T, self.within_T)
        codes_T = self.codes_T.copy()
        codes_T[self.token_T] = self.code_T[self.start_G[source_G][self.group_T] + within_T]
        return codes_T

    def _reorder(self) -> None:
        """Lay the groups of every ring in a new random order, and the tokens group after group."""
        order_G = np.argsort(self.ring_G + self.random.random(len(self.ring_G)))
        old_start_G, self.size_G = self.start_G[order_G], self.size_G[order_G]
        self.ring_G = self.ring_G[order_G]
        self.start_G = np.cumsum(self.size_G) - self.size_G
        self.end_G = np.cumsum(self.groups_of_ring)[self.ring_G]
        self.group_T = np.repeat(np.arange(len(order_G)), self.size_G)
        self.within_T = np.arange(len(self.token_T)) - self.start_G[self.group_T]
        self.token_T = self.token_T[old_start_G[self.group_T] + self.within_T]
        self.code_T = self.codes_T[self.token_T]


class DocumentTurn:
    """Values of tokens (their ids), turned within each document by a random number of places.

    For labels that a group of one token id cannot exchange: the token id itself. The document keeps its vocabulary
    and its taste, and neighbours stay neighbours, so routes that are the same for a whole document or that come in
    runs owe nothing to the token id.
    """

    def __init__(self, codes_T: Ints, document_T: Ints, seed: int):
        self.random = np.random.default_rng(seed)
        self.codes_T = np.asarray(codes_T)
        self.token_T = np.lexsort((np.arange(len(document_T)), document_T))
        _, self.document_T, self.size_D = np.unique(
            np.asarray(document_T)[self.token_T], return_inverse=True, return_counts=True
        )
        self.end_T = np.cumsum(self.size_D)[self.document_T]
        self.code_in_order_T = self.codes_T[self.token_T]

    @property
    def movable(self) -> float:
        return float(self.size_D[self.size_D > 1].sum() / max(1, self.size_D.sum()))

    def draw(self) -> Ints:
        """Values by token."""
        turned_D = np.floor(self.random.random(len(self.size_D)) * self.size_D).astype(np.int64)
        source_T = np.arange(len(self.token_T)) + turned_D[self.document_T]
        source_T -= np.where(source_T >= self.end_T, self.size_D[self.document_T], 0)
        codes_T = np.empty_like(self.codes_T)
        codes_T[self.token_T] = self.code_in_order_T[source_T]
        return codes_T


def _size_class(sizes: Ints) -> Ints:
    """One number for sizes within a factor of 1.5: 1, 2, 3, 4 and 5, 6 and 7, 8 to 11, ...; 0 counts as 1."""
    return np.floor(np.log(np.maximum(sizes, 1)) / np.log(SIZE_RATIO) + 1e-9).astype(np.int64)
