"""Many small pieces of work on a CPU, shared out among threads of which each computes alone.

torch's own threads share the work within one operation, and meet at its end: with operations of a tenth of a
millisecond they mostly wait for one another. Here each thread takes the next piece when it is ready for it.
"""

import functools
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Piece = TypeVar("Piece")
PIECES_A_THREAD = 2  # with fewer, some thread would mostly be idle: torch's own threads do better then


def in_threads(work: Callable[[Iterator[Piece]], None], pieces: Sequence[Piece]) -> None:
    """Call `work` in as many threads as torch may use; each call goes through the pieces that it gets to take.

    Pieces must not depend on one another. Gradients are not recorded. Returns when all are done; an exception of any
    call is raised here.
    """
    threads = torch.get_num_threads()
    if threads == 1 or len(pieces) < PIECES_A_THREAD * threads:
        with torch.no_grad():
            work(iter(pieces))
        return
    left, inference = deque(pieces), torch.is_inference_mode_enabled()

    def take_and_work() -> None:
        with torch.inference_mode(inference), torch.no_grad():  # modes belong to a thread
            work(_taking(left))

    for future in [_pool(threads, os.getpid()).submit(take_and_work) for _ in range(threads)]:
        future.result()


def _taking(left: deque[Piece]) -> Iterator[Piece]:
    while True:
        try:
            piece = left.popleft()
        except IndexError:
            return
        yield piece


@functools.cache
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    """Threads of this process (a fork has none of its parent's) in which torch uses one thread."""
    pool = ThreadPoolExecutor(threads, "experts", initializer=_compute_alone)
    all_there = threading.Barrier(threads)
    list(pool.map(lambda _: all_there.wait(), range(threads)))
    torch.set_num_threads(threads)  # what the initialisers have set also holds for threads to come
    return pool


def _compute_alone() -> None:
    torch.set_num_threads(1)
    torch.get_num_threads()  # a thread takes over the number set last when it first needs it: here, while it is 1
