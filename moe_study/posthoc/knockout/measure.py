"""A trained model reads a probe once for every change of its routes; what each document loses is kept.

Windows and batches are those of traces (posthoc/trace.py), but that documents are cut to whole eighths of the context:
so few lengths occur, batches are full, and a reading costs a fraction; of a document its last tokens are left out.

Shape suffixes: B windows of L tokens, N tokens of a batch (= B * L), D documents, E experts, K candidates.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from moe_study.analysis.specialisation.knockout import ALL_LAYERS, NONE, Array, Kind, RouteChange
from moe_study.data.probes import Probe
from moe_study.model.forward_pass import RoutingStats
from moe_study.model.loss import IGNORED
from moe_study.model.moe.routing.intervention import Intervention
from moe_study.posthoc.knockout.interventions import intervention, null_of
from moe_study.posthoc.knockout.plan import deciding_layers
from moe_study.posthoc.trace import Tracer

PARTS = 8  # of a context
ITSELF = -1  # in the place of a draw: the change, not its null


class Reading(NamedTuple):
    """One reading of the probe: a change, or a draw of its null. Random routes are draws alone."""

    change: RouteChange
    draw: int


class ByDocument(NamedTuple):
    """What a reading gave, against the routes as they are."""

    nats_D: Array  # loss of all tokens, changed less unchanged
    moved_D: Array  # assignments that are gone; a weight of zero is none


@dataclass(frozen=True)
class Measured:
    """All readings of one run."""

    assigned: dict[int, Array]  # deciding layer -> assignments of each document, routes as they are
    readings: dict[Reading, ByDocument]


def in_whole_parts(probe: Probe, context: int) -> Probe:
    """The same documents, cut to a multiple of an eighth of the context; the shortest are then empty."""
    part = max(1, context // PARTS)
    length_D = np.diff(probe.start_D1)
    position_T = np.arange(len(probe.token_T)) - np.repeat(probe.start_D1[:-1], length_D)
    whole_D = length_D // part * part
    return replace(
        probe,
        token_T=probe.token_T[position_T < np.repeat(whole_D, length_D)],
        start_D1=np.concatenate([[0], np.cumsum(whole_D)]),
        token_labels={},
    )


def readings_of(changes: Sequence[RouteChange], draws: int) -> list[Reading]:
    """Each change with the draws of its null; a null that several changes share is there once."""
    found: dict[Reading, None] = {}
    for change in changes:
        if change.kind is not Kind.RANDOM_ROUTES:
            found[Reading(change, ITSELF)] = None
        found |= dict.fromkeys(Reading(null_key(change), draw) for draw in range(draws))
    return list(found)


def null_key(change: RouteChange) -> RouteChange:
    """Under which name draws of a change's null are kept: all tokens to one expert have one null for all experts."""
    return replace(change, expert=NONE) if change.kind is Kind.ONE_EXPERT else change


def measure(tracer: Tracer, probe: Probe, label_D: Array, readings: Sequence[Reading], bar: "tqdm[Any]") -> Measured:
    """Every reading of a probe `in_whole_parts`; `label_D` is what a router by label is told of each document."""
    layers, documents = deciding_layers(tracer.config), probe.documents
    found = Measured(
        {layer: np.zeros(documents) for layer in layers},
        {reading: ByDocument(np.zeros(documents), np.zeros(documents)) for reading in readings},
    )
    interventions = {reading: _interventions(reading, layers) for reading in readings}
    bar.reset(total=len(probe.token_T) * (1 + len(readings)))
    for index_BL, target_BL, document_B in tracer.batches(probe):
        token_BL = torch.from_numpy(probe.token_T[index_BL].astype(np.int64))
        inputs = token_BL, torch.from_numpy(target_BL), torch.from_numpy(label_D[document_B])
        known_BL = target_BL != IGNORED
        stats, loss_BL = tracer.read(*inputs)
        before_B, held = _nats(loss_BL, known_BL), _held(stats, layers)
        for layer, held_NE in held.items():
            np.add.at(found.assigned[layer], document_B, _by_window(held_NE, document_B))
        bar.update(index_BL.size)
        for reading, by_document in found.readings.items():
            stats, loss_BL = tracer.read(*inputs, interventions[reading])
            np.add.at(by_document.nats_D, document_B, _nats(loss_BL, known_BL) - before_B)
            for layer, now_NE in _held(stats, list(interventions[reading])).items():
                np.add.at(by_document.moved_D, document_B, _by_window(held[layer] & ~now_NE, document_B))
            bar.update(index_BL.size)
    return found


def _interventions(reading: Reading, layers: Sequence[int]) -> Mapping[int, Intervention]:
    change, draw = reading
    where = layers if change.layer == ALL_LAYERS else [change.layer]
    if draw == ITSELF or change.kind is Kind.RANDOM_ROUTES:
        return {layer: intervention(change, layer, draw) for layer in where}
    return {layer: null_of(change, layer, draw) for layer in where}


def _nats(loss_BL: Tensor, known_BL: Array) -> Array:
    """Loss of each window."""
    return np.where(known_BL, loss_BL.double().cpu().numpy(), 0.0).sum(1)


def _held(stats: Sequence[RoutingStats], layers: Sequence[int]) -> dict[int, Tensor]:
    """Which experts each token has in these layers, (N, E)."""
    found = {}
    for layer in (layer for layer in stats if layer.layer in layers):
        routes = layer.routes
        assert routes is not None
        has_NK = routes.weight_NK != 0
        has_NK = has_NK if routes.picked_NK is None else has_NK & routes.picked_NK
        empty_NE = torch.zeros(len(has_NK), len(layer.kept_E), dtype=torch.long, device=has_NK.device)
        found[layer.layer] = empty_NE.scatter_add(1, routes.expert_NK, has_NK.long()) > 0
    return found


def _by_window(held_NE: Tensor, document_B: Array) -> Array:
    return held_NE.view(len(document_B), -1).sum(1).cpu().numpy()
