"""The audit reproduces the causality table row by row on the project's own classes."""

import dataclasses

import pytest
import torch

from moe_study.audit.audit import audit, trial
from moe_study.audit.measure import Finding
from moe_study.audit.shrink import shrink
from moe_study.design.causality import verdict_of
from moe_study.design.config import DataConfig, ModelConfig, RunConfig, RunSettings, TokenizerConfig
from moe_study.design.routing import Capacity, Context, Routing, Selection, Unit
from moe_study.design.validation import validate
from tests.audit.table import CAUSAL, OWN, ROWS

NOISE = 1e-11  # far below the tolerance of 1e-8
CHANGE = 1e-2  # far above it


def point(routing: Routing, **model: object) -> RunConfig:
    settings = ModelConfig(layers=4, **model)  # type: ignore[arg-type]
    data = DataConfig(tokenizer=TokenizerConfig("bytes"))
    return RunConfig(model=settings, routing=routing, data=data, run=RunSettings(steps=1))


@pytest.mark.parametrize("name", ROWS)
def test_the_table_is_reproduced(name: str) -> None:
    """A leak shows in a third of single trials, so that an audit misses one with a probability of about 10^-6."""
    routing, expected = ROWS[name]
    config = point(routing)
    validate(config)
    assert verdict_of(config) == expected
    trials = [trial(shrink(config), number) for number in range(6)]
    for column in ("own_future", "others_future", "mixes_batch"):
        found: list[Finding] = [getattr(measured, column) for measured in trials]
        if getattr(expected, column):
            assert sum(finding.leaks for finding in found) >= 2
            assert max(finding.change for finding in found) > CHANGE
        else:
            assert all(finding.change < NOISE for finding in found)
    assert not any(measured.truncation.leaks for measured in trials) or expected.leaks


@pytest.mark.parametrize("name", ["token choice, dropless", "sequence mean", "expert choice at one position"])
def test_document_attention_is_audited_as_it_is(name: str) -> None:
    routing, expected = ROWS[name]
    result = audit(point(routing, document_attention=True), trials=6)
    assert result.measured.verdict == expected
    assert result.agrees


@pytest.mark.parametrize(
    "routing",
    [
        Routing(num_experts=1, unit=Unit.SEQUENCE, context=Context.UNIT_MEAN),
        Routing(unit=Unit.SEGMENT, segment_length=1, context=Context.UNIT_MEAN),
        Routing(k=4, num_experts=4, capacity=Capacity(1.0)),
        Routing(num_experts=1, shuffle=True),
    ],
)
def test_a_leak_that_has_nothing_to_carry_is_none(routing: Routing) -> None:
    validate(point(routing))
    result = audit(point(routing), trials=6)
    assert result.agrees
    assert result.measured.verdict == CAUSAL


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
