"""Making a trace: a trained model reads a probe, and what it decides for every token is kept (runs/traces.py).

    trace = trace_run(folder, probe_of(folder, "wiki_topics"))

The model sees one window at a time: at most `model.context` tokens of ONE document, the next window starting where
the last one ended. So documents never see one another, whatever the routing, every position of every document is
used once, and nothing is padded: windows of one length are batched together. Sequence, segment and prefix routing and
expert choice by sequence decide within such a window, as in training within theirs. What chooses across a batch
(expert choice by batch or position, a capacity by batch, slots across sequences, a shuffle) sees other documents of
the same length.

The loss of a token is that of predicting it, given what stands before it in the window of the token before. The first
token of a document has none.

Shape suffixes: T tokens of the probe, N tokens of one part, K candidates, P picks, B windows of L tokens.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from moe_study.data import load_run_tokenizer, open_corpus, places
from moe_study.data.locks import locked
from moe_study.data.probes import DEFAULT_PROBE, DEFAULT_TOKENS, Probe, prepare_probe
from moe_study.data.probes.base import Array
from moe_study.data.probes.overlap import Overlap, kept_overlap
from moe_study.data.shards import PreparedCorpus
from moe_study.design.config import RunConfig
from moe_study.design.routing import Context
from moe_study.errors import DataError, StudyError
from moe_study.model.forward_pass import RoutingStats
from moe_study.model.loss import IGNORED
from moe_study.model.moe.routing.intervention import Intervention
from moe_study.model.transformer import Transformer
from moe_study.runs.folder import RunFolder
from moe_study.runs.traces import Trace, TraceIdentity, TraceWriter, find_trace, write_trace
from moe_study.training import checkpoint
from moe_study.training.device import autocast, configure
from moe_study.training.models import load_model
from moe_study.training.trace_part import TracePart

PART_TOKENS = 1 << 20  # traced before anything is written: enough documents that windows of one length fill a batch


def probe_of(
    folder: RunFolder,
    name: str = DEFAULT_PROBE,
    *,
    data_root: Path | None = None,
    path: Path | None = None,
    tokens: int | None = DEFAULT_TOKENS,
    progress: bool = True,
) -> Probe:
    """A probe in the run's own tokenizer; `data_root` is the run's own, unless another is named."""
    config = folder.read_config()
    needs_text(folder, config)
    root = data_root if data_root is not None else places.data_root(config.data)
    return prepare_probe(name, load_run_tokenizer(folder), root, path=path, tokens=tokens, progress=progress)


def identity_of(folder: RunFolder, probe: Probe) -> TraceIdentity:
    """What a trace of `probe` by the run as it is now is known by."""
    weights = checkpoint.fingerprint_of_newest(folder.checkpoint_folder)
    return TraceIdentity(folder.key, weights, probe.name, probe.fingerprint)


def trace_run(folder: RunFolder, probe: Probe, *, progress: bool = True) -> Trace:
    """The trace of a run over a probe, made unless it is there.

    StudyError for a run without a model or text, DataError where a router by label does not know a label of the probe.
    """
    identity = identity_of(folder, probe)
    if trace := find_trace(folder.traces_folder, identity):
        return trace
    with locked(folder.traces_folder / ".lock"):
        if trace := find_trace(folder.traces_folder, identity):  # another process made it meanwhile
            return trace
        tracer = Tracer.of(folder)
        label_D, shared = tracer.labels_of(folder, probe), _overlap(folder, probe)
        what = f"{folder.key} reads {probe.name}"
        bar: tqdm[Any] = tqdm(total=len(probe.token_T), unit="tok", desc=what, disable=not progress)
        with bar, write_trace(folder.traces_folder, identity) as writer:
            tracer.write(writer, probe, label_D, shared, bar)
    trace = find_trace(folder.traces_folder, identity)
    assert trace is not None
    return trace


@dataclasses.dataclass(frozen=True)
class Tracer:
    """A trained model and what it is run with."""

    model: Transformer
    config: RunConfig
    device: torch.device

    @classmethod
    def of(cls, folder: RunFolder) -> "Tracer":
        """The run's model on a GPU if there is one, else on the CPU in float32, whatever it was trained on."""
        config = folder.read_config()
        needs_text(folder, config)
        precision = config.run.precision if torch.cuda.is_available() else "fp32"
        settings = dataclasses.replace(config.run, device="auto", precision=precision, dispatch="auto")
        config = dataclasses.replace(config, run=settings, log=dataclasses.replace(config.log, threads=None))
        model, device = load_model(folder), configure(config, trains=False)
        return cls(model.to(device).eval(), config, device)

    @property
    def by_label(self) -> bool:
        """Whether the router is told each document's label."""
        return self.config.routing.context is Context.LABEL

    def labels_of(self, folder: RunFolder, probe: Probe) -> Array:
        """What a router by label is told of each document: its label's number in training (D,); 0 for other routers."""
        label_D = np.zeros(probe.documents, np.int64)
        if not self.by_label:
            return label_D
        kind = self.config.routing.label
        if kind not in probe.document_labels:
            raise DataError(f"{folder.path} is routed by {kind}, and the probe {probe.name} has no such label")
        known = trained_labels(folder, self.config)
        codes_D, values = probe.document_labels[kind]
        if (codes_D < 0).any():
            raise DataError(f"{folder.path} is routed by {kind}, and documents of the probe {probe.name} have none")
        if unknown := sorted({values[code] for code in np.unique(codes_D)} - set(known)):
            raise DataError(
                f"{folder.path} is routed by {kind} and was trained on {', '.join(known)}: it has no expert for"
                f" {', '.join(unknown)}; take a probe of what it knows"
            )
        number = np.array([known.index(value) if value in known else -1 for value in values], np.int64)
        return number[codes_D]

    def write(
        self, writer: TraceWriter, probe: Probe, label_D: Array, shared: Overlap | None, bar: "tqdm[Any]"
    ) -> None:
        """Trace all of `probe`, some documents at a time."""
        writer.facts = {
            "window": self.config.model.context,
            "precision": self.config.run.precision,
            "device": self.device.type,
            "overlap": None if shared is None else dataclasses.asdict(shared),
        }
        writer.add_probe(probe.token_T, probe.start_D1, probe.document_labels, probe.token_labels)
        for first, last in _parts(probe.start_D1):
            part = TracePart(probe.start_D1[first], probe.start_D1[last])
            for index_BL, target_BL, document_B in self.batches(probe, first, last):
                token_BL = torch.from_numpy(probe.token_T[index_BL].astype(np.int64))
                stats, loss_BL = self.read(token_BL, torch.from_numpy(target_BL), torch.from_numpy(label_D[document_B]))
                part.add(index_BL, target_BL, loss_BL, stats)
                bar.update(index_BL.size)
            part.write(writer)

    def read(
        self,
        token_BL: Tensor,
        target_BL: Tensor,
        label_B: Tensor,
        interventions: Mapping[int, Intervention] | None = None,
    ) -> tuple[list[RoutingStats], Tensor]:
        """One forward pass: each mixture layer's record with its routes, and every target's loss (B, L).

        `interventions` change what the layers of these numbers decide (posthoc/knockout/).
        """
        with torch.inference_mode(), autocast(self.device, self.config.run.precision):
            output = self.model(
                token_BL.to(self.device),
                target_BL.to(self.device),
                label_B=label_B.to(self.device),
                routes=True,
                per_token=True,
                interventions=interventions,
            )
        return output.stats, output.token_loss_BT

    def batches(self, probe: Probe, first: int = 0, last: int | None = None) -> Iterator[tuple[Array, Array, Array]]:
        """Windows of documents first : last of equal length: indices of tokens, targets (B, L) and documents (B,)."""
        last = probe.documents if last is None else last
        context = self.config.model.context
        start_W, length_W, document_W = windows(probe.start_D1[first : last + 1], context)
        for length in np.unique(length_W):
            (same,) = np.nonzero(length_W == length)
            size = max(1, self.config.run.eval_batch * context // int(length))
            for begin in range(0, len(same), size):
                chosen = same[begin : begin + size]
                document_B = document_W[chosen] + first
                index_BL = start_W[chosen, None] + np.arange(length)
                target_BL = probe.token_T[np.minimum(index_BL + 1, len(probe.token_T) - 1)].astype(np.int64)
                target_BL[index_BL + 1 == probe.start_D1[document_B + 1, None]] = IGNORED
                yield index_BL, target_BL, document_B


def needs_text(folder: RunFolder, config: RunConfig) -> None:
    """StudyError for a run on images."""
    if config.task != "language":
        raise StudyError(f"{folder.path} was trained on images; what experts attend to is asked of runs on text")


def windows(start_D1: Array, context: int) -> tuple[Array, Array, Array]:
    """Start, length and document of consecutive windows of at most `context` tokens of one document each."""
    lengths_D = np.diff(start_D1)
    count_D = -(-lengths_D // context)
    document_W = np.repeat(np.arange(len(lengths_D)), count_D)
    within_W = np.arange(len(document_W)) - np.repeat(np.cumsum(count_D) - count_D, count_D)
    start_W = start_D1[document_W] + within_W * context
    return start_W, np.minimum(context, start_D1[document_W + 1] - start_W), document_W


def training_corpus(folder: RunFolder) -> PreparedCorpus | None:
    """What the run was trained on, if it is still there."""
    try:
        corpus = open_corpus(folder.read_config().data)
    except StudyError:
        return None
    same = corpus.fingerprint == (folder.provenance() or {}).get("data_fingerprint")
    return corpus if same else None


def own_text(folder: RunFolder, name: str) -> tuple[PreparedCorpus, TraceIdentity]:
    """What a run was trained on, and what is known of its validation text, as a probe of that `name`, is known by.

    StudyError for a run on images or without a checkpoint, or whose text is not here.
    """
    needs_text(folder, folder.read_config())
    if (corpus := training_corpus(folder)) is None:
        raise StudyError(f"the text that {folder.path} was trained on is not here; moe-study prepare makes it again")
    weights = checkpoint.fingerprint_of_newest(folder.checkpoint_folder)
    return corpus, TraceIdentity(folder.key, weights, name, corpus.fingerprint)


def _overlap(folder: RunFolder, probe: Probe) -> Overlap | None:
    corpus = training_corpus(folder)
    return None if corpus is None else kept_overlap(probe, corpus, places.data_root(folder.read_config().data))


def trained_labels(folder: RunFolder, config: RunConfig) -> list[str]:
    """The languages (or topics) that a run was trained on, in the order of their numbers."""
    if corpus := training_corpus(folder):
        return corpus.languages if config.routing.label == "language" else corpus.topics
    # A folder that was copied elsewhere: its result names what was validated on, in the same order.
    return list((folder.result() or {}).get(f"by_{config.routing.label}", {}))


def _parts(start_D1: Array) -> Iterator[tuple[int, int]]:
    """Consecutive documents of about PART_TOKENS tokens each: first and one past the last."""
    first, documents = 0, len(start_D1) - 1
    while first < documents:
        last = int(np.searchsorted(start_D1, start_D1[first] + PART_TOKENS, side="left"))
        last = min(max(last, first + 1), documents)
        yield first, last
        first = last
