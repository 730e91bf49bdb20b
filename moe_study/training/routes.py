"""What the experts do with a fixed probe while a run is trained (log.trace_every): kept at step 0, at each due step and
at the end (runs/routes.py).

The probe is a slice of the run's own validation set. Labelled probes (data/probes/) say more, and need texts and
tokenizers that a training node without a network does not have; this one is there in every run, is labelled by language
and topic, and is read as evaluation reads it: the same windows at every step and seed.

Nothing of it reaches the training: the model is in evaluation mode, where it draws no random numbers.

Shape suffixes: T tokens of the probe, D documents (windows), B windows of L tokens.
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from moe_study.data.sampler import Batch, labels_of, validation_batches
from moe_study.design.config import RunConfig
from moe_study.design.routing import mixture_layers
from moe_study.model.loss import IGNORED
from moe_study.model.transformer import Transformer
from moe_study.runs.folder import RunFolder
from moe_study.runs.growing_arrays import Array
from moe_study.runs.routes import drop_routes, write_routes
from moe_study.runs.traces import Labels
from moe_study.training.device import autocast
from moe_study.training.trace_part import TracePart


@dataclass(frozen=True)
class ValidationSlice:
    """The probe: windows of the validation set, evenly spread over it, each of which counts as a document."""

    batches: tuple[Batch, ...]
    token_T: Array
    start_D1: Array
    labels: Labels  # language and topic, by document

    @classmethod
    def of(cls, config: RunConfig, corpus: Any) -> "ValidationSlice":
        context, tokens = config.model.context, config.log.trace_tokens
        batches = tuple(validation_batches(corpus.validation, context, config.run.eval_batch, tokens))
        inputs_DL = np.concatenate([batch.inputs_BT for batch in batches])
        labels: Labels = {
            "language": (np.concatenate([batch.language_B for batch in batches]), tuple(corpus.languages)),
            "topic": (np.concatenate([batch.topic_B for batch in batches]), tuple(corpus.topics)),
        }
        return cls(batches, inputs_DL.flatten(), np.arange(len(inputs_DL) + 1) * context, labels)

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over its tokens and labels."""
        digest = hashlib.sha256()
        for part in (self.token_T, self.start_D1, *(codes_D for codes_D, _ in self.labels.values())):
            digest.update(np.ascontiguousarray(part, "<i8").tobytes())
        digest.update(repr([values for _, values in self.labels.values()]).encode())
        return digest.hexdigest()


class RoutesOverTraining:
    """Keeps the routes of one run's probe, where log.trace_every asks for them and the run has experts."""

    def __init__(
        self, config: RunConfig, corpus: Any, folder: RunFolder, device: torch.device, records: bool = True
    ) -> None:
        """`records`: false for ranks beside the first, which keeps them for all."""
        self.config, self.folder, self.device, self.records = config, folder, device, records
        asked = records and config.log.trace_every is not None
        has_experts = bool(mixture_layers(config.routing, config.model.layers))
        self.probe = ValidationSlice.of(config, corpus) if asked and has_experts else None

    def begin(self, step: int) -> None:
        """Training starts, or resumes after `step` steps; what was kept of later ones, or on another probe, goes."""
        if self.records:
            drop_routes(self.folder.routes_folder, step, None if self.probe is None else self.probe.fingerprint)

    def due(self, step: int) -> bool:
        """Whether routes are kept after `step` steps."""
        every = self.config.log.trace_every
        return self.probe is not None and every is not None and (step % every == 0 or step == self.config.total_steps)

    def keep_if_due(self, model: Transformer, step: int) -> None:
        """Keep what `model` does with the probe now, after `step` steps, if it is asked for. Waits for the device."""
        if self.probe is None or not self.due(step):
            return
        part = TracePart(0, len(self.probe.token_T))
        index_DL = np.arange(len(self.probe.token_T)).reshape(-1, self.config.model.context)
        was_training = model.training
        model.eval()
        first = 0
        for batch in self.probe.batches:
            index_BL = index_DL[first : (first := first + len(batch.inputs_BT))]
            self._read(model, batch, index_BL, part)
        model.train(was_training)
        trained = step * self.config.tokens_per_step
        place = self.folder.routes_folder
        with write_routes(place, self.folder.key, self.probe.fingerprint, step, trained) as writer:
            writer.facts = {
                "window": self.config.model.context,
                "precision": self.config.run.precision,
                "device": self.device.type,
            }
            writer.add_probe(self.probe.token_T, self.probe.start_D1, self.probe.labels, {})
            part.write(writer)

    def _read(self, model: Transformer, batch: Batch, index_BL: Array, part: TracePart) -> None:
        inputs_BL, targets_BL, label_B = (
            torch.from_numpy(np.ascontiguousarray(values)).to(self.device)
            for values in (batch.inputs_BT, batch.targets_BT, labels_of(batch, self.config.routing.label))
        )
        with torch.inference_mode(), autocast(self.device, self.config.run.precision):
            # Not through __call__: in a compiled run that would compile a second form of the pass for this alone.
            output = model.forward(inputs_BL, targets_BL, label_B=label_B, routes=True, per_token=True)
        known_BL = batch.targets_BT.copy()
        known_BL[:, -1] = IGNORED  # its token is not of the probe
        assert isinstance(output.token_loss_BT, Tensor)
        part.add(index_BL, known_BL, output.token_loss_BT, output.stats)
