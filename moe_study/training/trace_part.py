"""Gathers what forward passes tell of some consecutive tokens, for a trace (runs/traces.py).

Shape suffixes: N tokens of the part, K candidates, P picks, B windows of L tokens.
"""

import numpy as np
import torch
from torch import Tensor

from moe_study.model.forward_pass import RoutingStats, TokenRoutes
from moe_study.model.loss import IGNORED
from moe_study.runs.growing_arrays import Array
from moe_study.runs.traces import RoutesPart, TraceWriter


class TracePart:
    """What is known of the tokens start : end, gathered in any order."""

    def __init__(self, start: int, end: int) -> None:
        self.start = int(start)
        self.loss_N = np.full(int(end) - self.start, np.nan, np.float32)
        self.indices: list[Array] = []
        self.layers: dict[int, tuple[int, int]] = {}  # layer -> experts, the layer that decides for it
        self.routes: dict[int, list[TokenRoutes]] = {}

    def add(self, index_BL: Array, target_BL: Array, loss_BL: Tensor, stats: list[RoutingStats]) -> None:
        """One forward pass over the tokens of those indices; a target that is the next token of its document counts.

        Any other has to be IGNORED.
        """
        known_BL = target_BL != IGNORED
        self.loss_N[index_BL[known_BL] + 1 - self.start] = loss_BL.float().cpu().numpy()[known_BL]
        self.indices.append(index_BL.flatten() - self.start)
        deciding: dict[int, int] = {}  # id of an object of routes -> the first layer that holds it
        for layer in stats:
            assert layer.routes is not None
            decider = deciding.setdefault(id(layer.routes), layer.layer)
            self.layers[layer.layer] = len(layer.kept_E), decider
            if decider == layer.layer:
                self.routes.setdefault(decider, []).append(layer.routes)

    def write(self, writer: TraceWriter) -> None:
        """Hand it to the writer in the order of the tokens, all of which must have been added by now."""
        writer.add_loss(self.loss_N)
        if not self.indices:
            return
        order_N = np.argsort(np.concatenate(self.indices))
        for layer, (experts, decider) in self.layers.items():
            writer.add_layer(layer, experts, decider)
            if decider == layer:
                writer.add_routes(layer, routes_in_order(self.routes[layer], order_N))


def routes_in_order(parts: list[TokenRoutes], order_N: Array) -> RoutesPart:
    """Routes of all parts, by token; only what was picked."""

    def joined(name: str) -> Array:
        return np.concatenate([getattr(part, name).float().cpu().numpy() for part in parts])[order_N]

    expert_NK = np.concatenate([part.expert_NK.to(torch.int32).cpu().numpy() for part in parts])[order_N]
    shape = expert_NK.shape
    picked_NK = np.ones(shape, bool) if parts[0].picked_NK is None else joined("picked_NK").astype(bool)
    kept_NK = None if parts[0].kept_NK is None else joined("kept_NK").astype(bool)
    return RoutesPart(
        count_N=picked_NK.sum(1),
        expert_P=expert_NK[picked_NK],
        weight_P=joined("weight_NK")[picked_NK],
        kept_P=None if kept_NK is None else kept_NK[picked_NK],
        entropy_N=joined("entropy_N"),
        margin_N=joined("margin_N"),
    )
