"""Norms of gradients by part of the model, taken in training before clipping (log.gradients_every; runs/gradients.py).

Every parameter belongs to one part, known by its name. What is taken changes no gradient and draws no random number, so
a run is the same bit by bit whether or not, and however often, it is asked for.

Shape suffixes: E experts, or 1 for parts that are one; R rows of a parameter, C its last axis.
"""

import re
from typing import Any

import torch
from torch import Tensor, nn

from moe_study.runs.gradients import BY_EXPERT, KIND
from moe_study.training.metrics import finite_or_none

Place = tuple[int | None, str]  # block from 0, or None for the whole model; part
_RULES = (  # the first that fits
    (re.compile(r"blocks\.(\d+)\.norm_\w+\."), "norms"),
    (re.compile(r"blocks\.(\d+)\.attn\."), "attention"),
    (re.compile(r"blocks\.(\d+)\.ffn\.(?:decider|gates|scores)\."), "router"),
    (re.compile(r"blocks\.(\d+)\.ffn\.experts\."), "experts"),
    (re.compile(r"blocks\.(\d+)\.ffn\.shared\."), "shared"),
    (re.compile(r"blocks\.(\d+)\.ffn\.(?:up|down)\."), "mlp"),
    (re.compile(r"(?:token|position|patch)_embedding\."), "embeddings"),
    (re.compile(r"norm\."), "norms"),
    (re.compile(r"head\."), "head"),
)


def place_of(name: str) -> Place:
    """The part that the parameter of this name belongs to; "other" where no rule knows it."""
    for pattern, part in _RULES:
        if match := pattern.match(name):
            layer = int(match[1]) if pattern.groups and part != "norms" else None
            return layer, part
    return None, "other"


class GradientNorms:
    """The norms of one step; `take` does not wait for the device, `read` does."""

    def __init__(self, model: nn.Module) -> None:
        self._parts: dict[Place, list[nn.Parameter]] = {}
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                self._parts.setdefault(place_of(name), []).append(parameter)
        self._taken: tuple[int, dict[Place, Tensor]] | None = None

    def take(self, step: int) -> None:
        """Note the norms of the gradients that parameters have now, as those of training step `step` (from 1)."""
        self._taken = step, {place: _norms(place[1], own) for place, own in self._parts.items()}

    def read(self) -> list[dict[str, Any]]:
        """The records of what was taken last, the whole model's first; starts anew. Waits for the device."""
        if self._taken is None:
            return []
        (step, taken), self._taken = self._taken, None
        flat = torch.cat(list(taken.values())).tolist()
        records: dict[int | None, dict[str, Any]] = {None: {"kind": KIND, "step": step}}
        for block in sorted({layer for layer, _ in taken if layer is not None}):
            records[block] = {"kind": KIND, "step": step, "layer": block}
        first = 0
        for (layer, part), norms in taken.items():
            values = flat[first : (first := first + len(norms))]
            records[layer][part] = finite_or_none(sum(value**2 for value in values) ** 0.5)
            if part == "experts":
                records[layer][BY_EXPERT] = [finite_or_none(value) for value in values]
        return list(records.values())


@torch.no_grad()
def _norms(part: str, parameters: list[nn.Parameter]) -> Tensor:
    """The joint norm of a part's gradients, (1,); of stacked experts each one's own, (E,).

    Squares are added up in float64, row by row: over millions of numbers float32 would lose digits, and a copy of all
    in float64 would take memory.
    """
    parts = len(parameters[0]) if part == "experts" else 1
    squares_E = torch.zeros(parts, dtype=torch.float64, device=parameters[0].device)
    for grad in (parameter.grad for parameter in parameters):
        if grad is not None:
            grad_ERC = grad.reshape(parts, -1, grad.shape[-1] if grad.ndim else 1)
            squares_E += torch.linalg.vector_norm(grad_ERC, dim=2).double().square().sum(1)
    return squares_E.sqrt()
