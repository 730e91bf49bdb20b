"""What earlier tokens leave behind, so that a model that goes on with a text computes the new tokens alone.

    cache = Cache(model.context)
    model(prompt_BT, cache=cache)      # gives what it gives without
    model(next_B1, cache=cache)        # the logits of the new tokens

Every block keeps keys and values of its attention. A mixture layer whose decisions read more than the token itself
(the mean of a prefix, of the segment before, of all so far; who came first under a capacity) keeps what its router has
read as well: it decides over all of that again, by the code that it was trained with, and runs experts for the new
tokens alone. Soft layers, whose slots average the past, run theirs again. That is exact where a decision reads no
later token, no other sequence, and does not depend on how many tokens there are; nothing here checks that.

Rows may differ in length. A row's tokens lie at its positions from 0 on. What stands behind them is padding, which
nothing reads, because nothing reads later tokens; the tokens that come next take its place.

Shape suffixes: B sequences, T positions of the present pass, S positions so far, X any further axes.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Cache:
    """The state between the passes over one batch of texts; every pass adds to it.

    `context` is the model's. `first_B`: how many of each row's tokens count in the first pass, the others being
    padding behind them; None: all.
    """

    def __init__(self, context: int, first_B: Tensor | None = None) -> None:
        self.context = context
        self.seen = 0  # S: positions of the longest row, those of the present pass included
        self.is_new = True  # the first pass: all there is to read is at hand
        self._first_B = first_B
        self._length_B: Tensor | None = None  # tokens of each row, without the present pass
        self._position_BT: Tensor | None = None  # where the tokens of the present pass stand
        self._stores: list[Store] = []
        self._past: dict[int, Past] = {}
        self._tokens = self._store()
        self.tokens_BS = torch.empty(0, dtype=torch.long)  # the texts as far as they are known in the present pass

    @property
    def position_BT(self) -> Tensor:
        """Where the tokens of the present pass stand in their texts."""
        assert self._position_BT is not None, "begin() comes first"
        return self._position_BT

    def begin(self, tokens_BT: Tensor) -> Tensor:
        """Begin a pass over new tokens; the texts as far as they are known now, (B, S).

        ValueError where they do not fit the model's context.
        """
        rows, new = tokens_BT.shape
        if self.seen + new > self.context:
            raise ValueError(f"{self.seen} and {new} new tokens do not fit a context of {self.context}")
        if self._length_B is None:
            self._length_B = torch.zeros(rows, dtype=torch.long, device=tokens_BT.device)
        self._position_BT = self._length_B.unsqueeze(1) + torch.arange(new, device=tokens_BT.device)
        self.seen += new
        self.tokens_BS = self._tokens.extend(tokens_BT)
        return self.tokens_BS

    def end(self) -> None:
        """End the pass: its tokens count as read."""
        assert self._length_B is not None
        if self.is_new and self._first_B is not None:
            self._length_B = self._first_B
            self.seen = int(self._first_B.max())
        else:
            self._length_B = self._length_B + self.position_BT.shape[1]
        self.is_new = False

    def past(self, block: int) -> "Past":
        """What a block keeps."""
        if block not in self._past:
            self._past[block] = Past(self._store(), self._store(), self._store())
        return self._past[block]

    def of_new(self, value_BSX: Tensor) -> Tensor:
        """Of a value for every position so far, those of the new tokens: (B, T, X)."""
        return value_BSX if self.is_new else value_BSX[self._rows_B1, self.position_BT]

    def not_later_BTS(self) -> Tensor:
        """Which positions so far are not later than each new token."""
        return torch.arange(self.seen, device=self.position_BT.device) <= self.position_BT.unsqueeze(-1)

    def choose(self, row_B: Tensor) -> None:
        """Go on with other rows: row b of now is row row_B[b] of before (beams)."""
        for store in self._stores:
            store.choose(row_B)
        if self._length_B is not None:
            self._length_B = self._length_B[row_B]

    def forget(self, tokens: int) -> None:
        """Forget the last tokens of every row."""
        if self._length_B is not None:
            self._length_B = self._length_B - tokens
            self.seen -= tokens

    @property
    def _rows_B1(self) -> Tensor:
        return torch.arange(len(self.position_BT), device=self.position_BT.device).unsqueeze(1)

    def _store(self) -> "Store":
        self._stores.append(Store(self))
        return self._stores[-1]


class Store:
    """One tensor of every position so far, (B, S, X)."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._all: Tensor | None = None  # as long as the context

    def extend(self, new_BTX: Tensor) -> Tensor:
        """Keep the values of the new tokens; those of all positions so far."""
        cache = self._cache
        if self._all is None:
            rows, _, *axes = new_BTX.shape
            self._all = new_BTX.new_zeros(rows, cache.context, *axes)
        elif self._all.is_inference() and not torch.is_inference_mode_enabled():
            self._all = self._all.clone()  # torch lets nobody write to what was made in inference mode
        self._all[cache._rows_B1, cache.position_BT] = new_BTX.detach()
        return new_BTX if cache.is_new else self._all[:, : cache.seen]

    def choose(self, row_B: Tensor) -> None:
        if self._all is not None:
            self._all = self._all[row_B]


class Past(NamedTuple):
    """What one block keeps."""

    keys: Store
    values: Store
    states: Store  # what the router has read
