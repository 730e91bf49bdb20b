import itertools
from collections.abc import Callable

import pytest
import torch

from bench import common
from bench.common import describe, flanked, ratio, spread, take_turns


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, moved on by the sides themselves."""
    now = [0.0]
    monkeypatch.setattr(common.time, "process_time", lambda: now[0])
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    return now


def test_sides_take_turns_in_alternating_order(clock: list[float]) -> None:
    ran: list[str] = []

    def side(name: str, seconds: float) -> Callable[[], None]:
        def run() -> None:
            ran.append(name)
            clock[0] += seconds

        return run

    seconds = take_turns({"a": side("a", 1.0), "b": side("b", 3.0)}, rounds=2, warmup=1)
    assert ran == ["b", "a", "a", "b", "b", "a"]
    assert seconds == {"a": [1.0, 1.0], "b": [3.0, 3.0]}


def test_a_flanked_ratio_cancels_a_machine_that_slows_down_evenly(clock: list[float]) -> None:
    step = itertools.count(1)

    def twin() -> None:
        clock[0] += next(step)

    def side() -> None:
        clock[0] += 2 * next(step)

    row = flanked(side, twin, rounds=5)
    assert row["median"] == row["low"] == row["high"] == pytest.approx(2.0)
    assert row["seconds_of"] == "CPU, one thread" and row["rounds"] == 5


def test_a_ratio_is_taken_within_rounds() -> None:
    # Both sides are three times slower in the last rounds; no ratio of medians or sums would give 2.
    assert ratio([2, 2, 2, 6, 6], [1, 1, 1, 3, 3]) == {"median": 2.0, "low": 2.0, "high": 2.0}


def test_the_spread_is_the_quartiles() -> None:
    assert spread([5.0, 1.0, 2.0, 3.0, 4.0]) == {"median": 3.0, "low": 2.0, "high": 4.0}
    assert spread([7.0]) == {"median": 7.0, "low": 7.0, "high": 7.0}


def test_a_row_is_described_ratio_first_with_its_target() -> None:
    row = {**spread([1.5]), "seconds_of": "CPU, one thread"}
    assert describe("layer 64x8", row).split()[0] == "1.500"
    assert "must 1.60, aim 1.30" in describe("layer 64x8", row)
    assert "must" not in describe("layer of another size", row)
    assert "must 0.90" in describe("peer anything 8x2, 2 threads", row)
    assert "must" not in describe("peer anything 8x2", row)  # one thread's CPU seconds are only looked at
    assert "must 0.90" in describe("gpu peer anything 8x2", row)
    assert "must 1.00" in describe("peer soft-moe-pytorch soft 8x1, 2 threads", row)
    assert "must 1.60" in describe("layer 64x8, 2 threads", row)
    assert describe("a", {"skipped": "there is no GPU"}).endswith("a: skipped, there is no GPU")
