"""Soft layers at toy size, shared by their tests: forms, ablations, a layer with sharp averages, an input."""

import dataclasses
from typing import Any

import torch
from torch import Tensor

from moe_study.design.config import DataConfig, ModelConfig, RunConfig, RunSettings, TokenizerConfig
from moe_study.design.routing import Routing, Selection, Soft, SoftForm, SoftWeights
from moe_study.model.forward_pass import ForwardPass, RoutingStats
from moe_study.model.moe.build import build_ffn
from moe_study.model.moe.soft import SoftLayer
from tests.model.moe.soft_reference import soft_layer

WIDTH, LENGTH, EXPERTS = 6, 12, 4
MODEL = ModelConfig(layers=1, heads=2, width=WIDTH, ffn_size=10, context=LENGTH)

SEQUENCE = Soft()
CHUNK = Soft(form=SoftForm.CHUNK, chunk_length=5)
LAGGED = Soft(form=SoftForm.CHUNK_LAGGED, chunk_length=5)
PREFIX = Soft(form=SoftForm.PREFIX)
ACROSS = Soft(form=SoftForm.ACROSS_BATCH, group_size=2)
TOKENS_ACROSS = dataclasses.replace(ACROSS, combine=SoftWeights.DISPATCH, normalise=False)  # as published
FORMS = [SEQUENCE, CHUNK, LAGGED, PREFIX, ACROSS, TOKENS_ACROSS]
ABLATIONS = [
    (SoftWeights.SOFT, SoftWeights.UNIFORM),
    (SoftWeights.UNIFORM, SoftWeights.SOFT),
    (SoftWeights.UNIFORM, SoftWeights.UNIFORM),
    (SoftWeights.IDENTITY, SoftWeights.IDENTITY),
    (SoftWeights.IDENTITY, SoftWeights.SOFT),
    (SoftWeights.SOFT, SoftWeights.IDENTITY),
]


def name(soft: Soft) -> str:
    return f"{soft.form}-{soft.slots_per_expert}-{soft.dispatch}-{soft.combine}"


def routing_of(soft: Soft, experts: int = EXPERTS, **changes: Any) -> Routing:
    return Routing(selection=Selection.SOFT, num_experts=experts, soft=soft, **changes)


def build(soft: Soft, model: ModelConfig = MODEL, seed: int = 0, **changes: Any) -> SoftLayer:
    """A layer in float64 with random weights far from their initial values, so that averages are sharp."""
    layer = build_ffn(model, routing_of(soft, **changes), 0, vocab_size=11)
    assert isinstance(layer, SoftLayer)
    layer.double().eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
        if layer.scores is not None and layer.scores.scale is not None:
            layer.scores.scale.fill_(4.0)
    return layer


def tokens(sequences: int = 4, length: int = LENGTH, width: int = WIDTH, seed: int = 1) -> Tensor:
    return torch.randn(sequences, length, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def run(layer: SoftLayer, x_BTD: Tensor, detail: bool = False) -> tuple[Tensor, RoutingStats]:
    forward_pass = ForwardPass(torch.zeros(x_BTD.shape[:2], dtype=torch.long), detail=detail)
    y_BTD = layer(x_BTD, forward_pass)
    assert y_BTD.shape == x_BTD.shape
    return y_BTD, forward_pass.stats[0]


def reference(layer: SoftLayer, x_BTD: Tensor) -> Tensor:
    weights = {key.rpartition(".")[2]: value.detach().numpy() for key, value in layer.named_parameters()}
    return torch.from_numpy(soft_layer(x_BTD.numpy(), weights, layer.soft, layer.num_experts))


def config_of(soft: Soft, model: ModelConfig = MODEL, **changes: Any) -> RunConfig:
    run = RunSettings(steps=1, batch_size=4, eval_batch=4)
    data = DataConfig(tokenizer=TokenizerConfig(kind="bytes"))
    return RunConfig(model=model, routing=routing_of(soft, **changes), data=data, run=run)
