"""Mixture layers of every selection, gate and context, and what loops over tokens and experts make of them."""

import dataclasses
import functools
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor

from moe_study.design.routing import AFTER_PICK, Gate, RouterState, Routing, Scope, Selection
from moe_study.model.forward_pass import ForwardPass
from moe_study.model.moe.layer import MixtureLayer
from tests.design.points import TOP_K
from tests.model.moe import oracle
from tests.model.moe.doubles import a_pass, layers_of, states

ANY_GATE = [gate for gate in Gate if gate is not Gate.RELU]  # that goes with a rule of its own
GATES = {
    f"{gate}, K={k}{', renormalised' if renormalise else ''}": Routing(
        gate=gate, k=k, renormalise=renormalise, num_experts=5, router_state=RouterState.FROZEN
    )
    for gate, k, renormalise in product(ANY_GATE, (1, 3), (False, True))
}
THRESHOLDS = {
    f"threshold {t}, {gate}{', renormalised' if renormalise else ''}": Routing(
        selection=Selection.THRESHOLD, threshold=t, gate=gate, renormalise=renormalise, num_experts=6
    )
    for t, gate, renormalise in product((0.3, 0.8), ANY_GATE, (False, True))
} | {
    "threshold 0": Routing(selection=Selection.THRESHOLD, threshold=0.0),
    "threshold 1": Routing(selection=Selection.THRESHOLD, threshold=1.0),
    "threshold global": Routing(selection=Selection.THRESHOLD, threshold=0.6, scope=Scope.GLOBAL),
    "threshold by segment": dataclasses.replace(TOP_K["segment mean"], selection=Selection.THRESHOLD, threshold=0.6),
}
POSITIVES = {
    f"positive, {gate}{', renormalised' if renormalise else ''}": Routing(
        selection=Selection.POSITIVE, gate=gate, renormalise=renormalise, num_experts=6, k=2
    )
    for gate, renormalise in product((gate for gate in Gate if gate not in AFTER_PICK), (False, True))
} | {
    "positive global": Routing(selection=Selection.POSITIVE, gate=Gate.RELU, scope=Scope.GLOBAL),
    "positive by segment": dataclasses.replace(TOP_K["segment mean"], selection=Selection.POSITIVE, gate=Gate.RELU),
}
POINTS = {k: v for k, v in TOP_K.items() if not v.shuffle} | GATES | THRESHOLDS | POSITIVES


def run(layers: list[MixtureLayer], inputs: list[Tensor], forward_pass: ForwardPass) -> list[Tensor]:
    return [layer(x_BTD, forward_pass) for layer, x_BTD in zip(layers, inputs, strict=True)]


def run_oracle(
    layers: list[MixtureLayer], routing: Routing, inputs: list[Tensor], forward_pass: ForwardPass
) -> tuple[list[Tensor], list[oracle.Decisions]]:
    outputs: list[Tensor] = []
    decided: list[oracle.Decisions] = []
    for layer, x_BTD in zip(layers, inputs, strict=True):
        if routing.scope is Scope.GLOBAL and decided:
            decided.append(decided[0])
        else:
            decided.append(oracle.decisions(layer, routing, x_BTD, forward_pass.tokens_BT, forward_pass.label_B))
        outputs.append(oracle.outputs(layer, x_BTD, decided[-1]))
    return outputs, decided


def gradients(outputs: list[Tensor], layers: list[MixtureLayer], inputs: list[Tensor]) -> dict[str, Tensor]:
    """Of a random projection of all outputs; zero where something is not used."""
    generator = torch.Generator().manual_seed(7)
    total = sum((y * torch.randn(y.shape, generator=generator, dtype=torch.float64)).sum() for y in outputs)
    leaves = {f"input {i}": x for i, x in enumerate(inputs)} | {
        f"{i}.{name}": p for i, layer in enumerate(layers) for name, p in layer.named_parameters() if p.requires_grad
    }
    assert isinstance(total, Tensor)
    found = torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
    return {
        name: torch.zeros_like(leaf) if gradient is None else gradient
        for (name, leaf), gradient in zip(leaves.items(), found, strict=True)
    }


class Case(NamedTuple):
    """The layers of a point, inputs of 2 sequences of 9 tokens, and what loops make of these; for reading alone."""

    layers: list[MixtureLayer]
    inputs: list[Tensor]
    outputs: list[Tensor]
    decided: list[oracle.Decisions]


@functools.cache
def by_loops(point: str, bias: bool) -> Case:
    layers = layers_of(POINTS[point], bias=bias)
    inputs = [states(2, 9, 8, seed=i) for i in range(len(layers))]
    return Case(layers, inputs, *run_oracle(layers, POINTS[point], inputs, a_pass(2, 9)))
