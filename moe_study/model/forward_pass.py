"""What travels beside the hidden states through one forward pass, and what the layers leave behind.

An object for each pass, so nothing outlives it: no module-level lists, no state shared between micro-batches.

Shape suffixes: B sequences, T positions, N tokens (= B * T), E experts, K candidates by rank.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from moe_study.model.cache import Cache
from moe_study.model.moe.routing.intervention import Intervention


@dataclass
class TokenRoutes:
    """Where one decision sends each token; detached, on the device. A token has up to K picks."""

    expert_NK: Tensor  # int64
    weight_NK: Tensor  # gate weights, before any capacity
    picked_NK: Tensor | None  # which candidates were picked; None: all
    kept_NK: Tensor | None  # which picks a capacity has left; None: there is none
    entropy_N: Tensor  # of the router's probabilities, nats; nan where there are none
    margin_N: Tensor  # smallest probability picked less the largest left out; nan where there is no such pair


@dataclass
class RoutingStats:
    """What one mixture layer did in one forward pass; all detached, on the device, not synchronised."""

    layer: int  # block index from 0
    kept_E: Tensor  # (token, expert) pairs that were executed and used, int64
    kept_BE: Tensor | None  # the same by sequence; only when details were asked for
    weight_BE: Tensor | None  # sums of gate weights by sequence; likewise
    wanted: Tensor  # pairs selected before any capacity limit
    executed: Tensor  # expert rows that were computed, padding included
    entropy: Tensor  # mean entropy of the router's distribution, nats; nan where there is none
    tokens: int  # B * T
    routes: TokenRoutes | None = None  # where asked for; with scope=global one object that all layers share
    positive: Tensor | None = None  # share of positive hidden units summed over expert rows; in detailed passes only


class Counts(NamedTuple):
    """What is counted in one forward pass and, with it, on other ranks at the same time."""

    micro_batch_E: Tensor  # over the micro-batch of this pass
    running_E: Tensor  # and the micro-batches that come before it among those at hand
    all_E: Tensor  # over all micro-batches at hand


class Reducer:
    """Sums over the processes that train one model (ranks); this one is for a single process and changes nothing.

    Layers know no more of ranks than this. training/distributed.py has the other one.
    """

    def counts(self, counts_E: Tensor) -> Counts:
        """Sums of what each rank has counted in the present pass."""
        return Counts(counts_E, counts_E, counts_E)

    def mean(self, value: Tensor) -> Tensor:
        """The mean over ranks of a value that each has."""
        return value


ONE_PROCESS = Reducer()


@dataclass
class ForwardPass:
    """Inputs that layers may read, and the records they append to."""

    tokens_BT: Tensor
    label_B: Tensor | None = None  # index of each sequence's label, for context=label
    detail: bool = False  # collect per-sequence counts (evaluation)
    routes: bool = False  # collect every token's routes (traces)
    dispatch: str = "auto"  # which implementation runs the experts (run.dispatch): auto | fused | grouped | triton
    interventions: Mapping[int, Intervention] = field(default_factory=dict)  # by the layer that decides; causal tests
    # In training on several ranks another. Made, not shared: torch 2.11 compiles no default that is an object.
    reducer: Reducer = field(default_factory=Reducer)
    cache: Cache | None = None  # where a text is gone on with: `tokens_BT` are the new ones
    shared_decision: Any = None  # scope=global: set by the first mixture layer, followed by the others
    aux: dict[str, list[Tensor]] = field(default_factory=dict)  # unweighted balancing terms by name
    aux_loss: list[Tensor] = field(default_factory=list)  # weighted: what is added to the loss
    picked: list[Tensor] = field(default_factory=list)  # selection=positive: mean picks a decision, layer by layer
    stats: list[RoutingStats] = field(default_factory=list)

    def add_aux(self, name: str, value: Tensor, weight: float | Tensor) -> None:
        """Record a balancing term; it enters the loss as weight * value."""
        self.aux.setdefault(name, []).append(value)
        self.aux_loss.append(weight * value)

    def total_aux_loss(self) -> Tensor:
        """Weighted sum over layers; a zero on the right device when there is none."""
        if not self.aux_loss:
            return torch.zeros((), device=self.tokens_BT.device)
        return torch.stack(self.aux_loss).sum()
