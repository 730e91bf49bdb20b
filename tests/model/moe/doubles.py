"""Toy mixture layers with weights that are large enough to matter."""

from typing import Any

import torch
from torch import Tensor

from moe_study.design.config import ModelConfig
from moe_study.design.routing import Routing, mixture_layers
from moe_study.design.validation import validate
from moe_study.model.forward_pass import ForwardPass
from moe_study.model.initialisation import Initialiser
from moe_study.model.moe.layer import MixtureLayer
from moe_study.model.moe.routing.router import ScoringRouter
from tests.design.points import VOCABULARY, toy


def layers_of(routing: Routing, seed: int = 0, dtype: torch.dtype = torch.float64, **model: Any) -> list[MixtureLayer]:
    """All mixture layers of a toy model, every parameter drawn from N(0, 0.5), in evaluation mode."""
    config = toy(routing, **model)
    validate(config)
    return [build(config.model, routing, layer, seed, dtype) for layer in mixture_layers(routing, config.model.layers)]


def build(model: ModelConfig, routing: Routing, layer: int, seed: int, dtype: torch.dtype) -> MixtureLayer:
    mixture = MixtureLayer(model, routing, layer, VOCABULARY)
    Initialiser(seed, model).module(mixture, f"blocks.{layer}.ffn")
    generator = torch.Generator().manual_seed(1000 * seed + layer)
    with torch.no_grad():
        for parameter in mixture.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return mixture.to(dtype).eval()


def router_weight(layer: MixtureLayer) -> Tensor:
    """The last weight of the layer's scoring router, (E, D)."""
    assert layer.decider is not None and isinstance(layer.decider.router, ScoringRouter)
    return layer.decider.router.weights[-1]


def states(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Hidden states that collect gradients."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()


def a_pass(sequences: int = 3, length: int = 10, seed: int = 0, detail: bool = False) -> ForwardPass:
    """Tokens and labels of one forward pass."""
    generator = torch.Generator().manual_seed(seed)
    tokens_BT = torch.randint(VOCABULARY, (sequences, length), generator=generator)
    return ForwardPass(tokens_BT, label_B=torch.arange(sequences) % 4, detail=detail)
