from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moe_study.data.sampler import Batch, TrainSampler, _quotas, permute, validation_batches
from moe_study.data.shards import Shard, Split
from moe_study.errors import ConfigError, DataError

T = 8


def split_of(*sizes: int) -> Split:
    """A split whose ids tell where they stand: shard s holds 10,000 * s, 10,000 * s + 1, ..."""
    shards = tuple(
        Shard(Path(f"{s}.bin"), s % 2, s // 2, np.arange(10_000 * s, 10_000 * s + size, dtype=np.uint16), 1, size)
        for s, size in enumerate(sizes)
    )
    return Split("train", shards, end_of_text=0)


def naive_windows(split: Split, context: int) -> list[tuple[int, ...]]:
    """Every window as a tuple of T + 1 ids, by the definition and a plain loop."""
    windows = []
    for shard in split.shards:
        ids = shard.tokens.tolist()
        w = 0
        while w * context + context + 1 <= len(ids):
            windows.append(tuple(ids[w * context : w * context + context + 1]))
            w += 1
    return windows


def rows(batch: Batch) -> list[tuple[int, ...]]:
    """A batch as tuples of T + 1 ids, put together from inputs and targets."""
    np.testing.assert_array_equal(batch.inputs_BT[:, 1:], batch.targets_BT[:, :-1])
    return [(*i.tolist(), t[-1].item()) for i, t in zip(batch.inputs_BT, batch.targets_BT, strict=True)]


@pytest.mark.parametrize("sizes", [(100,), (9, 8, 17, 60), (40, 7, 0, 33, 200)])
@pytest.mark.parametrize("batch_size", [1, 3, 50])
def test_an_epoch_visits_every_window_exactly_once(sizes: tuple[int, ...], batch_size: int) -> None:
    split = split_of(*sizes)
    sampler = TrainSampler(split, T, batch_size, seed=3)
    expected = sorted(naive_windows(split, T))
    assert sampler.tokens_per_epoch == len(expected) * T
    # Three epochs from the flat stream of batches, whose borders need not be those of epochs.
    steps = -(-3 * len(expected) // batch_size)
    stream = [row for step in range(steps) for row in rows(sampler.batch(step))]
    for epoch in range(3):
        assert sorted(stream[epoch * len(expected) : (epoch + 1) * len(expected)]) == expected


def test_the_labels_of_a_sequence_are_those_of_its_shard() -> None:
    split = split_of(50, 60, 70, 80)
    batch = TrainSampler(split, T, 32, seed=0).batch(0)
    for ids, language, topic in zip(rows(batch), batch.language_B, batch.topic_B, strict=True):
        shards = {i // 10_000 for i in ids}
        assert len(shards) == 1, "a window holds tokens of two domains"
        shard = split.shards[shards.pop()]
        assert (language, topic) == (shard.language, shard.topic)


def test_batches_are_int64_and_of_the_stated_shape() -> None:
    batch = TrainSampler(split_of(500), T, 5, seed=0).batch(2)
    assert batch.inputs_BT.shape == batch.targets_BT.shape == (5, T)
    assert batch.language_B.shape == batch.topic_B.shape == (5,)
    for array in (batch.inputs_BT, batch.targets_BT, batch.language_B, batch.topic_B):
        assert array.dtype == np.int64


def test_a_batch_depends_on_seed_and_step_alone() -> None:
    split = split_of(300, 500)
    in_order = [rows(TrainSampler(split, T, 4, seed=5).batch(step)) for step in range(60)]
    sampler = TrainSampler(split, T, 4, seed=5)
    assert [rows(sampler.batch(step)) for step in reversed(range(60))] == in_order[::-1]
    assert rows(TrainSampler(split, T, 4, seed=6).batch(0)) != in_order[0]


def test_the_batch_size_does_not_change_the_order_of_sequences() -> None:
    split = split_of(300, 500)
    by_four = [row for step in range(12) for row in rows(TrainSampler(split, T, 4, seed=1).batch(step))]
    by_six = [row for step in range(8) for row in rows(TrainSampler(split, T, 6, seed=1).batch(step))]
    assert by_four == by_six


def test_epochs_differ_in_order() -> None:
    split = split_of(8 * 50 + 1)
    sampler = TrainSampler(split, T, 50, seed=0)
    orders = {tuple(rows(sampler.batch(epoch))) for epoch in range(5)}
    assert len(orders) == 5


def test_the_order_of_a_seed_stays_what_it_was() -> None:
    """Written down once: another order for the same seed would make old runs impossible to resume."""
    order = permute(np.arange(10), 10, seed=0, epoch_B=np.zeros(10, np.int64))
    assert order.tolist() == [5, 1, 0, 3, 9, 6, 4, 8, 2, 7]


@pytest.mark.parametrize("size", [*range(1, 70), 1000, 4097])
def test_permute_is_a_permutation(size: int) -> None:
    places = np.arange(size)
    found = permute(places, size, seed=11, epoch_B=np.full(size, 2))
    assert sorted(found.tolist()) == places.tolist()


@pytest.mark.parametrize("size", [6, 37, 500])
def test_permute_is_even_over_seeds_and_epochs(size: int) -> None:
    """Chi-square of where place p goes, and of how two neighbours end up: both look like a fair draw."""
    draws = 200 * size
    for place in (0, size // 2, size - 1):
        found = np.concatenate(
            [permute(np.full(draws // 20, place), size, s, np.arange(draws // 20)) for s in range(20)]
        )
        counts = np.bincount(found, minlength=size)
        statistic = ((counts - draws / size) ** 2 / (draws / size)).sum()
        freedom = size - 1
        assert abs(statistic - freedom) < 5 * np.sqrt(2 * freedom)
    epochs = np.arange(20_000)
    first = permute(np.zeros(20_000, np.int64), size, 1, epochs)
    second = permute(np.ones(20_000, np.int64), size, 1, epochs)
    ascending = (first < second).mean()
    assert abs(ascending - 0.5) < 5 * 0.5 / np.sqrt(20_000)


def test_permute_of_nine_billion_costs_nothing() -> None:
    found = permute(np.arange(64), 9_000_000_000, seed=0, epoch_B=np.zeros(64, np.int64))
    assert len(set(found.tolist())) == 64
    assert found.max() > 4_000_000_000


def test_a_split_without_one_whole_window_is_refused_with_advice() -> None:
    with pytest.raises(DataError, match=r"no domain of the train split has 9 tokens; make model\.context"):
        TrainSampler(split_of(8, 5), T, 4, seed=0)


def test_an_empty_batch_is_refused() -> None:
    with pytest.raises(ConfigError, match="batch_size"):
        TrainSampler(split_of(100), T, 0, seed=0)


def validation_rows(split: Split, batch_size: int, max_tokens: int) -> list[tuple[int, ...]]:
    batches = validation_batches(split, T, batch_size, max_tokens)
    return [row for batch in batches for row in rows(batch)]


def test_validation_is_the_same_for_every_batch_size() -> None:
    split = split_of(500, 90, 300)
    whole = validation_rows(split, 1000, 40 * T)
    assert len(whole) == 40
    for batch_size in (1, 3, 7, 32):
        assert validation_rows(split, batch_size, 40 * T) == whole
    sizes = [len(b.language_B) for b in validation_batches(split, T, 7, 40 * T)]
    assert sizes == [7, 7, 7, 7, 7, 5]


def test_validation_takes_everything_when_there_is_room() -> None:
    split = split_of(100, 33)
    assert validation_rows(split, 4, 10**9) == naive_windows(split, T)


def test_validation_spreads_evenly_over_each_domain() -> None:
    split = split_of(T * 100 + 1, T * 300 + 1)
    chosen = validation_rows(split, 16, 40 * T)
    for shard, quota, size in ((0, 10, 100), (1, 30, 300)):
        windows = [(row[0] - 10_000 * shard) // T for row in chosen if row[0] // 10_000 == shard]
        assert len(windows) == quota
        gaps = np.diff([-size / quota / 2, *windows, size + size / quota / 2])
        assert gaps.max() <= size / quota + 1 and gaps.min() >= size / quota - 1


def test_a_small_domain_still_has_a_say_in_validation() -> None:
    split = split_of(T * 100 + 1, T + 1, T * 50 + 1)
    batches = list(validation_batches(split, T, 8, 12 * T))
    domains = [d for b in batches for d in zip(b.language_B.tolist(), b.topic_B.tolist(), strict=True)]
    assert len(domains) == 12
    assert set(domains) == {(0, 0), (1, 0), (0, 1)}


def test_validation_has_at_least_one_window() -> None:
    assert len(validation_rows(split_of(100, 100), 4, 1)) == 1


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 500), min_size=1, max_size=12).filter(any), st.integers(1, 3000))
def test_quotas_add_up_and_stay_close_to_proportion(counts: list[int], budget: int) -> None:
    array = np.array(counts)
    quotas = _quotas(array, budget)
    assert quotas.sum() == min(budget, array.sum())
    assert (quotas >= 0).all() and (quotas <= array).all()
    exact = array * min(1.0, budget / array.sum())
    if budget >= np.count_nonzero(array):
        assert (quotas[array > 0] >= 1).all()
        assert (quotas <= np.ceil(exact) + 1e-9).all()
