"""A trained model reads a probe once for every change of its routes; what each document loses is kept.

Batches and windows are those of traces (posthoc/trace.py).

Shape suffixes: B windows of L tokens, N tokens of a batch (= B * L), D documents, E experts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from moe_study.analysis.specialisation.knockout import ALL_LAYERS, Array, Kind, RouteChange
from moe_study.data.probes import Probe
from moe_study.model.forward_pass import RoutingStats
from moe_study.model.loss import IGNORED
from moe_study.model.moe.routing.intervention import Intervention
from moe_study.posthoc.knockout.interventions import intervention, null_of
from moe_study.posthoc.knockout.plan import deciding_layers
from moe_study.posthoc.trace import Tracer

UNCHANGED = -1  # in the place of a draw: the change itself, not its null


@dataclass
class ByDocument:
    """What one reading of the probe gave, by document, against the routes as they are."""

    nats_D: Array  # loss of all tokens, changed less unchanged
    moved_D: Array  # assignments that are gone; weights of zero are none


@dataclass
class Baseline:
    """The routes as they are."""

    tokens_D: Array  # that have a loss
    assigned: dict[int, Array]  # deciding layer -> assignments by document


@dataclass(frozen=True)
class _Reading:
    """One change, or a draw of its null."""

    change: RouteChange
    draw: int
    interventions: Mapping[int, Intervention]


def measure(
    tracer: Tracer, probe: Probe, label_D: Array, changes: Sequence[RouteChange], draws: int, bar: "tqdm[Any]"
) -> tuple[Baseline, dict[tuple[RouteChange, int], ByDocument]]:
    """By change and draw; UNCHANGED is the change itself. Random routes have draws alone: they are their own null."""
    layers = deciding_layers(tracer.config)
    readings = [reading for change in changes for reading in _readings(change, draws, layers)]
    zeros = np.zeros(probe.documents)
    base = Baseline(zeros.copy(), {layer: zeros.copy() for layer in layers})
    found = {(each.change, each.draw): ByDocument(zeros.copy(), zeros.copy()) for each in readings}
    bar.reset(total=len(probe.token_T) * (1 + len(readings)))
    for index_BL, target_BL, document_B in tracer.batches(probe):
        token_BL = torch.from_numpy(probe.token_T[index_BL].astype(np.int64))
        inputs = token_BL, torch.from_numpy(target_BL), torch.from_numpy(label_D[document_B])
        known_BL = target_BL != IGNORED
        stats, loss_BL = tracer.read(*inputs)
        before_BL, held = _nats(loss_BL, known_BL), _held(stats, layers)
        np.add.at(base.tokens_D, document_B, known_BL.sum(1))
        for layer, held_NE in held.items():
            np.add.at(base.assigned[layer], document_B, _by_window(held_NE, document_B))
        bar.update(index_BL.size)
        for each in readings:
            stats, loss_BL = tracer.read(*inputs, each.interventions)
            result, touched = found[each.change, each.draw], list(each.interventions)
            np.add.at(result.nats_D, document_B, (_nats(loss_BL, known_BL) - before_BL).sum(1))
            for layer, now_NE in _held(stats, touched).items():
                np.add.at(result.moved_D, document_B, _by_window(held[layer] & ~now_NE, document_B))
            bar.update(index_BL.size)
    return base, found


def _readings(change: RouteChange, draws: int, layers: Sequence[int]) -> list[_Reading]:
    where = layers if change.layer == ALL_LAYERS else [change.layer]
    if change.kind is Kind.RANDOM_ROUTES:
        return [
            _Reading(change, draw, {layer: intervention(change, layer, draw) for layer in where})
            for draw in range(draws)
        ]
    itself = _Reading(change, UNCHANGED, {layer: intervention(change, layer) for layer in where})
    nulls = [_Reading(change, draw, {layer: null_of(change, layer, draw) for layer in where}) for draw in range(draws)]
    return [itself, *nulls]


def _nats(loss_BL: Tensor, known_BL: Array) -> Array:
    """Loss of each token, 0 where there is none."""
    return np.where(known_BL, loss_BL.double().cpu().numpy(), 0.0)


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
