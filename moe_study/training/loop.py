"""One training step, and all the state that steps change.

Randomness is a pure function of (seed, step, micro-batch): torch's generators are seeded anew for each, so that
dropout and router noise are the same whether or not the run was ever interrupted, and on whichever rank.

Shape suffixes: B sequences of a step or micro-batch, T positions.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from moe_study.data.sampler import labels_of
from moe_study.design.config import RunConfig
from moe_study.design.ranks import sharing_of
from moe_study.model.transformer import Transformer
from moe_study.training import checkpoint
from moe_study.training.device import autocast
from moe_study.training.distributed import ALONE, Ranks
from moe_study.training.gradients import GradientNorms
from moe_study.training.metrics import LossWindow, RoutingWindow, Stopwatch
from moe_study.training.optimizer import build_optimizer, learning_rate, set_learning_rate


class Sampler(Protocol):
    """Where the training batches come from: `batch` depends on the step alone."""

    def batch(self, step: int) -> Any: ...


@dataclass(frozen=True)
class MicroBatch:
    number: int  # among those of the step
    inputs_BT: Tensor
    targets_BT: Tensor
    label_B: Tensor
    target_share: float  # its part of the step's targets: weight of its mean language-model loss
    sequence_share: float  # its part of the step's sequences: weight of its balancing terms


class Trainer:
    """Model, optimizer and counters, moved on by `train_step`."""

    def __init__(
        self, config: RunConfig, model: Transformer, sampler: Sampler, device: torch.device, ranks: Ranks = ALONE
    ):
        self.config = config
        self.model = model.train()
        self.sampler = sampler
        self.device = device
        self.ranks, self.sharing = ranks, sharing_of(config, ranks.size)
        self.reducer = ranks.reducer(self.sharing)
        self.optimizer = build_optimizer(model, config.optimizer, device)
        self.step = 0  # optimizer steps done
        self.losses = LossWindow()
        self.routing = RoutingWindow()
        self.gradients = GradientNorms(model)
        self.watch = Stopwatch(device, config.tokens_per_step)
        self.peak_memory = 0  # bytes, of earlier processes of this run

    @property
    def tokens(self) -> int:
        """Tokens trained on so far."""
        return self.step * self.config.tokens_per_step

    def rate(self, step: int) -> float:
        """Learning rate of the update of `step`, from 0."""
        return learning_rate(step, self.config.total_steps, self.config.optimizer)

    def train_step(self) -> None:
        """One optimizer step over a whole batch, in micro-batches. Does not wait for the device."""
        settings, clip = self.config.run, self.config.optimizer.grad_clip
        set_learning_rate(self.optimizer, self.rate(self.step))
        self.model.begin_step(self.step)
        detail = self._wants_detail()
        loss = torch.zeros((), device=self.device)
        aux: dict[str, Tensor] = {}
        for micro in self._micro_batches(self.sampler.batch(self.step)):
            self._seed(micro.number)
            with autocast(self.device, settings.precision):
                output = self.model(
                    micro.inputs_BT, micro.targets_BT, label_B=micro.label_B, detail=detail, reducer=self.reducer
                )
            (micro.target_share * output.loss + micro.sequence_share * output.aux_loss).backward()
            loss += micro.target_share * output.loss.detach()
            for name, value in output.aux.items():
                aux[name] = aux.get(name, 0.0) + micro.sequence_share * value.detach()
            self.routing.add(output.stats)
        self.ranks.sum_gradients(self.model)
        self.ranks.sum_all([loss, *aux.values()])
        if self.gradients_due(self.step + 1):
            self.gradients.take(self.step + 1)
        grad_norm = clip_gradients(self.model, clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.model.end_step(self.reducer)
        self.losses.add(loss, grad_norm, aux)
        self.step += 1

    def gradients_due(self, step: int) -> bool:
        """Whether the norms of the gradients of `step` (from 1) are recorded."""
        every = self.config.log.gradients_every
        return due(step, every) or (every > 0 and step == self.config.total_steps)

    def _wants_detail(self) -> bool:
        """Details (the router's entropy) cost time, so they are taken only in steps that end with a record.

        Never in a compiled run: a second form of the forward pass would be compiled for them.
        """
        step = self.step + 1
        recorded = due(step, self.config.log.routing_every) or step == self.config.total_steps
        return recorded and not self.config.run.compile

    def _micro_batches(self, batch: Any) -> Iterator[MicroBatch]:
        label_B = labels_of(batch, self.config.routing.label)
        valid_B = (batch.targets_BT >= 0).sum(1)
        targets, sequences = max(1, int(valid_B.sum())), len(valid_B)
        size = self.config.run.micro_batch or sequences
        for number, start in enumerate(range(0, sequences, size)):
            rows = self.ranks.rows(self.sharing, number, slice(start, min(start + size, sequences)))
            if rows is None:
                continue
            yield MicroBatch(
                number,
                self._to_device(batch.inputs_BT[rows]),
                self._to_device(batch.targets_BT[rows]),
                self._to_device(label_B[rows]),
                target_share=int(valid_B[rows].sum()) / targets,
                sequence_share=len(valid_B[rows]) / sequences,
            )

    def _seed(self, micro_batch: int) -> None:
        seed = random_seed(self.config.run.seed, self.step, micro_batch)
        torch.default_generator.manual_seed(seed)  # torch.manual_seed itself takes half a millisecond
        if self.device.type == "cuda":
            torch.cuda.manual_seed(seed)

    def _to_device(self, array: np.ndarray) -> Tensor:
        tensor = torch.from_numpy(np.ascontiguousarray(array))
        if self.device.type == "cpu":
            return tensor
        return tensor.pin_memory().to(self.device, non_blocking=True)

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next step depends on, and the sums that the next records depend on.

        Of all ranks, so that others can go on from it; all call it together.
        """
        self.routing.collect(self.ranks, self.device)
        return {
            "step": self.step,
            "tokens": self.tokens,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "random": checkpoint.random_states(),
            "losses": self.losses.state_dict(),
            "routing": self.routing.state_dict(),
            "watch": self.watch.state_dict(),
            "peak_memory": self.peak_memory,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state`; one without an optimizer is of a run that only has to be evaluated."""
        self.step = state["step"]
        self.model.load_state_dict(state["model"])
        if "optimizer" in state:
            self.optimizer.load_state_dict(state["optimizer"])
        checkpoint.restore_random_states(state["random"])
        self.losses.load_state_dict(state["losses"], self.device)
        if self.ranks.first:  # what all had counted
            self.routing.load_state_dict(state["routing"], self.device)
        self.watch.load_state_dict(state["watch"])
        self.peak_memory = state["peak_memory"]


def due(step: int, every: int) -> bool:
    """Whether something that happens `every` so many steps (0: never) happens after `step` of them."""
    return every > 0 and step % every == 0


def clip_gradients(model: nn.Module, limit: float) -> Tensor:
    """Scale all gradients so that their joint 2-norm is at most `limit` (0: leave them); the norm before."""
    parameters = [parameter for parameter in model.parameters() if parameter.grad is not None]
    if limit > 0:
        return nn.utils.clip_grad_norm_(parameters, limit, foreach=True)
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    return nn.utils.get_total_norm(gradients, foreach=True)


def random_seed(seed: int, step: int, micro_batch: int = 0) -> int:
    """A seed for torch's generators, well mixed, so that neighbouring steps and seeds share nothing."""
    stream = f"{seed}/{step}/{micro_batch}" if micro_batch else f"{seed}/{step}"
    digest = hashlib.blake2b(stream.encode(), digest_size=7).digest()
    return int.from_bytes(digest, "big")
