"""Several processes that train one model together: ranks, as torchrun starts them, and what they tell one another.

    torchrun --nproc-per-node 2 train.py model=micro run.batch_size=16

The environment says who is who (RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT). Every rank holds the whole
model, draws the same batch, computes its share of it (design/ranks.py), and makes the same update. Rank 0 alone writes
to the run's folder. Process groups are known here and nowhere else: `Ranks` stands for a single process, and for the
first and the others among several.

A collective call waits for all ranks. One that is lost ends the others with `RankLost`: the run is preempted then, and
goes on from its last checkpoint, with as many ranks as there are.

Shape suffixes: E experts.
"""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed, nn

from moe_study.design.ranks import Sharing
from moe_study.errors import MachineError, StudyError, reason_of
from moe_study.model.forward_pass import ONE_PROCESS, Counts, Reducer
from moe_study.training.rank import rank_of_environment, size_of_environment

BACKENDS = "cpu:gloo,cuda:nccl"  # by the device of the tensor


class RankLost(MachineError):
    """Another process of the run is gone, or does not answer."""


@dataclass(frozen=True)
class Ranks:
    """This process among those that train one model; ALONE has no others, and its collective calls do nothing."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this process writes to the run's folder."""
        return self.rank == 0

    def rows(self, sharing: Sharing, number: int, rows: slice) -> slice | None:
        """What this rank computes of the `rows` of micro-batch `number`; None where it is another's."""
        if sharing is Sharing.WHOLE:
            return rows if number % self.size == self.rank else None
        part = (rows.stop - rows.start) // self.size
        return slice(rows.start + self.rank * part, rows.start + (self.rank + 1) * part)

    def reducer(self, sharing: Sharing) -> Reducer:
        """What the model's layers sum over ranks with."""
        return ONE_PROCESS if self.size == 1 else _OverRanks(self, sharing)

    def sum_gradients(self, model: nn.Module) -> None:
        """Add up the gradients of all ranks, so that each has those of the whole step."""
        if self.size > 1:
            gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
            self.sum_all(gradients)

    def sum_all(self, tensors: list[Tensor]) -> None:
        """Add up each tensor over ranks, in place, in one call for each type."""
        if self.size == 1:
            return
        for kind in dict.fromkeys((tensor.dtype, tensor.device) for tensor in tensors):
            same = [tensor for tensor in tensors if (tensor.dtype, tensor.device) == kind]
            flat = torch.cat([tensor.detach().flatten() for tensor in same])
            with lost_ranks():
                distributed.all_reduce(flat)
            parts = flat.split([tensor.numel() for tensor in same])
            for tensor, part in zip(same, parts, strict=True):
                tensor.copy_(part.view_as(tensor))

    def gathered(self, value: Any) -> list[Any]:
        """The `value` of every rank, by rank; tensors in it belong on the CPU."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        with lost_ranks():
            distributed.all_gather_object(values, value)
        return values

    def agreed(self, note: str | None) -> str | None:
        """The first note that any rank has: what one is asked (to stop), all do after the same step."""
        if self.size == 1:
            return note
        noted = torch.tensor(int(note is not None))
        with lost_ranks():
            distributed.all_reduce(noted)
        if not noted.item():
            return None
        return next(each for each in self.gathered(note) if each is not None)


ALONE = Ranks()


class _OverRanks(Reducer):
    """Sums over ranks; what a micro-batch is follows from how the step is shared."""

    def __init__(self, ranks: Ranks, sharing: Sharing) -> None:
        self._ranks, self._sharing = ranks, sharing

    @torch.compiler.disable
    def counts(self, counts_E: Tensor) -> Counts:
        by_rank = [torch.empty_like(counts_E) for _ in range(self._ranks.size)]
        with lost_ranks():
            distributed.all_gather(by_rank, counts_E.contiguous())
        all_E = torch.stack(by_rank).sum(0)
        if self._sharing is Sharing.SPLIT:
            return Counts(all_E, all_E, all_E)
        # Rank r has the micro-batch that comes after those of the ranks before it.
        return Counts(counts_E, torch.stack(by_rank[: self._ranks.rank + 1]).sum(0), all_E)

    @torch.compiler.disable
    def mean(self, value: Tensor) -> Tensor:
        total = value.clone()
        self._ranks.sum_all([total])
        return total / self._ranks.size


@contextlib.contextmanager
def joined_ranks() -> Iterator[Ranks]:
    """This process as one of those that the environment names, or alone.

    A GPU is chosen by LOCAL_RANK. StudyError where they do not find one another.
    """
    rank, size = rank_of_environment(), size_of_environment()
    if size == 1:
        yield ALONE
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)) % torch.cuda.device_count())
    backend = BACKENDS if torch.cuda.is_available() else "gloo"
    try:
        distributed.init_process_group(backend, rank=rank, world_size=size)
    except (ValueError, RuntimeError) as error:
        raise StudyError(
            f"{size} processes should train together (WORLD_SIZE), and rank {rank} cannot join them"
            f" ({reason_of(error)}); start them with torchrun, or unset WORLD_SIZE"
        ) from error
    try:
        yield Ranks(rank, size)
    finally:
        distributed.destroy_process_group()


@contextlib.contextmanager
def lost_ranks() -> Iterator[None]:
    """Turn what a collective call raises where a rank is gone into `RankLost`."""
    try:
        yield
    except RuntimeError as error:  # DistBackendError and its like among them
        raise RankLost("another process of this run is gone; rerun the command to resume") from error
