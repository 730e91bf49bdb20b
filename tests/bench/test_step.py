from dataclasses import replace

import pytest
import torch

from bench import step
from bench.step import Setting, compare, dense_twin, kept_per_token, over_dense, routings, run_config, trainer_of
from moe_study.design.accounting import flops_per_token
from moe_study.design.config import ModelConfig
from moe_study.design.routing import Selection

TINY = ModelConfig(layers=2, heads=2, width=32, context=16, vocab_size=50304)
HIDDEN = TINY.hidden
SETTING = Setting(batch=2)


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step, "model_config", lambda name: TINY)


@pytest.mark.long
def test_every_row_runs_and_says_how_many_experts_a_token_had() -> None:
    for name, routing in routings(HIDDEN).items():
        row = over_dense(routing, 1, SETTING)
        assert row["low"] > 0, name
        if routing.selection is Selection.TOP_K:
            assert row["kept_per_token"] == routing.k, name


def test_the_twin_has_the_same_active_flops() -> None:
    routing = routings(HIDDEN)["64x8"]
    config = run_config(routing, SETTING)
    twin = replace(config, routing=dense_twin(8, routing))
    router = TINY.layers * 2 * TINY.width * 64
    assert flops_per_token(config) - flops_per_token(twin) <= router
    assert twin.routing.expert_size == HIDDEN


def test_a_thresholds_twin_is_as_wide_as_the_experts_that_it_keeps() -> None:
    routing = routings(HIDDEN)["64 threshold"]
    first = trainer_of(routing, SETTING)
    first.train_step()
    picks = kept_per_token(first)
    assert 1 < picks < 64
    assert over_dense(routing, 1, SETTING)["twin"]["expert_size"] == round(picks * (HIDDEN // 8))


def test_a_step_moves_every_weight_of_both_sides() -> None:
    for routing in (routings(HIDDEN)["8x1"], dense_twin(8, routings(HIDDEN)["64x8"])):
        trainer = trainer_of(routing, SETTING)
        before = {name: value.detach().clone() for name, value in trainer.model.named_parameters()}
        trainer.train_step()
        same = [name for name, value in trainer.model.named_parameters() if torch.equal(before[name], value)]
        assert same == []


def test_any_routing_can_stand_over_any_other() -> None:
    rows = routings(HIDDEN)
    assert compare(rows["512x8"], rows["64x8"], 1, SETTING)["twin"]["num_experts"] == 64
