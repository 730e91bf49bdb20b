"""Sums over forward passes of what each mixture layer did, kept on the device until they are asked for."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from moe_study.model.forward_pass import RoutingStats


class RoutingSums:
    """One sum for each mixture layer and quantity: rows that were wanted, kept (by expert) and executed, and more."""

    def __init__(self) -> None:
        self._layers: dict[int, dict[str, Tensor]] = {}
        self._tokens: dict[int, int] = {}

    def add(self, stats: RoutingStats, more: Mapping[str, Tensor]) -> None:
        """Count one layer's part of one forward pass; `more` holds further quantities by name."""
        rows = {"kept_E": stats.kept_E, "wanted": stats.wanted, "executed": stats.executed}
        sums = self._layers.setdefault(stats.layer, {})
        for name, value in (rows | dict(more)).items():
            sums[name] = sums[name] + value if name in sums else value.clone()
        self._tokens[stats.layer] = self._tokens.get(stats.layer, 0) + stats.tokens

    def __iter__(self) -> Iterator[tuple[int, dict[str, Tensor]]]:
        """Layers in order, each with its sums by name."""
        return iter(sorted(self._layers.items()))

    def per_token(self, layer: int) -> dict[str, float]:
        """Rows per token: selected, left by a capacity, and computed. Waits for the device."""
        sums, tokens = self._layers[layer], self._tokens[layer]
        return {
            "wanted_per_token": float(sums["wanted"]) / tokens,
            "kept_per_token": float(sums["kept_E"].sum()) / tokens,
            "executed_per_token": float(sums["executed"]) / tokens,
        }

    def merge(self, other: "RoutingSums") -> None:
        """Add what another process has counted."""
        for layer, sums in other._layers.items():
            mine = self._layers.setdefault(layer, {})
            for name, value in sums.items():
                mine[name] = mine[name] + value.to(mine[name].device) if name in mine else value
            self._tokens[layer] = self._tokens.get(layer, 0) + other._tokens[layer]

    def on(self, device: torch.device) -> "RoutingSums":
        """A copy on `device`."""
        copy = RoutingSums()
        copy.load_state_dict(self.state_dict(), device)
        return copy

    def state_dict(self) -> dict[str, Any]:
        return {"layers": self._layers, "tokens": self._tokens}

    def load_state_dict(self, state: Mapping[str, Any], device: torch.device) -> None:
        self._layers = {
            layer: {name: value.to(device) for name, value in sums.items()} for layer, sums in state["layers"].items()
        }
        self._tokens = dict(state["tokens"])
