"""Every leaking routing has causal relatives, and they change only what leaks."""

from dataclasses import replace

import pytest

from moe_study.audit.audit import audit
from moe_study.design.causal_relatives import causal_relatives, difference
from moe_study.design.causality import verdict
from moe_study.design.config import DataConfig, ModelConfig, RunConfig, RunSettings, TokenizerConfig
from moe_study.design.routing import Capacity, Context, Group, Priority, Routing, Selection, Unit
from moe_study.design.validation import validate
from tests.audit.table import ROWS
from tests.part import every

CONTEXT = 128
LEAKING = [name for name, (_, expected) in ROWS.items() if expected.leaks]
SMEAR = ROWS["merged by the sequence mean (SMEAR)"][0]


def point(routing: Routing) -> RunConfig:
    data = DataConfig(tokenizer=TokenizerConfig("bytes"))
    return RunConfig(model=ModelConfig(context=CONTEXT), routing=routing, data=data, run=RunSettings(steps=1))


@pytest.mark.parametrize("name", LEAKING)
def test_a_leaking_routing_has_relatives_that_are_valid_and_read_no_later_token(name: str) -> None:
    routing, _ = ROWS[name]
    relatives = causal_relatives(routing, CONTEXT)
    assert relatives
    for relative in relatives:
        validate(point(relative))
        assert not verdict(relative, CONTEXT).leaks
        assert difference(routing, relative)


@pytest.mark.parametrize("trials", [1, pytest.param(3, marks=pytest.mark.long)])
@pytest.mark.parametrize("name", every(2, LEAKING))
def test_the_relatives_are_measured_to_be_causal(name: str, trials: int) -> None:
    for relative in causal_relatives(ROWS[name][0], CONTEXT):
        assert audit(point(relative), trials).agrees


@pytest.mark.parametrize("name", [name for name in ROWS if name not in LEAKING])
def test_what_does_not_leak_has_none(name: str) -> None:
    assert causal_relatives(ROWS[name][0], CONTEXT) == []


def test_the_sequence_mean_is_replaced_by_the_running_mean_the_first_token_and_a_prefix() -> None:
    routing = Routing(unit=Unit.SEQUENCE, context=Context.UNIT_MEAN, k=2)
    assert [difference(routing, relative) for relative in causal_relatives(routing, CONTEXT)] == [
        "routing.unit=token routing.context=running_mean",
        "routing.context=first_token",
        "routing.context=prefix routing.prefix_length=16",
    ]


def test_axes_that_do_not_leak_are_kept() -> None:
    routing = replace(SMEAR, num_experts=6, shared_experts=1)
    for relative in causal_relatives(routing, CONTEXT):
        assert (relative.selection, relative.num_experts, relative.shared_experts) == (Selection.MERGE, 6, 1)


def test_two_leaks_are_mended_together() -> None:
    capacity = Capacity(1.0, Priority.BATCH_PRIORITY, Group.BATCH)
    routing = Routing(shuffle=True, num_experts=8, capacity=capacity)
    changes = [difference(routing, relative) for relative in causal_relatives(routing, CONTEXT)]
    assert changes == [
        "routing.shuffle=false routing.capacity.factor=null",
        "routing.shuffle=false routing.capacity.priority=token_major routing.capacity.group=sequence",
    ]
