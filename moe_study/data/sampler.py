"""Windows of a split: the order they are trained in, and the fixed set they are judged on.

Window w of a shard is its ids [w*T, w*T + T + 1): T inputs and, shifted by one, T targets. So a sequence has
one language and one topic, and no target is seen twice in an epoch. A rest shorter than T + 1 is left out.

Shape suffixes: B batch rows, T positions, W windows
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from moe_study.data.mixing import splitmix64
from moe_study.data.shards import Split
from moe_study.errors import ConfigError, DataError

_ROUNDS = 8  # of the permutation; even


@dataclass(frozen=True)
class Batch:
    """Sequences of one step; int64 throughout."""

    inputs_BT: np.ndarray
    targets_BT: np.ndarray
    language_B: np.ndarray  # index into the corpus's languages
    topic_B: np.ndarray  # index into the corpus's topics


def labels_of(batch: Any, label: str) -> np.ndarray:
    """(B,) what the router may read of each sequence: its topic, or its language."""
    labels_B: np.ndarray = batch.topic_B if label == "topic" else batch.language_B
    return labels_B


def windows_in(tokens: int, context: int) -> int:
    """Windows of a domain of that many token ids; 0: it is too short to be trained on, or judged."""
    return max(0, (tokens - 1) // context)


class Windows:
    """All windows of a split by number: shard after shard, in the order of the text."""

    def __init__(self, split: Split, context: int) -> None:
        if context < 1:
            raise ConfigError(f"model.context={context} must be at least 1")
        self._shards = split.shards
        self._context = context
        counts = [windows_in(len(shard.tokens), context) for shard in split.shards]
        self.counts = np.array(counts, np.int64)  # windows of each shard
        self._ends = np.cumsum(self.counts)
        self._languages = np.array([shard.language for shard in split.shards], np.int64)
        self._topics = np.array([shard.topic for shard in split.shards], np.int64)
        self.total = int(self._ends[-1]) if len(counts) else 0
        if self.total == 0:
            raise DataError(
                f"no domain of the {split.name} split has {context + 1} tokens; make model.context "
                "smaller or prepare more text"
            )

    def batch(self, windows_B: np.ndarray) -> Batch:
        """The windows of these numbers, each from 0 to total - 1."""
        shard_B = np.searchsorted(self._ends, windows_B, side="right")
        start_B = (windows_B - (self._ends - self.counts)[shard_B]) * self._context
        ids = np.empty((len(windows_B), self._context + 1), np.int64)
        for row, (shard, start) in enumerate(zip(shard_B.tolist(), start_B.tolist(), strict=True)):
            ids[row] = self._shards[shard].tokens[start : start + self._context + 1]
        return Batch(ids[:, :-1], ids[:, 1:], self._languages[shard_B], self._topics[shard_B])


class TrainSampler:
    """Batches of the training split in a random order that is a pure function of (seed, step).

    Epoch e visits every window once, in a permutation drawn from (seed, e); a batch may hold the end of one
    epoch and the beginning of the next. Any step can be asked for at once: nothing is remembered.
    """

    def __init__(self, split: Split, context: int, batch_size: int, seed: int) -> None:
        if batch_size < 1:
            raise ConfigError(f"run.batch_size={batch_size} must be at least 1")
        self._windows = Windows(split, context)
        self._batch_size = batch_size
        self._seed = seed
        self.windows_per_epoch = self._windows.total
        self.tokens_per_epoch = self._windows.total * context

    def batch(self, step: int) -> Batch:
        """The batch of a step, counted from 0."""
        position_B = np.arange(step * self._batch_size, (step + 1) * self._batch_size, dtype=np.int64)
        epoch_B, place_B = np.divmod(position_B, self.windows_per_epoch)
        return self._windows.batch(permute(place_B, self.windows_per_epoch, self._seed, epoch_B))


def permute(place_B: np.ndarray, size: int, seed: int, epoch_B: np.ndarray) -> np.ndarray:
    """Where each place of an epoch's order points to: a permutation of 0 .. size - 1 for every (seed, epoch).

    A generalised Feistel network over pairs (left, right) of [0, a) x [0, b) with a * b just above size, walked
    on while the result falls outside (Black and Rogaway 2002, "Ciphers with arbitrary finite domains"). Unlike
    a shuffle it takes no memory and no time for the windows that are not asked for, and it does not depend on
    numpy's generators, whose streams may change.
    """
    a = math.isqrt(size - 1) + 1
    b = -(-size // a)
    keys_RB = _round_keys(seed, epoch_B)
    result_B = _feistel(place_B.astype(np.uint64), keys_RB, a, b)
    while len(outside_B := np.flatnonzero(result_B >= size)):
        result_B[outside_B] = _feistel(result_B[outside_B], keys_RB[:, outside_B], a, b)
    return result_B.astype(np.int64)


def _feistel(value_B: np.ndarray, keys_RB: np.ndarray, a: int, b: int) -> np.ndarray:
    """One pass over [0, a * b): the halves take turns in shifting one another, which can always be undone."""
    left_B, right_B = np.divmod(value_B, np.uint64(b))
    for r in range(0, _ROUNDS, 2):
        left_B = (left_B + splitmix64(right_B ^ keys_RB[r]) % np.uint64(a)) % np.uint64(a)
        right_B = (right_B + splitmix64(left_B ^ keys_RB[r + 1]) % np.uint64(b)) % np.uint64(b)
    return left_B * np.uint64(b) + right_B


def _round_keys(seed: int, epoch_B: np.ndarray) -> np.ndarray:
    """One 64-bit key for each round and row, (_ROUNDS, B)."""
    seed_B = np.full(len(epoch_B), seed % 2**64, np.uint64)
    base_B = splitmix64(splitmix64(seed_B) ^ epoch_B.astype(np.uint64))
    return splitmix64(base_B + np.arange(_ROUNDS, dtype=np.uint64)[:, None])


def validation_batches(split: Split, context: int, batch_size: int, max_tokens: int) -> Iterator[Batch]:
    """The fixed validation set, in a fixed order: at most `max_tokens` tokens, but at least one window.

    Every domain gives windows in proportion to its size, at least one if it has any and there is room, evenly
    spread over its text. Neither a seed nor the batch size has a part in the choice; the last batch may be
    smaller.
    """
    windows = Windows(split, context)
    chosen_W = _chosen_windows(windows.counts, max(1, max_tokens // context))
    for first in range(0, len(chosen_W), batch_size):
        yield windows.batch(chosen_W[first : first + batch_size])


def _chosen_windows(counts: np.ndarray, budget: int) -> np.ndarray:
    """Numbers of at most `budget` windows, evenly spread, stratified by shard."""
    quotas = _quotas(counts, budget)
    starts = np.cumsum(counts) - counts
    spread = [
        start + ((2 * np.arange(quota) + 1) * count) // (2 * quota)
        for start, count, quota in zip(starts, counts, quotas, strict=True)
        if quota
    ]
    return np.concatenate(spread)


def _quotas(counts: np.ndarray, budget: int) -> np.ndarray:
    """Split the budget in proportion to counts, by largest remainders, no share above its count."""
    total = int(counts.sum())
    if budget >= total:
        return counts
    exact = counts * (budget / total)
    quotas = np.floor(exact).astype(np.int64)
    if budget >= np.count_nonzero(counts):
        quotas = np.maximum(quotas, (counts > 0).astype(np.int64))
    # Largest remainders fill up; minima above may have gone beyond, and then the largest shares give back.
    while quotas.sum() < budget:
        quotas[np.argmax(np.where(quotas < counts, exact - quotas, -np.inf))] += 1
    while quotas.sum() > budget:
        quotas[np.argmax(np.where(quotas > 1, quotas - exact, -np.inf))] -= 1
    return quotas
