"""What results say of causality and of executed work, those of older versions included."""

import pytest

from moe_study.design.accounting import flops_per_token, num_active_params
from moe_study.design.routing import Capacity, Routing
from moe_study.runs import stored_config
from moe_study.runs.folder import RunFolder
from moe_study.runs.result import causality_of, executed_costs
from tests.design.points import toy

CAUSAL = {"own_future": False, "others_future": False, "mixes_batch": False}


@pytest.mark.parametrize("leak", ["own_future", "others_future"])
def test_a_declared_or_a_measured_leak_is_enough(leak):
    leaking = {**CAUSAL, leak: True}
    assert not causality_of({"causality": CAUSAL, "causality_measured": CAUSAL}).leaks
    assert causality_of({"causality": leaking, "causality_measured": CAUSAL}).leaks
    assert causality_of({"causality": CAUSAL, "causality_measured": leaking}).leaks
    assert causality_of({"causality": leaking}).leaks  # older results have no measured one
    mixed = causality_of({"causality": {**CAUSAL, "mixes_batch": True}})
    assert mixed.mixes_batch and not mixed.leaks


@pytest.fixture
def folder(tmp_path):
    config = toy(Routing(num_experts=(2, 5, 3), capacity=Capacity(0.6)))
    folder = RunFolder(tmp_path / config.key)
    folder.path.mkdir()
    stored_config.write(folder.config_file, config)
    return folder, config


def test_executed_costs_of_an_older_result_follow_from_its_rates_layer_by_layer(folder):
    run, config = folder
    rates = {"0": 0.9, "1": 0.6, "2": 0.3}
    older = {"num_active_params": 9.0, "flops_per_token": 9.0, "kept_per_token": rates, "executed_per_token": rates}
    found = executed_costs(run, older)
    by_layer = {0: 0.9, 1: 0.6, 2: 0.3}
    assert found["executed_flops_per_token"] == flops_per_token(config, by_layer) < flops_per_token(config)
    assert found["executed_active_params"] == num_active_params(config, by_layer) < num_active_params(config)


def test_what_a_result_states_is_taken_and_what_cannot_be_known_is_nominal(folder):
    run, _ = folder
    stated = {"executed_active_params": 3.0, "executed_flops_per_token": 4.0}
    assert executed_costs(run, {**stated, "num_active_params": 9.0, "flops_per_token": 9.0}) == stated
    nominal = {"executed_active_params": 8.0, "executed_flops_per_token": 9.0}
    dense = {"num_active_params": 8.0, "flops_per_token": 9.0, "kept_per_token": {}, "executed_per_token": {}}
    assert executed_costs(run, dense) == nominal
    run.config_file.write_text("[]")
    rates = {key: {"0": 1.0, "1": 1.0, "2": 1.0} for key in ("kept_per_token", "executed_per_token")}
    assert executed_costs(run, {**dense, **rates}) == nominal


def test_rates_that_lack_a_layer_are_not_guessed_at(folder):
    run, _config = folder
    rates = {key: {"0": 1.0} for key in ("kept_per_token", "executed_per_token")}
    older = {"num_active_params": 8.0, "flops_per_token": 9.0, **rates}
    assert executed_costs(run, older) == {"executed_active_params": 8.0, "executed_flops_per_token": 9.0}
