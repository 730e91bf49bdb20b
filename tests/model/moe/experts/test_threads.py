"""Pieces of work in threads: each done once, under the caller's modes, with nothing left behind."""

import threading
from collections.abc import Iterator

import pytest
import torch

from moe_study.model.moe.experts.threads import in_threads


@pytest.fixture(params=[1, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("pieces", [0, 1, 2, 7, 100])
def test_every_piece_is_done_once(threads: int, pieces: int) -> None:
    done: list[int] = []
    in_threads(lambda taken: done.extend(taken), range(pieces))
    assert sorted(done) == list(range(pieces))


def test_all_threads_work_at_once_and_torch_has_one_in_each(threads: int) -> None:
    together, seen = threading.Barrier(threads), []

    def work(taken: Iterator[int]) -> None:
        next(taken)
        together.wait(timeout=30)  # nobody gets here alone
        seen.append(torch.get_num_threads())
        list(taken)

    in_threads(work, range(100))
    assert seen == [1] * threads
    assert torch.get_num_threads() == threads


def test_threads_that_come_later_find_torch_s_number_unchanged(threads: int) -> None:
    in_threads(list, range(100))
    found: list[int] = []
    later = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    later.start()
    later.join()
    assert found == [threads]


@pytest.mark.parametrize("inference", [False, True])
def test_work_records_no_gradients_and_may_write_to_what_the_caller_made(threads: int, inference: bool) -> None:
    weight = torch.ones((), requires_grad=True)
    with torch.inference_mode(inference):
        out = torch.zeros(100)

        def work(taken: Iterator[int]) -> None:
            for i in taken:
                torch.mul(weight, i, out=out[i])

        in_threads(work, range(100))
    assert out.tolist() == list(range(100)) and not out.requires_grad


def test_an_error_in_a_piece_is_raised(threads: int) -> None:
    def work(taken: Iterator[int]) -> None:
        for piece in taken:
            if piece == 60:
                raise ZeroDivisionError("piece 60")

    with pytest.raises(ZeroDivisionError, match="piece 60"):
        in_threads(work, range(100))
