"""The small configuration that is audited stands for the large one: valid, with the same declared verdict."""

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, assume, given, settings

from moe_study.audit.shrink import WINDOW, batch_sizes, shrink
from moe_study.design.causality import verdict_of
from moe_study.design.config import DataConfig, ModelConfig, RunConfig, RunSettings, TokenizerConfig
from moe_study.design.routing import (
    Capacity,
    Context,
    Routing,
    Selection,
    Soft,
    SoftForm,
    SoftWeights,
    Unit,
    mixture_layers,
)
from moe_study.design.validation import problems, validate
from tests.audit.table import ROWS
from tests.points import examples, points


def large(routing: Routing, **model: object) -> RunConfig:
    settings = {"layers": 12, "heads": 12, "width": 768, "context": 1024} | model
    return RunConfig(
        model=ModelConfig(**settings),  # type: ignore[arg-type]
        routing=routing,
        data=DataConfig(tokenizer=TokenizerConfig("gpt2")),
        run=RunSettings(steps=1, batch_size=12, eval_batch=12),
    )


def validate_but_data(small: RunConfig) -> None:
    """Everything but the tokenizer, which has fewer ids than any real one: an audit draws them and reads no text."""
    validate(replace(small, data=DataConfig(tokenizer=TokenizerConfig("bytes"))))


@pytest.mark.parametrize("name", [name for name in ROWS if "slot i" not in name])
def test_a_large_point_becomes_a_small_valid_one_of_the_same_verdict(name: str) -> None:
    routing, _ = ROWS[name]
    small = shrink(large(routing))
    validate_but_data(small)
    assert verdict_of(small) == verdict_of(large(routing))
    assert small.model.context <= 32 and small.model.width <= 16


@settings(max_examples=examples(100), derandomize=True, suppress_health_check=[HealthCheck.filter_too_much])
@given(points())
def test_every_valid_point_shrinks_to_a_valid_one_of_the_same_verdict(config: RunConfig) -> None:
    assume(next(problems(config), None) is None)
    small = shrink(config)
    validate_but_data(small)
    assert verdict_of(small) == verdict_of(config)
    for rows in batch_sizes(small):
        assert rows % (small.routing.soft.group_size or 1) == 0


@pytest.mark.parametrize(
    ("length", "context", "whole"), [(64, 1024, True), (100, 1024, False), (2, 16, True), (3, 16, False)]
)
def test_segments_keep_more_than_one_token_and_their_remainder(length: int, context: int, whole: bool) -> None:
    routing = Routing(unit=Unit.SEGMENT, segment_length=length, context=Context.FIRST_TOKEN)
    small = shrink(large(routing, context=context))
    size = small.routing.segment_length
    assert size is not None and 2 <= size <= small.model.context // 2
    assert (small.model.context % size == 0) is whole


def test_a_segment_of_one_token_stays_one() -> None:
    routing = Routing(unit=Unit.SEGMENT, segment_length=1, context=Context.UNIT_MEAN)
    assert shrink(large(routing)).routing.segment_length == 1


@pytest.mark.parametrize(("factor", "binds"), [(1.25, True), (8.0, True), (31.9, True), (32.0, False), (64.0, False)])
def test_a_capacity_binds_where_the_large_one_can(factor: float, binds: bool) -> None:
    """32 experts' worth of tokens is all of them when N is 64 and K is 2."""
    small = shrink(large(Routing(num_experts=64, k=2, capacity=Capacity(factor))))
    limit = small.routing.capacity.factor
    assert limit is not None and isinstance(small.routing.num_experts, int)
    assert (limit * small.routing.k < small.routing.num_experts) is binds


def test_picks_are_kept_and_experts_are_capped() -> None:
    small = shrink(large(Routing(k=2, num_experts=1024, granularity=2))).routing
    assert (small.k, small.num_experts, small.granularity) == (4, 8, 1)
    assert shrink(large(Routing(k=2, num_experts=2))).routing.num_experts == 2


@pytest.mark.parametrize(
    ("layers", "depth", "expected"),
    [("all", 12, (0, 1)), ("every_second", 12, (1, 2)), ((11,), 12, (1,)), ((0, 5), 6, (0, 1)), ("all", 1, (0,))],
)
def test_the_order_of_dense_and_mixture_blocks_is_kept(
    layers: str | tuple[int, ...], depth: int, expected: tuple[int, ...]
) -> None:
    small = shrink(large(Routing(layers=layers), layers=depth))
    assert mixture_layers(small.routing, small.model.layers) == expected


def test_identity_slots_fill_the_small_window() -> None:
    soft = Soft(SoftForm.SEQUENCE, 4, dispatch=SoftWeights.IDENTITY, combine=SoftWeights.SOFT)
    routing = Routing(selection=Selection.SOFT, num_experts=256, soft=soft)
    small = shrink(large(routing))
    validate_but_data(small)
    assert small.routing.num_experts == WINDOW // 4


def test_a_soft_group_is_kept_a_group() -> None:
    soft = Soft(SoftForm.ACROSS_BATCH, group_size=12)
    small = shrink(large(Routing(selection=Selection.SOFT, soft=soft)))
    assert small.routing.soft.group_size == 3
    single = replace(soft, group_size=1)
    assert shrink(large(Routing(selection=Selection.SOFT, soft=single))).routing.soft.group_size == 1
