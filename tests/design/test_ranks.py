"""Which points can be trained by several processes, and how a step is shared."""

import dataclasses
from typing import Any

import pytest

from moe_study.design.config import ModelConfig, RunConfig, RunSettings
from moe_study.design.ranks import Sharing, sharing_of
from moe_study.design.routing import Capacity, ChoiceScope, Group, Routing, Selection, Soft, SoftForm
from moe_study.errors import ConfigError

LOOKS_ACROSS = {
    "expert choice by batch": Routing(selection=Selection.EXPERT_CHOICE, choice_scope=ChoiceScope.BATCH),
    "expert choice by a cutoff": Routing(selection=Selection.EXPERT_CHOICE, choice_scope=ChoiceScope.CUTOFF),
    "capacity of the batch": Routing(capacity=Capacity(factor=1.0, group=Group.BATCH)),
    "shuffled": Routing(shuffle=True),
    "soft across the batch": Routing(selection=Selection.SOFT, soft=Soft(form=SoftForm.ACROSS_BATCH, group_size=4)),
    "router noise": Routing(router_noise=0.1),
}
BY_SEQUENCE = {
    "token": Routing(),
    "dense": Routing(selection=Selection.DENSE),
    "capacity of a sequence": Routing(capacity=Capacity(factor=1.0, group=Group.SEQUENCE)),
    "expert choice by sequence": Routing(selection=Selection.EXPERT_CHOICE, choice_scope=ChoiceScope.SEQUENCE),
    "soft": Routing(selection=Selection.SOFT),
}


def point(routing: Routing = Routing(), *, dropout: float = 0.0, **run: Any) -> RunConfig:  # noqa: B008
    model = ModelConfig(layers=2, heads=2, width=16, context=16, dropout=dropout)
    return RunConfig(model=model, routing=routing, run=RunSettings(**{"batch_size": 8, **run}))


@pytest.mark.parametrize("routing", BY_SEQUENCE.values(), ids=BY_SEQUENCE.keys())
def test_a_micro_batch_whose_sequences_stand_alone_is_split(routing: Routing) -> None:
    assert sharing_of(point(routing), 4) is Sharing.SPLIT


@pytest.mark.parametrize("routing", LOOKS_ACROSS.values(), ids=LOOKS_ACROSS.keys())
def test_a_micro_batch_that_is_looked_at_as_one_stays_whole(routing: Routing) -> None:
    with pytest.raises(ConfigError, match=r"set run.micro_batch=2"):
        sharing_of(point(routing), 4)
    assert sharing_of(point(routing, micro_batch=2), 4) is Sharing.WHOLE


def test_dropout_is_drawn_for_a_micro_batch() -> None:
    with pytest.raises(ConfigError, match=r"model.dropout"):
        sharing_of(point(dropout=0.1), 2)
    assert sharing_of(point(dropout=0.1, micro_batch=4), 2) is Sharing.WHOLE


@pytest.mark.parametrize("routing", [*BY_SEQUENCE.values(), *LOOKS_ACROSS.values()])
def test_one_process_trains_every_point(routing: Routing) -> None:
    assert sharing_of(point(routing, dropout=0.1), 1) is Sharing.WHOLE
    assert sharing_of(dataclasses.replace(point(routing, batch_size=7)), 1) is Sharing.WHOLE


def test_what_cannot_be_shared_evenly_is_refused_with_the_number_that_can() -> None:
    with pytest.raises(ConfigError, match=r"batch_size=8.*3 processes.*multiple"):
        sharing_of(point(), 3)
    with pytest.raises(ConfigError, match=r"run.micro_batch=4"):
        sharing_of(point(batch_size=24, micro_batch=4 * 2), 6)


def test_micro_batches_that_suffice_are_not_split() -> None:
    assert sharing_of(point(micro_batch=2), 2) is Sharing.WHOLE
    assert sharing_of(point(micro_batch=4), 4) is Sharing.SPLIT
