"""Lazy experts of a run: losses are those of a model whose experts are nothing; findings stay with the run."""

import copy
import dataclasses

import numpy as np
import pytest
import torch

from moe_study.data import open_corpus, validation_batches
from moe_study.design.config import ModelConfig
from moe_study.design.plain import from_plain
from moe_study.design.routing import Routing
from moe_study.errors import ConfigError, StudyError
from moe_study.launch.execute import execute
from moe_study.model.gpt import GPT
from moe_study.posthoc.knockout import lazy as module
from moe_study.posthoc.knockout.lazy import lazy_experts, loss_without, slot_cosines
from moe_study.posthoc.trace import Tracer
from moe_study.runs.folder import RunFolder
from tests.training.doubles import tiny_config

MODEL = ModelConfig(layers=2, heads=2, width=16, context=16, init_std=0.3)
POINTS = {
    "token top-2": {"k": 2},
    "sequence top-1": {"unit": "sequence", "context": "unit_mean", "k": 1},
    "expert choice": {"selection": "expert_choice", "k": 2},
    "soft": {"selection": "soft", "soft": {"slots_per_expert": 3}},
    "chunk-lagged": {"selection": "soft", "soft": {"form": "chunk_lagged", "chunk_length": 4, "slots_per_expert": 2}},
    "across the batch": {"selection": "soft", "soft": {"form": "across_batch", "group_size": 2, "combine": "dispatch"}},
    "merged": {"selection": "merge", "unit": "sequence", "context": "unit_mean", "gate": "softmax_then_pick"},
    "one decision for all": {"k": 2, "scope": "global"},
}  # fmt: skip


def config_of(tmp_path, data, routing):
    config = tiny_config(tmp_path, steps=3, batch_size=4, eval_every=0, eval_tokens=160, eval_batch=4)
    point = from_plain(Routing, {"num_experts": 4} | routing)
    return dataclasses.replace(config, data=data, model=MODEL, routing=point)


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    config = config_of(tmp_path_factory.mktemp("runs"), data, POINTS["sequence top-1"])
    execute(config)
    return RunFolder.of(config)


@pytest.mark.parametrize("name", POINTS)
def test_experts_that_are_dropped_are_experts_whose_weights_are_zero(tmp_path, data, name):
    config, corpus = config_of(tmp_path, data, POINTS[name]), open_corpus(data)
    model = GPT(config.model, config.routing, config.vocab_size).eval()
    tracer = Tracer(model, config, torch.device("cpu"))
    batches = list(validation_batches(corpus.validation, 16, 4, 96))
    gone = {0: [1, 3]} if name == "one decision for all" else {0: [1, 3], 1: [0]}
    empty = copy.deepcopy(model)
    for layer, block in enumerate(empty.blocks):
        for parameter in block.ffn.experts.parameters():
            parameter.data[gone.get(layer, gone[0])] = 0.0
    found = loss_without(tracer, batches, gone)
    whole = loss_without(tracer, batches, {})
    assert found == pytest.approx(loss_without(dataclasses.replace(tracer, model=empty), batches, {}), rel=1e-6)
    assert abs(found - whole) > 1e-4


def test_a_finished_run_is_asked_and_the_whole_models_loss_is_its_result(trained):
    experts, drops = lazy_experts(trained, tokens=160, draws=2, limit=0.5)
    result, activations = trained.result(), trained.read_activations()
    assert drops.iloc[0]["kind"] == "none" and drops.iloc[0]["loss"] == pytest.approx(
        result["validation_loss"], rel=1e-6
    )
    counts = activations.groupby(["layer", "expert"])["count"].sum()
    for row in experts.itertuples():
        assert row.share == pytest.approx(counts[row.layer, row.expert] / counts[row.layer].sum())
    assert drops["kind"].tolist() == ["none", "lazy", "least", "random", "random", "least", "random", "random"]
    assert drops["change"].tolist() == pytest.approx(drops["loss"] - drops.iloc[0]["loss"])
    lazy = drops[drops["kind"] == "lazy"].iloc[0]
    assert lazy["dropped"] == (experts["contribution"] < 0.5).sum()
    share = experts.loc[experts["contribution"] < 0.5, "share"].sum() / 2  # layers
    assert lazy["share"] == pytest.approx(share)


def test_what_was_found_stays_in_the_folder(trained, monkeypatch):
    first = lazy_experts(trained, tokens=32, draws=1)
    monkeypatch.setattr(module, "loss_without", None)
    again = lazy_experts(trained, tokens=32, draws=1)
    assert again.experts.equals(first.experts) and again.drops.equals(first.drops)
    with pytest.raises(TypeError):  # another limit, another question
        lazy_experts(trained, tokens=32, draws=1, limit=0.9)


def test_cosines_of_slots_are_those_of_loops(tmp_path):
    routing = from_plain(Routing, {"selection": "soft", "num_experts": 3, "soft": {"slots_per_expert": 2}})
    layer = GPT(MODEL, routing, 23).blocks[0].ffn
    phi = layer.scores.phi_SD.detach().double().numpy()
    unit = phi / np.linalg.norm(phi, axis=1, keepdims=True)
    for expert, (alike, apart) in enumerate(slot_cosines(layer)):
        own = range(2 * expert, 2 * expert + 2)
        assert alike == pytest.approx(unit[own[0]] @ unit[own[1]])
        others = [unit[slot] @ unit[other] for slot in own for other in set(range(6)) - set(own)]
        assert apart == pytest.approx(np.mean(others))
    layer.scores.phi_SD.data[3] = 2 * layer.scores.phi_SD.data[2]
    assert slot_cosines(layer)[1][0] == pytest.approx(1.0)


def test_one_slot_per_expert_has_no_other_and_discrete_layers_have_none():
    routing = from_plain(Routing, {"selection": "soft", "num_experts": 3, "soft": {"slots_per_expert": 1}})
    assert all(
        np.isnan(alike) and not np.isnan(apart) for alike, apart in slot_cosines(GPT(MODEL, routing, 23).blocks[0].ffn)
    )
    assert slot_cosines(GPT(MODEL, Routing(num_experts=3), 23).blocks[0].ffn) == []


def test_runs_that_cannot_be_asked_say_why(trained, data, tmp_path):
    with pytest.raises(ConfigError, match=r"between 0 and 1, not 1\.5"):
        lazy_experts(trained, limit=1.5)
    config = config_of(tmp_path, data, {"selection": "dense"})
    folder = RunFolder.of(config)
    with folder.claim(config):
        pass
    with pytest.raises(StudyError, match="a dense run has no experts, so none of them is lazy"):
        lazy_experts(folder)
