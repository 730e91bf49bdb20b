"""Gradient norms by part: autograd's in float64, of the whole batch, before clipping; and nothing else changes."""

import copy
import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from moe_study.design.config import ModelConfig, RunConfig
from moe_study.design.plain import from_plain
from moe_study.design.routing import Routing, mixture_layers
from moe_study.model.gpt import GPT
from moe_study.model.mlp import MLP
from moe_study.model.moe.base import MixtureOfExperts
from moe_study.model.moe.experts.experts import Experts
from moe_study.model.transformer import Attention
from moe_study.model.vit import ViT
from moe_study.runs.folder import RunFolder
from moe_study.runs.gradients import PARTS, read_gradients
from moe_study.training.gradients import GradientNorms, place_of
from moe_study.training.loop import Trainer
from moe_study.training.models import build_model
from moe_study.training.run import train
from tests.design.points import COUNTED, DENSE, TOP_K, TOY
from tests.training.doubles import TinySampler, doubles, tiny_config

POINTS: dict[str, dict[str, Any]] = {
    "token top-2 with a shared expert": {"k": 2, "num_experts": 4, "shared_experts": 1},
    "sequence top-1, frozen": {"unit": "sequence", "context": "unit_mean", "k": 1, "router_state": "frozen"},
    "one decision for all layers": {"k": 2, "scope": "global", "router": "cosine"},
    "soft": {"selection": "soft", "soft": {"form": "prefix", "slots_per_expert": 2}},
    "merged": {"selection": "merge", "unit": "segment", "segment_length": 4, "context": "previous_segment"},
    "experts in the last block alone": {"layers": [1], "k": 1, "num_experts": 3},
    "dense": {"selection": "dense"},
}


def config_of(tmp_path: Any, routing: dict[str, Any], **settings: Any) -> RunConfig:
    config = tiny_config(tmp_path, **settings)
    model = ModelConfig(layers=2, heads=2, width=8, context=12)
    return dataclasses.replace(config, model=model, routing=from_plain(Routing, {"num_experts": 4} | routing))


def trainer_of(config: RunConfig) -> Trainer:
    sampler = TinySampler(config.run.batch_size, config.run.seed, ignore=0.3)
    return Trainer(config, build_model(config, None), sampler, torch.device("cpu"))


def by_hand(model: nn.Module, gradient: dict[int, Tensor]) -> dict[tuple[int | None, str], Any]:
    """Norms by the types of modules; `gradient` by the identity of the parameter. Of experts a list."""

    def squares(module: nn.Module) -> float:
        return sum(float((gradient[id(p)] ** 2).sum()) for p in module.parameters() if id(p) in gradient)

    def trained(module: nn.Module) -> bool:
        return any(p.requires_grad for p in module.parameters())

    norms = {
        (None, "embeddings"): squares(model.token_embedding) + squares(model.position_embedding),
        (None, "norms"): sum(squares(m) for m in model.modules() if isinstance(m, nn.LayerNorm)),
    }
    for layer, block in enumerate(model.blocks):
        (attention,) = (m for m in block.modules() if isinstance(m, Attention))
        norms[layer, "attention"] = squares(attention)
        if isinstance(block.ffn, MLP):
            norms[layer, "mlp"] = squares(block.ffn)
            continue
        assert isinstance(block.ffn, MixtureOfExperts)
        norms[layer, "experts"] = squares(block.ffn.experts)
        if block.ffn.shared is not None:
            norms[layer, "shared"] = squares(block.ffn.shared)
        for router in (m for m in block.ffn.children() if not isinstance(m, Experts | MLP | nn.Dropout)):
            if trained(router):
                norms[layer, "router"] = squares(router)
    return {place: square**0.5 for place, square in norms.items()}


def flat(records: list[dict[str, Any]]) -> dict[tuple[int | None, str], float]:
    return {(r.get("layer"), part): r[part] for r in records for part in PARTS if part in r}


@pytest.mark.parametrize("micro_batch", [None, 2])
@pytest.mark.parametrize("name", POINTS)
def test_norms_are_those_of_the_whole_batch_by_autograd_in_float64(tmp_path, name, micro_batch):
    """Before clipping, which leaves a thousandth; targets are left out here and there."""
    config = config_of(tmp_path, POINTS[name], micro_batch=micro_batch, optimizer={"grad_clip": 1e-3})
    config = dataclasses.replace(config, log=dataclasses.replace(config.log, gradients_every=1))
    trainer = trainer_of(config)
    model = copy.deepcopy(trainer.model).double().train()
    batch = trainer.sampler.batch(0)
    loss = model(torch.from_numpy(batch.inputs_BT), torch.from_numpy(batch.targets_BT)).loss
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    found = torch.autograd.grad(loss, parameters, allow_unused=True)
    gradient = {id(p): g for p, g in zip(parameters, found, strict=True) if g is not None}
    trainer.train_step()
    records = trainer.gradients.read()
    assert flat(records) == pytest.approx(by_hand(model, gradient), rel=1e-4, abs=1e-7)
    assert {record["step"] for record in records} == {1}
    for record in (record for record in records if "experts" in record):
        stack = [gradient[id(p)] for p in model.blocks[record["layer"]].ffn.experts.parameters()]
        each = [sum(float((g[e] ** 2).sum()) for g in stack) ** 0.5 for e in range(len(stack[0]))]
        assert record["by_expert"] == pytest.approx(each, rel=1e-4, abs=1e-7)
    whole = sum(value**2 for value in flat(records).values()) ** 0.5
    assert whole == pytest.approx(trainer.losses.read()["grad_norm"], rel=1e-5)


@pytest.mark.parametrize("name", [*TOP_K, *COUNTED, *DENSE])
def test_every_parameter_of_every_point_has_a_part(name):
    routing = (TOP_K | COUNTED | DENSE)[name]
    places = {place_of(parameter) for parameter, _ in GPT(TOY, routing, vocab_size=23).named_parameters()}
    assert not any(part == "other" for _, part in places)
    layers = mixture_layers(routing, TOY.layers)
    assert {layer for layer, part in places if part == "experts"} == set(layers)
    assert {layer for layer, part in places if part == "mlp"} == set(range(TOY.layers)) - set(layers)


def test_images_have_a_head_of_their_own():
    model = ViT(ModelConfig(layers=1, heads=1, width=8, context=4, patch=2), Routing(num_experts=2), classes=3)
    parts = {place_of(name)[1] for name, _ in model.named_parameters()}
    assert parts == {"embeddings", "attention", "router", "experts", "norms", "head"}


def test_an_expert_without_a_token_counts_as_none_and_millions_of_numbers_keep_their_digits():
    model = nn.ModuleDict({"blocks": nn.ModuleList([nn.ModuleDict({"ffn": nn.ModuleDict({})})])})
    model["token_embedding"] = nn.Embedding(100_000, 100)
    experts = Experts(3, width=4, hidden=8, bias=True)
    model["blocks"][0]["ffn"]["experts"] = experts
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 0.3)
    for parameter in experts.parameters():
        parameter.grad[1] = 0.0
    norms = GradientNorms(model)
    norms.take(7)
    whole, layer = norms.read()
    assert whole == {"kind": "gradients", "step": 7, "embeddings": pytest.approx(0.3 * 1e7**0.5, rel=1e-6)}
    each = 0.3 * (2 * 4 * 8 + 8 + 4) ** 0.5
    assert layer["by_expert"] == pytest.approx([each, 0.0, each])
    assert norms.read() == []


@pytest.mark.parametrize("name", ["token top-2 with a shared expert", "merged", "dense"])
def test_recording_changes_no_bit_of_what_is_trained(tmp_path, name):
    states = []
    for every in (0, 1):
        config = config_of(tmp_path, POINTS[name], micro_batch=2)
        trainer = trainer_of(dataclasses.replace(config, log=dataclasses.replace(config.log, gradients_every=every)))
        for _ in range(3):
            trainer.train_step()
        assert bool(trainer.gradients.read()) == bool(every)
        states.append((trainer.losses.read(), trainer.model.state_dict(), trainer.optimizer.state_dict()["state"]))
    assert states[0][0] == states[1][0]
    for one, other in zip(_tensors(states[0]), _tensors(states[1]), strict=True):
        assert torch.equal(one, other)


def _tensors(tree: Any) -> Iterator[Tensor]:
    if isinstance(tree, Tensor):
        yield tree
    elif isinstance(tree, dict | tuple):
        for value in tree.values() if isinstance(tree, dict) else tree:
            yield from _tensors(value)


@pytest.mark.parametrize(("every", "steps"), [(7, [7, 14, 20]), (10, [10, 20]), (0, []), (50, [20])])
def test_norms_are_recorded_after_every_so_many_steps_and_at_the_end(tmp_path, every, steps):
    config = tiny_config(tmp_path, log={"gradients_every": every})
    folder = RunFolder.of(config)
    with doubles(), folder.claim(config):
        folder.start(config.total_steps)
        train(config, folder)
    recorded = [record["step"] for record in folder.metrics() if record["kind"] == "gradients"]
    assert recorded == steps
    assert list(read_gradients(folder)["step"].unique()) == steps
