"""A look inside one trained run: where it sends the tokens of a text.

Shape suffixes: T tokens, N tokens of one window, L the same, P picks (token, expert), B = 1.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch

from moe_study.data import load_run_tokenizer
from moe_study.errors import StudyError
from moe_study.model.loss import IGNORED
from moe_study.posthoc.trace import Tracer, trained_labels
from moe_study.runs.folder import RunFolder
from moe_study.runs.traces import RoutesPart
from moe_study.training.trace_part import routes_in_order


@dataclass(frozen=True)
class Pick:
    """One expert of one token."""

    expert: int
    weight: float
    kept: bool


@dataclass(frozen=True)
class LayerOfText:
    """What one mixture layer does with a text."""

    layer: int
    experts: int
    picks: list[list[Pick]]  # of each token, the largest weight first
    entropy: list[float | None]  # nats
    margin: list[float | None]


@dataclass(frozen=True)
class ReadText:
    """A text as a run read it."""

    run: str
    ids: list[int]
    pieces: list[bytes]  # the bytes of each token
    loss: list[float | None]  # nats, of predicting each token
    layers: list[LayerOfText]
    windows: int  # the text was cut into so many


def inspect_text(folder: RunFolder, text: str, label: str | None = None) -> ReadText:
    """Let the run read a text, in windows of its context that follow one another, as a trace does.

    `label` is what a router by label is told. StudyError for a text without a token, and where a label is missing.
    """
    tracer, tokenizer = Tracer.of(folder), load_run_tokenizer(folder)
    ids = np.array(tokenizer.encode(text), np.int64)
    if not len(ids):
        raise StudyError("the text holds no token; give some with --text, as a file, or on standard input")
    label_B = torch.tensor([_label_number(folder, tracer, label)])
    context = tracer.config.model.context
    loss_T = np.full(len(ids), np.nan)
    parts: dict[int, list[RoutesPart]] = {}
    experts: dict[int, int] = {}
    for start in range(0, len(ids), context):
        end = min(start + context, len(ids))
        target_L = np.full(end - start, IGNORED)
        following = ids[start + 1 : end + 1]
        target_L[: len(following)] = following
        window, target = torch.from_numpy(ids[start:end])[None], torch.from_numpy(target_L)[None]
        stats, loss_BL = tracer.read(window, target, label_B)
        loss_T[start + 1 : start + 1 + len(following)] = loss_BL[0, : len(following)].float().cpu().numpy()
        for layer in stats:
            assert layer.routes is not None
            experts[layer.layer] = len(layer.kept_E)
            parts.setdefault(layer.layer, []).append(routes_in_order([layer.routes], np.arange(end - start)))
    all_pieces = tokenizer.token_bytes()
    return ReadText(
        run=folder.key,
        ids=ids.tolist(),
        pieces=[all_pieces[i] for i in ids],
        loss=[_finite(value) for value in loss_T],
        layers=[_layer_of_text(layer, experts[layer], found) for layer, found in sorted(parts.items())],
        windows=-(-len(ids) // context),
    )


def _label_number(folder: RunFolder, tracer: Tracer, label: str | None) -> int:
    if not tracer.by_label:
        if label is not None:
            raise StudyError(f"{folder.path} is not routed by label, so --label changes nothing; leave it out")
        return 0
    known = trained_labels(folder, tracer.config)
    if label not in known:
        kind = tracer.config.routing.label
        raise StudyError(f"{folder.path} is routed by {kind}: say which one the text has, --label {' or '.join(known)}")
    return known.index(label)


def _layer_of_text(layer: int, experts: int, parts: list[RoutesPart]) -> LayerOfText:
    picks: list[list[Pick]] = []
    for part in parts:
        kept_P = np.ones(len(part.expert_P), bool) if part.kept_P is None else part.kept_P
        ends_N = np.cumsum(part.count_N)
        for start, end in zip(ends_N - part.count_N, ends_N, strict=True):
            rows = zip(part.expert_P[start:end], part.weight_P[start:end], kept_P[start:end], strict=True)
            found = [Pick(int(expert), float(weight), bool(kept)) for expert, weight, kept in rows]
            picks.append(sorted(found, key=lambda pick: -pick.weight))
    entropy = [_finite(value) for part in parts for value in part.entropy_N]
    margin = [_finite(value) for part in parts for value in part.margin_N]
    return LayerOfText(layer, experts, picks, entropy, margin)


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
