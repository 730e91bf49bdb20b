"""Loss and routing over the fixed validation set.

The loss is the language model's alone, summed in float64 over every target of the set, so that exp of its
mean is a perplexity whatever the batch size. No dropout, no router noise, no gradient; the generators of
training are left as they are.

Shape suffixes: B sequences, T positions, V vocabulary, E experts, G domains (language and topic pairs).
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from moe_study.data.sampler import labels_of
from moe_study.errors import DataError
from moe_study.model.forward_pass import RoutingStats
from moe_study.runs.activations import COLUMNS as ROUTING_COLUMNS
from moe_study.training.device import autocast
from moe_study.training.distributed import ALONE, Ranks
from moe_study.training.routing_sums import RoutingSums


@dataclass
class Evaluation:
    """Results over one validation set."""

    loss: float  # nats per token
    tokens: int
    bits_per_byte: float | None  # all nats (those of end-of-text too) over the bytes of the text, in bits
    by_language: dict[str, dict[str, float]]  # name -> loss, tokens
    by_topic: dict[str, dict[str, float]]
    routing: pd.DataFrame  # ROUTING_COLUMNS, a row for each layer, expert and domain; empty without detail
    accuracy: float | None = None  # share of targets that were the most probable; only for images
    rows_per_token: dict[str, dict[str, float]] = field(default_factory=dict)  # wanted_per_token, ... -> layer ->
    positive_share: dict[str, float] = field(default_factory=dict)  # layer -> share of positive hidden units

    @property
    def perplexity(self) -> float:
        """exp of the loss; infinite where that is more than a float64 holds."""
        return math.exp(self.loss) if self.loss < 700 else math.inf


def evaluate(
    model: nn.Module,
    batches: Iterable[Any],
    corpus: Any,
    device: torch.device,
    *,
    precision: str = "fp32",
    label: str = "language",
    detail: bool = False,
    ranks: Ranks = ALONE,
) -> Evaluation:
    """Evaluate `model` on `batches` of `corpus`; `detail` also counts routing by domain. Waits for the device.

    Several ranks call it together: each evaluates every so many batches, and all get the sums of all.

    `label` says which of a sequence's two labels the router is given. The loss of a model that diverged is nan
    or infinite. DataError where `batches` is empty.
    """
    sums = _Sums(corpus, device)
    states = torch.get_rng_state()
    was_training = model.training
    model.eval()
    with torch.inference_mode():
        for batch in islice(batches, ranks.rank, None, ranks.size):
            inputs_BT = torch.from_numpy(batch.inputs_BT).to(device)
            targets_BT = torch.from_numpy(batch.targets_BT).to(device)
            label_B = torch.from_numpy(labels_of(batch, label)).to(device)
            with autocast(device, precision):
                output = model(inputs_BT, targets_BT, label_B=label_B, detail=detail, per_token=True)
            domain_B = torch.from_numpy(batch.language_B * len(corpus.topics) + batch.topic_B).to(device)
            sums.add(output.token_loss_BT, targets_BT, domain_B)
            if output.correct_BT is not None:
                sums.add_correct(output.correct_BT, targets_BT)
            if detail:
                sums.add_routing(output.stats, domain_B)
    model.train(was_training)
    assert torch.equal(states, torch.get_rng_state()), "evaluation drew random numbers"
    sums.collect(ranks)
    return sums.result()


class _Sums:
    """Sums by domain, kept on the device until `result`."""

    def __init__(self, corpus: Any, device: torch.device):
        self.languages, self.topics = list(corpus.languages), list(corpus.topics)
        self.domains = len(self.languages) * len(self.topics)
        self.bytes_V = torch.from_numpy(np.asarray(corpus.token_bytes_V, dtype=np.int64)).to(device)
        self.nats_G = torch.zeros(self.domains, dtype=torch.float64, device=device)
        self.tokens_G = torch.zeros(self.domains, dtype=torch.int64, device=device)
        self.bytes = torch.zeros((), dtype=torch.int64, device=device)
        self.correct: Tensor | None = None
        self.routing = RoutingSums()

    def add(self, token_loss_BT: Tensor, targets_BT: Tensor, domain_B: Tensor) -> None:
        valid_BT = targets_BT >= 0
        nats_B = torch.where(valid_BT, token_loss_BT, 0.0).double().sum(1)
        self.nats_G.index_add_(0, domain_B, nats_B)
        self.tokens_G.index_add_(0, domain_B, valid_BT.sum(1))
        self.bytes += torch.where(valid_BT, self.bytes_V[targets_BT.clamp(min=0)], 0).sum()

    def add_correct(self, correct_BT: Tensor, targets_BT: Tensor) -> None:
        count = (correct_BT & (targets_BT >= 0)).sum()
        self.correct = count if self.correct is None else self.correct + count

    def add_routing(self, stats: list[RoutingStats], domain_B: Tensor) -> None:
        for layer in stats:
            assert layer.kept_BE is not None and layer.weight_BE is not None  # asked for with detail=True
            more = {
                "count_GE": self._by_domain(layer.kept_BE.long(), domain_B),
                "weight_GE": self._by_domain(layer.weight_BE.double(), domain_B),
            }
            self.routing.add(layer, more if layer.positive is None else {**more, "positive": layer.positive})

    def _by_domain(self, values_BE: Tensor, domain_B: Tensor) -> Tensor:
        """Sums over the sequences of each domain, (G, E)."""
        return values_BE.new_zeros(self.domains, values_BE.shape[1]).index_add_(0, domain_B, values_BE)

    def collect(self, ranks: Ranks) -> None:
        """Add up what all ranks have summed; each has it then, on the CPU."""
        if ranks.size == 1:
            return
        cpu = torch.device("cpu")
        correct = None if self.correct is None else self.correct.cpu()
        mine = (self.nats_G.cpu(), self.tokens_G.cpu(), self.bytes.cpu(), correct, self.routing.on(cpu))
        nats_G, tokens_G, text_bytes, corrects, routings = zip(*ranks.gathered(mine), strict=True)
        self.nats_G, self.tokens_G = torch.stack(nats_G).sum(0), torch.stack(tokens_G).sum(0)
        self.bytes = torch.stack(text_bytes).sum()
        known = [correct for correct in corrects if correct is not None]  # a rank may have had no batch
        self.correct = torch.stack(known).sum() if known else None
        self.routing = RoutingSums()
        for routing in routings:
            self.routing.merge(routing)

    def result(self) -> Evaluation:
        nats = self.nats_G.cpu().numpy().reshape(len(self.languages), len(self.topics))
        tokens = self.tokens_G.cpu().numpy().reshape(nats.shape)
        if tokens.sum() == 0:
            raise DataError(
                "the validation set is empty: raise run.eval_tokens or data.validation_fraction, or shorten"
                " model.context"
            )
        return Evaluation(
            loss=float(nats.sum() / tokens.sum()),
            tokens=int(tokens.sum()),
            bits_per_byte=float(nats.sum() / math.log(2) / int(self.bytes)) if self.bytes else None,
            accuracy=None if self.correct is None else int(self.correct) / int(tokens.sum()),
            by_language=_by_name(self.languages, nats.sum(1), tokens.sum(1)),
            by_topic=_by_name(self.topics, nats.sum(0), tokens.sum(0)),
            routing=self._routing_frame(tokens),
            positive_share={
                str(layer): float(sums["positive"] / sums["executed"])
                for layer, sums in self.routing
                if "positive" in sums and sums["executed"] > 0
            },
            rows_per_token=self._rows_per_token(),
        )

    def _rows_per_token(self) -> dict[str, dict[str, float]]:
        """wanted_per_token, kept_per_token and executed_per_token by layer."""
        by_layer = {str(layer): self.routing.per_token(layer) for layer, _ in self.routing}
        names = ("wanted_per_token", "kept_per_token", "executed_per_token")
        return {name: {layer: rows[name] for layer, rows in by_layer.items()} for name in names}

    def _routing_frame(self, tokens: np.ndarray) -> pd.DataFrame:
        rows = []
        for layer, sums in self.routing:
            shape = (*tokens.shape, -1)
            count, weight = (sums[name].cpu().numpy().reshape(shape) for name in ("count_GE", "weight_GE"))
            for i, j in np.argwhere(tokens > 0):
                for expert in range(count.shape[2]):
                    domain = (self.languages[i], self.topics[j])
                    values = (int(count[i, j, expert]), float(weight[i, j, expert]), int(tokens[i, j]))
                    rows.append((layer, expert, *domain, *values))
        frame = pd.DataFrame(rows, columns=list(ROUTING_COLUMNS))
        integers = ("layer", "expert", "count", "tokens")
        kinds: dict[str, Any] = dict.fromkeys(integers, "int64") | {"weight": "float64"}
        return frame.astype(kinds | {"language": "str", "topic": "str"})


def _by_name(names: list[str], nats: np.ndarray, tokens: np.ndarray) -> dict[str, dict[str, float]]:
    return {
        name: {"loss": float(nats[i] / tokens[i]), "tokens": int(tokens[i])}
        for i, name in enumerate(names)
        if tokens[i] > 0
    }
