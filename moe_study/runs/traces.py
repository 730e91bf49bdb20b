"""Traces: what the experts of a trained run did with every token of a probe; RUN/traces/PROBE-FINGERPRINT/.

    manifest.json      identity (run, weights, probe), names of labels, the layers, dtype and length of every file
    token.bin          token ids; documents one after another, without end-of-text tokens
    start.bin          where each document starts, and the end (D + 1)
    loss.bin           nats, of predicting this token; not a number at the start of a document
    label-document-0.bin, label-token-0.bin, ...     codes of labels, -1 where there is none
    layer03-expert.bin, -weight.bin, -kept.bin, -count.bin, -entropy.bin, -margin.bin

Files are plain arrays (little-endian), memory-mapped when read. What says nothing is not stored: experts where every
token has a weight on each, counts where all tokens have as many picks, kept picks where there is no capacity, values
that are never a number. With scope=global layers share the files of the one that decides.

A trace is written into a folder beside and renamed: a killed one leaves nothing that counts, and what it left is
deleted by the next.

Shape suffixes: T tokens, D documents, N tokens of one part, P picks (token, expert), E experts.
"""

import contextlib
import math
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from moe_study.errors import DataError, StudyError
from moe_study.files import TEMPORARY_MARK, clear_os_errors, make_folder, read_json, write_json_atomic
from moe_study.runs.growing_arrays import Array, FileArray, GrowingArray

FORMAT = 1  # goes up when older traces cannot be read any more
MANIFEST = "manifest.json"
FINGERPRINT_DIGITS = 16  # of the probe's, in a folder's name

Labels = dict[str, tuple[Array, tuple[str, ...]]]  # name -> (codes, what the codes stand for); -1 is "no label"


@dataclass(frozen=True)
class TraceIdentity:
    """What a trace was made from; a trace of anything else is not reused."""

    run: str  # key
    weights: str | None  # fingerprint of the checkpoint; None: whichever, where the checkpoint is gone
    probe: str
    probe_fingerprint: str

    def folder_in(self, traces: Path) -> Path:
        return traces / f"{self.probe}-{self.probe_fingerprint[:FINGERPRINT_DIGITS]}"


@dataclass
class RoutesPart:
    """One layer's routes of N tokens in order."""

    count_N: Array  # picks of each token
    expert_P: Array
    weight_P: Array
    kept_P: Array | None  # None where nothing limits
    entropy_N: Array
    margin_N: Array


class Trace:
    """A trace on disk, read when asked for."""

    def __init__(self, folder: Path, manifest: dict[str, Any]) -> None:
        self.folder, self.manifest = folder, manifest
        self.layers: list[int] = [entry["layer"] for entry in manifest["layers"]]  # mixture layers; none where dense
        self.overlap: dict[str, Any] | None = manifest.get("overlap")  # with training text; None: it was not there
        self.window: int = manifest["window"]  # tokens of a document that the model saw at once, at most

    def read(self, name: str) -> Array:
        """A file as a read-only memory map."""
        dtype, length = self.manifest["files"][name]
        if length == 0:
            return np.empty(0, dtype)
        return np.memmap(self.folder / f"{name}.bin", dtype, "r", shape=(length,))

    @cached_property
    def token_T(self) -> Array:
        return self.read("token")

    @cached_property
    def start_D1(self) -> Array:
        return self.read("start")

    @cached_property
    def loss_T(self) -> Array:
        return self.read("loss")

    @cached_property
    def document_T(self) -> Array:
        """Number of each token's document."""
        return np.repeat(np.arange(len(self.start_D1) - 1, dtype=np.int32), np.diff(self.start_D1))

    @cached_property
    def position_T(self) -> Array:
        """Place of each token in its document, from 0."""
        return (np.arange(len(self.token_T)) - self.start_D1[self.document_T]).astype(np.int32)

    @cached_property
    def document_labels(self) -> Labels:
        """By document."""
        return self._labels("document")

    @cached_property
    def token_labels(self) -> Labels:
        """By token."""
        return self._labels("token")

    def _labels(self, kind: str) -> Labels:
        named = self.manifest[f"{kind}_labels"]
        return {name: (self.read(f"label-{kind}-{n}"), tuple(values)) for n, (name, values) in enumerate(named)}

    def layer(self, layer: int) -> dict[str, Any]:
        """The arrays of one mixture layer by name, ready for analysis.specialisation's LayerTrace(**...).

        token_T, document_T, position_T, start_T1 (the picks of token t are start_T1[t] : start_T1[t + 1]), expert_P,
        weight_P, kept_P, experts, entropy_T, margin_T, document_labels, token_labels. DataError for a layer without
        experts.
        """
        entry = next((entry for entry in self.manifest["layers"] if entry["layer"] == layer), None)
        if entry is None:
            known = ", ".join(map(str, self.layers)) or "none"
            run = self.manifest["identity"]["run"]
            raise DataError(f"layer {layer} of {run} has no experts; these layers have: {known}")
        tokens, experts = len(self.token_T), entry["experts"]

        def stored(part: str) -> Array | None:
            name = f"layer{entry['files_of']:02d}-{part}"
            return self.read(name) if name in self.manifest["files"] else None

        weight_P, count_T, kept_P = stored("weight"), stored("count"), stored("kept")
        assert weight_P is not None
        if count_T is None:
            start_T1 = np.arange(tokens + 1) * (len(weight_P) // tokens if tokens else 0)
        else:
            start_T1 = np.concatenate([[0], np.cumsum(count_T, dtype=np.int64)])
        expert_P = stored("expert")
        nan_T = np.broadcast_to(np.float16(math.nan), tokens)
        entropy_T, margin_T = stored("entropy"), stored("margin")
        return {
            "token_T": self.token_T,
            "document_T": self.document_T,
            "position_T": self.position_T,
            "start_T1": start_T1,
            "expert_P": np.tile(np.arange(experts, dtype=_smallest(experts)), tokens) if expert_P is None else expert_P,
            "weight_P": weight_P,
            "kept_P": np.broadcast_to(True, len(weight_P)) if kept_P is None else kept_P,
            "experts": experts,
            "entropy_T": nan_T if entropy_T is None else entropy_T,
            "margin_T": nan_T if margin_T is None else margin_T,
            "document_labels": self.document_labels,
            "token_labels": self.token_labels,
        }


def find_trace(traces: Path, identity: TraceIdentity) -> Trace | None:
    """The whole trace of that identity; None where there is none, or one of other weights, or a damaged one."""
    trace = _whole(identity.folder_in(traces))
    if trace is None:
        return None
    found, wanted = trace.manifest["identity"], vars(identity)
    same = all(found.get(name) == value for name, value in wanted.items() if value is not None)
    return trace if same else None


def all_traces(traces: Path) -> Iterator[Trace]:
    """The whole traces in a run's folder, by name of the probe; damaged ones are passed over: they can be remade."""
    for manifest in sorted(traces.glob(f"*/{MANIFEST}")):
        if (trace := _whole(manifest.parent)) is not None:
            yield trace


def _whole(folder: Path) -> Trace | None:
    """The trace in `folder`; None where there is none, or a file of it is missing, cut short or of something else."""
    try:
        manifest = read_json(folder / MANIFEST)
        if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
            return None
        for name, (dtype, length) in manifest["files"].items():
            path = folder / f"{name}.bin"
            if not path.is_file() or path.stat().st_size != length * np.dtype(dtype).itemsize:
                return None
        trace = Trace(folder, manifest)
        return trace if fits_together(trace) else None
    except (StudyError, OSError, KeyError, TypeError, ValueError, AttributeError):  # what a damaged manifest gives
        return None


def fits_together(trace: Trace) -> bool:
    """Whether the arrays are as long as one another, and numbers of documents, experts and labels are ones there are.

    A few milliseconds for each million of tokens; a file that was written over in part is found so.
    """
    TraceIdentity(**trace.manifest["identity"])
    tokens, start_D1 = len(trace.token_T), trace.start_D1
    if len(trace.loss_T) != tokens or start_D1[0] != 0 or start_D1[-1] != tokens or (np.diff(start_D1) < 0).any():
        return False
    for labels, length in ((trace.document_labels, len(start_D1) - 1), (trace.token_labels, tokens)):
        for codes, values in labels.values():
            if len(codes) != length or not _within(codes, -1, len(values)):
                return False
    for number in trace.layers:
        layer = trace.layer(number)
        picks = int(layer["start_T1"][-1])
        lengths = (len(layer["expert_P"]), len(layer["weight_P"]), len(layer["kept_P"]))
        if any(length != picks for length in lengths) or not _within(layer["expert_P"], 0, layer["experts"]):
            return False
        if len(layer["start_T1"]) != tokens + 1 or len(layer["entropy_T"]) != tokens:
            return False
    return True


def _within(numbers: Array, low: int, below: int) -> bool:
    return not len(numbers) or (low <= int(numbers.min()) and int(numbers.max()) < below)


@contextlib.contextmanager
def write_trace(traces: Path, identity: TraceIdentity) -> Iterator["TraceWriter"]:
    """Write a trace, which takes its place when the block ends without an error; one of the same name goes.

    The caller sees to it that no other process writes to `traces` (posthoc/trace.py holds a lock).
    """
    target = identity.folder_in(traces)
    make_folder(traces, DataError)
    with clear_os_errors(target, DataError):
        for leftover in traces.glob(f".*{TEMPORARY_MARK}*"):
            shutil.rmtree(leftover, ignore_errors=True)
        beside = traces / f".{target.name}{TEMPORARY_MARK}{os.getpid()}"
        beside.mkdir()
        writer = TraceWriter(identity, lambda name, dtype: FileArray(beside / f"{name}.bin", dtype))
        try:
            yield writer
            write_json_atomic(beside / MANIFEST, writer.finish())
            if target.exists():
                shutil.rmtree(target)
            os.replace(beside, target)
        finally:
            writer.close()
            shutil.rmtree(beside, ignore_errors=True)


@dataclass
class TraceWriter:
    """Appends parts of a trace in the order of its tokens."""

    identity: TraceIdentity
    new_array: Callable[[str, np.dtype[Any]], GrowingArray]  # where a file's values go, by its name
    facts: dict[str, Any] = field(default_factory=dict)  # more of the manifest: window, ...
    layers: dict[int, dict[str, Any]] = field(default_factory=dict)
    files: dict[str, GrowingArray] = field(default_factory=dict)
    labels: dict[str, list[tuple[str, Sequence[str]]]] = field(default_factory=dict)

    def add_probe(self, token_T: Array, start_D1: Array, document_labels: Labels, token_labels: Labels) -> None:
        """All of the probe's tokens, documents and labels."""
        largest = int(token_T.max()) if len(token_T) else 0
        self._append("token", token_T.astype(_smallest(largest + 1)))
        self._append("start", start_D1.astype(np.int64))
        for kind, labels in (("document", document_labels), ("token", token_labels)):
            self.labels[kind] = [(name, values) for name, (_, values) in labels.items()]
            for n, (codes, _) in enumerate(labels.values()):
                self._append(f"label-{kind}-{n}", np.asarray(codes).astype(np.int16))

    def add_loss(self, loss_N: Array) -> None:
        self._append("loss", loss_N.astype(np.float32))

    def add_layer(self, layer: int, experts: int, files_of: int) -> None:
        """Announce a mixture layer; `files_of` is another one where that one decides for both."""
        self.layers[layer] = {"layer": layer, "experts": experts, "files_of": files_of}

    def add_routes(self, layer: int, part: RoutesPart) -> None:
        name, experts = f"layer{layer:02d}", self.layers[layer]["experts"]
        self._append(f"{name}-count", part.count_N.astype(_smallest(experts + 1)))
        self._append(f"{name}-expert", part.expert_P.astype(_smallest(experts)))
        self._append(f"{name}-weight", part.weight_P.astype(np.float16))
        if part.kept_P is not None:
            self._append(f"{name}-kept", part.kept_P.astype(np.bool_))
        self._append(f"{name}-entropy", part.entropy_N.astype(np.float16))
        self._append(f"{name}-margin", part.margin_N.astype(np.float16))

    def _append(self, name: str, values: Array) -> None:
        if name not in self.files:
            self.files[name] = self.new_array(name, values.dtype.newbyteorder("<"))
        self.files[name].append(values)

    def finish(self) -> dict[str, Any]:
        """Drop what says nothing; the manifest of the rest."""
        self.close()
        for layer, entry in self.layers.items():
            self._drop_what_says_nothing(f"layer{layer:02d}", entry)
        return {
            "format": FORMAT,
            "identity": vars(self.identity),
            **self.facts,
            "document_labels": self.labels["document"],
            "token_labels": self.labels["token"],
            "layers": [entry for _, entry in sorted(self.layers.items())],
            "files": {name: [file.dtype.str, file.length] for name, file in self.files.items()},
        }

    def _drop_what_says_nothing(self, name: str, entry: Mapping[str, Any]) -> None:
        def values(part: str) -> Array:
            return self.files[f"{name}-{part}"].values()

        if f"{name}-count" not in self.files:
            return
        count_T = values("count")
        if not len(count_T) or count_T.min() == count_T.max():
            self._drop(f"{name}-count")
            if len(count_T) and count_T[0] == entry["experts"]:  # written in the order of the experts, or not
                expert_TE = values("expert").reshape(len(count_T), -1)
                if np.all(expert_TE == np.arange(entry["experts"])):
                    self._drop(f"{name}-expert")
        for part in ("entropy", "margin"):
            if np.isnan(values(part)).all():
                self._drop(f"{name}-{part}")

    def _drop(self, name: str) -> None:
        self.files.pop(name).delete()

    def close(self) -> None:
        for file in self.files.values():
            file.close()


def _smallest(values: int) -> type[np.unsignedinteger[Any]]:
    """The smallest unsigned type that numbers `values` things."""
    return np.uint8 if values <= 1 << 8 else np.uint16 if values <= 1 << 16 else np.uint32
