from dataclasses import replace

import pytest
import torch

from bench import step
from bench.layer import COMPARISONS, ROWS, Setting, loaded, measure, planted_picks
from bench.sides import PRECISIONS, VOCABULARY, dense, kept_per_expert, mixture, twin_hidden
from moe_study.design.accounting import flops_per_token
from moe_study.design.config import DataConfig, RunConfig, RunSettings, TokenizerConfig
from moe_study.design.routing import RouterKind, Routing, Scope, Selection
from moe_study.design.validation import validate

SMALL = Setting(sequences=2, length=64)


def run_config(routing: Routing, layers: int = 1) -> RunConfig:
    data = DataConfig(tokenizer=TokenizerConfig("gpt2"))
    return RunConfig(model=Setting().model(layers), routing=routing, data=data, run=RunSettings(steps=1))


def test_every_row_is_a_point_of_the_design_space() -> None:
    for routing in ROWS.values():
        validate(run_config(routing, layers=2))


def test_the_dense_twin_has_the_active_flops_of_the_layer_apart_from_its_router() -> None:
    for name, routing in ROWS.items():
        twin = Routing(selection=Selection.DENSE, expert_size=twin_hidden(routing, Setting()))
        more = flops_per_token(run_config(routing)) - flops_per_token(run_config(twin))
        scores = routing.router is RouterKind.LINEAR
        router = 2 * Setting.width * int(routing.num_experts) * scores  # type: ignore[arg-type]
        assert 0 <= more <= router, name


def test_planted_picks_are_distinct_and_as_uneven_as_asked() -> None:
    for busy, load in ((1, 1.0), (4, 4.0)):
        picks_NK = planted_picks(busy, tokens=4096, experts=64)
        assert all(len(set(row)) == 8 for row in picks_NK.tolist())
        count_E = picks_NK.flatten().bincount(minlength=64).double()
        assert count_E[:8].mean() / count_E.mean() == load


def test_the_router_of_a_loaded_layer_takes_the_planted_picks() -> None:
    setting = Setting(sequences=8)
    for busy in (1, 4):
        expected_E = planted_picks(busy, setting.tokens, 64).flatten().bincount(minlength=64)
        assert torch.equal(kept_per_expert(loaded(busy, setting)), expected_E)


@pytest.mark.long
def test_a_row_of_skew_says_how_uneven_the_load_was() -> None:
    loads = measure("skew 4:1 over balanced", 1, Setting(sequences=8))["busiest_over_mean"]
    assert loads["uneven"] == 4.0
    assert 1.0 <= loads["even"] < 1.2  # the busiest of 64 equally likely ones


@pytest.mark.long
def test_threshold_layers_keep_about_as_many_experts_as_asked() -> None:
    row = measure("threshold 2 over 8", 1, SMALL)
    assert abs(row["kept_per_token"] - 2) < 0.1 and abs(row["kept_per_token_of_twin"] - 8) < 0.1


@pytest.mark.long
def test_every_row_runs() -> None:
    few = Setting(sequences=2, length=32, width=32, dense_hidden=64)
    for name in ROWS:
        row = measure(name, 1, few)
        assert row["low"] > 0 and row["rounds"] == 1, name
    assert set(COMPARISONS) == {"threshold 2 over 8", "skew 4:1 over balanced"}


def test_one_call_runs_both_passes_and_its_gradients_do_not_pile_up() -> None:
    side = mixture(ROWS["8x2"], SMALL)
    side()
    once = [parameter.grad.clone() for parameter in side.module.parameters() if parameter.grad is not None]
    side()
    assert len(once) == len(list(side.module.parameters()))
    for first, parameter in zip(once, side.module.parameters(), strict=True):
        assert parameter.grad is not None
        torch.testing.assert_close(first, parameter.grad)


def test_global_routing_is_timed_over_two_layers_of_which_one_decides() -> None:
    side = mixture(ROWS["64x8 global"], SMALL)
    routers = [name for name, _ in side.module.named_parameters() if "router" in name]
    assert ROWS["64x8 global"].scope is Scope.GLOBAL and len(routers) == 1
    assert len(dense(64, SMALL, layers=2).module.layers) == 2  # type: ignore[arg-type]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_layers_run_in_every_precision_and_keep_their_weights_type(precision: str) -> None:
    setting = replace(SMALL, precision=precision)
    for side in (mixture(ROWS["8x2"], setting), dense(64, setting)):
        side()
        stored = {parameter.dtype for parameter in side.module.parameters()}
        assert stored == {torch.bfloat16 if precision == "pure_bf16" else torch.float32}
        assert all(parameter.grad is not None for parameter in side.module.parameters())


def test_both_benchmarks_use_the_same_vocabulary() -> None:
    assert step.run_config(ROWS["8x1"], step.Setting()).vocab_size == VOCABULARY
