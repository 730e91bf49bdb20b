"""The audit reproduces the causality table row by row on the project's own classes."""

import dataclasses

import pytest
import torch

from moe_study.audit.audit import audit, trial
from moe_study.audit.measure import Finding
from moe_study.audit.shrink import shrink
from moe_study.design.causality import verdict_of
from moe_study.design.config import DataConfig, ModelConfig, RunConfig, RunSettings, TokenizerConfig
from moe_study.design.routing import (
    Capacity,
    ChoiceScope,
    Context,
    Group,
    Priority,
    RouterKind,
    Routing,
    Selection,
    Unit,
)
from moe_study.design.validation import validate
from moe_study.design.verdict import Verdict
from tests.audit.table import CAUSAL, EVERYTHING, MIXES, OTHERS, OWN, ROWS, sequence
from tests.part import every

NOISE = 1e-11  # far below the tolerance of 1e-8
CHANGE = 1e-2  # far above it


def point(routing: Routing, **model: object) -> RunConfig:
    settings = ModelConfig(layers=4, **model)  # type: ignore[arg-type]
    data = DataConfig(tokenizer=TokenizerConfig("bytes"))
    return RunConfig(model=settings, routing=routing, data=data, run=RunSettings(steps=1))


def few_or(many: int) -> pytest.MarkDecorator:
    """Half the trials in `make test`, all of them in `make test-all`."""
    return pytest.mark.parametrize("trials", [many // 2, pytest.param(many, marks=pytest.mark.long)])


@few_or(6)
@pytest.mark.parametrize("name", every(3, ROWS))
def test_the_table_is_reproduced(name: str, trials: int) -> None:
    """A leak shows in a third of single trials, so that an audit misses one with a probability of about 10^-6."""
    routing, expected = ROWS[name]
    config = point(routing)
    validate(config)
    assert verdict_of(config) == expected
    made = [trial(shrink(config), number) for number in range(trials)]
    for column in ("own_future", "others_future", "mixes_batch"):
        found: list[Finding] = [getattr(measured, column) for measured in made]
        if getattr(expected, column):
            assert sum(finding.leaks for finding in found) >= trials // 3
            assert max(finding.change for finding in found) > CHANGE
        else:
            assert all(finding.change < NOISE for finding in found)
    assert not any(measured.truncation.leaks for measured in made) or expected.leaks


@pytest.mark.parametrize("name", ["token choice, dropless", "sequence mean", "expert choice at one position"])
def test_document_attention_is_audited_as_it_is(name: str) -> None:
    routing, expected = ROWS[name]
    result = audit(point(routing, document_attention=True), trials=6)
    assert result.measured.verdict == expected
    assert result.agrees


EXPERT_CHOICE = Routing(selection=Selection.EXPERT_CHOICE)
FIRST_CHOICES, LIKELY = Priority.CHOICE_MAJOR, Priority.RANK_PROBABILITY


NOTHING_TO_CARRY_IT = [
    (Routing(num_experts=1, unit=Unit.SEQUENCE, context=Context.UNIT_MEAN), 128),
    (Routing(unit=Unit.SEGMENT, segment_length=1, context=Context.UNIT_MEAN), 128),
    (Routing(k=4, num_experts=4, capacity=Capacity(1.0)), 128),
    (Routing(num_experts=1, shuffle=True), 128),
    (Routing(router=RouterKind.HASH, k=4, num_experts=4, shuffle=True), 128),
    (Routing(router=RouterKind.HASH, k=24, num_experts=24, shuffle=True), 128),
    (sequence(Context.LABEL, router=RouterKind.LABEL, k=4, shuffle=True), 128),
    (Routing(selection=Selection.THRESHOLD, threshold=0.0, capacity=Capacity(1.0, FIRST_CHOICES)), 128),
    (Routing(selection=Selection.THRESHOLD, threshold=0.1, capacity=Capacity(1.0, FIRST_CHOICES)), 128),
    (Routing(capacity=Capacity(0.5, LIKELY, minimum=128)), 128),
    (Routing(capacity=Capacity(3.9, LIKELY)), 10),
    (Routing(num_experts=1, capacity=Capacity(0.5, LIKELY)), 128),
    (Routing(k=4, capacity=Capacity(0.5, group=Group.BATCH)), 128),
    (dataclasses.replace(EXPERT_CHOICE, num_experts=16, k=15), 10),
    (dataclasses.replace(EXPERT_CHOICE, num_experts=200, k=199), 128),
    (sequence(Context.UNIT_MEAN), 1),
]


@few_or(6)
@pytest.mark.parametrize(("routing", "context"), every(2, NOTHING_TO_CARRY_IT))
def test_a_leak_that_has_nothing_to_carry_it_is_none(routing: Routing, context: int, trials: int) -> None:
    config = point(routing, context=context)
    validate(config)
    result = audit(config, trials)
    assert result.agrees
    assert result.measured.verdict == CAUSAL


ALLOWED_BY_SIZES = [
    (Routing(router=RouterKind.HASH, k=3, shuffle=True), 128, EVERYTHING),
    (Routing(selection=Selection.THRESHOLD, threshold=0.3, capacity=Capacity(1.0, FIRST_CHOICES)), 128, OWN),
    (
        Routing(selection=Selection.THRESHOLD, threshold=0.1, num_experts=64, capacity=Capacity(8, FIRST_CHOICES)),
        128,
        OWN,
    ),
    (Routing(capacity=Capacity(0.5, LIKELY, minimum=9)), 10, OWN),
    (Routing(capacity=Capacity(3.9, LIKELY)), 128, OWN),
    (Routing(k=3, capacity=Capacity(0.5, group=Group.BATCH)), 128, OTHERS),
    (dataclasses.replace(EXPERT_CHOICE, num_experts=16, k=15), 24, OWN),
    (dataclasses.replace(EXPERT_CHOICE, num_experts=9, k=8, choice_scope=ChoiceScope.POSITION), 24, MIXES),
    (sequence(Context.UNIT_MEAN, num_experts=(1, 1, 1, 4)), 128, OWN),
    (sequence(Context.PREFIX, prefix_length=1, shuffle=True), 128, MIXES),
    (sequence(Context.PREFIX, prefix_length=2, shuffle=True), 128, EVERYTHING),
]


@few_or(12)
@pytest.mark.parametrize(("routing", "context", "expected"), every(2, ALLOWED_BY_SIZES))
def test_a_leak_that_sizes_allow_is_declared_and_measured(
    routing: Routing, context: int, expected: Verdict, trials: int
) -> None:
    """The neighbours of those above."""
    config = point(routing, context=context)
    validate(config)
    result = audit(config, trials)
    assert result.declared == expected == result.measured.verdict
    assert result.agrees


@pytest.mark.parametrize(("routing", "expected"), [(Routing(shuffle=True), OWN), (Routing(), CAUSAL)])
def test_a_run_of_single_sequences_is_audited_with_one(routing: Routing, expected: Verdict) -> None:
    config = point(routing)
    alone = dataclasses.replace(config, run=dataclasses.replace(config.run, batch_size=1, eval_batch=1))
    result = audit(alone, trials=6)
    assert result.agrees and result.measured.verdict == expected


def test_the_first_position_that_leaked_is_reported() -> None:
    """The published first segment leaks inside itself only, from its first position on."""
    routing = ROWS["previous segment, as published"][0]
    assert audit(point(routing), trials=6).measured.first_leak == 0
    assert audit(point(Routing()), trials=2).measured.first_leak is None


def test_a_wrong_declaration_is_a_disagreement() -> None:
    result = audit(point(ROWS["sequence mean"][0]), trials=4)
    assert not dataclasses.replace(result, declared=CAUSAL).agrees
    result = audit(point(Routing(selection=Selection.ALL)), trials=4)
    assert not dataclasses.replace(result, declared=OWN).agrees


def test_an_audit_leaves_the_random_stream_alone_and_gives_the_same_twice() -> None:
    """Noise and shuffles of the warm-up have a stream of their own."""
    small = shrink(point(Routing(router_noise=0.5, shuffle=True)))
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = trial(small, 0)
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(6)
    assert trial(small, 0) == first
