"""Gradient norms of a finished model: against autograd in float64 batch by batch, and kept with the run."""

import copy
import dataclasses
import itertools

import pytest
import torch

from moe_study.data import open_corpus
from moe_study.data.sampler import TrainSampler
from moe_study.design.config import ModelConfig
from moe_study.design.plain import from_plain
from moe_study.design.routing import Routing
from moe_study.errors import StudyError
from moe_study.posthoc import gradients
from moe_study.posthoc.gradients import PROBE, SEED, gradients_at_end
from moe_study.posthoc.trace import Tracer
from moe_study.runs.findings import all_findings
from moe_study.runs.folder import RunFolder
from moe_study.training import checkpoint
from moe_study.training.models import build_model
from tests.training.doubles import tiny_config

BATCHES = 5
PARTS = {  # by the beginning of a parameter's name
    (-1, "embeddings"): ("token_embedding", "position_embedding"),
    (-1, "norms"): ("norm", "blocks.0.norm", "blocks.1.norm"),
    **{(layer, "attention"): (f"blocks.{layer}.attn",) for layer in (0, 1)},
    **{(layer, "router"): (f"blocks.{layer}.ffn.decider",) for layer in (0, 1)},
    **{(layer, "experts"): (f"blocks.{layer}.ffn.experts",) for layer in (0, 1)},
}


def finished_run(tmp_path, data, **routing):
    """A run that has saved its initial weights as its final ones, with a balancing loss and dropout."""
    config = tiny_config(tmp_path, batch_size=3)
    model = ModelConfig(layers=2, heads=2, width=16, context=16, dropout=0.3, init_std=0.2)
    point = {"num_experts": 4, "unit": "sequence", "context": "unit_mean", "k": 1, "balance": {"switch": 5.0}}
    config = dataclasses.replace(config, data=data, model=model, routing=from_plain(Routing, point | routing))
    folder = RunFolder.of(config)
    with folder.claim(config):
        folder.start(config.total_steps)
        folder.add_provenance(data_fingerprint=open_corpus(data).fingerprint)
        state = {"key": folder.key, "end_of_text": 0, "step": 20, "model": build_model(config, 0).state_dict()}
        checkpoint.save_final(folder.checkpoint_folder, state)
        folder.finish({})
    return folder


def reference(folder, data):
    """Gradients of each batch's language-model loss alone, by name, in float64."""
    model = copy.deepcopy(Tracer.of(folder).model).double()
    sampler = TrainSampler(open_corpus(data).validation, 16, 3, SEED)
    for number in range(BATCHES):
        batch = sampler.batch(number)
        loss = model(torch.from_numpy(batch.inputs_BT.copy()), torch.from_numpy(batch.targets_BT.copy())).loss
        named = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        found = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
        yield {n: torch.zeros_like(p) if g is None else g for (n, p), g in zip(named.items(), found, strict=True)}


def test_norms_and_agreement_are_those_of_the_batches_gradients(tmp_path, data):
    folder = finished_run(tmp_path, data)
    table = gradients_at_end(folder, BATCHES).table.set_index(["layer", "part"])
    batches = list(reference(folder, data))
    assert set(table.index) == set(PARTS) and set(table["step"]) == {20}
    for place, starts in PARTS.items():
        of_part = [
            torch.cat([g.flatten() for name, g in batch.items() if name.startswith(starts)]) for batch in batches
        ]
        square = sum(float(g @ g) for g in of_part) / BATCHES
        pairs = [float(one @ other) for one, other in itertools.combinations(of_part, 2)]
        assert table.loc[place, "norm"] == pytest.approx(square**0.5, rel=1e-4)
        mean = sum(of_part) / BATCHES
        assert table.loc[place, "mean_gradient"] == pytest.approx(float(mean.norm()), rel=1e-4)
        assert table.loc[place, "agreement"] == pytest.approx(sum(pairs) / len(pairs) / square, rel=1e-2, abs=1e-4)


def test_experts_without_a_sequence_in_a_batch_do_not_count_there(tmp_path, data):
    folder = finished_run(tmp_path, data)
    table = gradients_at_end(folder, BATCHES).table.set_index(["layer", "part"])
    for layer in (0, 1):
        start = f"blocks.{layer}.ffn.experts"
        norms = [
            sum(float((g[expert] ** 2).sum()) for name, g in batch.items() if name.startswith(start)) ** 0.5
            for batch in reference(folder, data)
            for expert in range(4)
        ]
        active = [norm for norm in norms if norm > 0]
        assert len(active) < len(norms)  # three sequences cannot reach four experts
        row = table.loc[layer, "experts"]
        assert row["experts"] == 4 and row["active"] == pytest.approx(len(active) / BATCHES)
        assert row["mean_active"] == pytest.approx(sum(active) / len(active), rel=1e-4)


def test_a_frozen_router_has_no_gradient(tmp_path, data):
    table = gradients_at_end(finished_run(tmp_path, data, router_state="frozen"), 2).table
    assert set(table["part"]) == {"embeddings", "norms", "attention", "experts"}


def test_it_is_kept_with_the_run_and_not_measured_twice(tmp_path, data, monkeypatch):
    folder = finished_run(tmp_path, data)
    first = gradients_at_end(folder, 2)
    monkeypatch.setattr(gradients, "measure", None)
    again = gradients_at_end(folder, 2)
    assert again.table.equals(first.table)
    (kept,) = all_findings(folder.findings_folder, "gradients")
    assert kept.identity.probe == PROBE and kept.facts["batches"] == 2
    with pytest.raises(TypeError):  # other batches, another measure
        gradients_at_end(folder, 3)


def test_without_its_text_it_cannot_be_had(tmp_path, data):
    folder = finished_run(tmp_path, data)
    folder.add_provenance(data_fingerprint="0" * 64)
    with pytest.raises(StudyError, match=r"the text that .* was trained on is not here; moe-study prepare"):
        gradients_at_end(folder, 2)
