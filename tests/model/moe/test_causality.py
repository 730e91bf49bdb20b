"""What reaches position t of a whole model: tokens are replaced, never gradients taken, and logits compared.

The designs that leak must be exactly those whose type declares it. Weights are large, so that decisions are
sharp and flip.
"""

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from moe_study.design.causality import verdict
from moe_study.design.routing import (
    Capacity,
    ChoiceScope,
    Context,
    Gate,
    Group,
    Priority,
    RouterKind,
    RouterState,
    Routing,
    Scope,
    Selection,
    Unit,
)
from moe_study.design.validation import validate
from moe_study.design.verdict import Verdict
from moe_study.model.gpt import GPT
from tests.design.points import MIXTRAL, SEGMENTS, SEQUENCE_MEAN, VOCABULARY, toy
from tests.part import every

LENGTH = 12
PREFIXES = (1, 3, 7, 10)
SEQUENCE_TOP2: dict[str, Any] = SEQUENCE_MEAN | {"k": 2, "gate": Gate.DOUBLE_SOFTMAX}
LABEL: dict[str, Any] = {"unit": Unit.SEQUENCE, "context": Context.LABEL, "router": RouterKind.LABEL, "k": 2}


def choice(scope: ChoiceScope) -> Routing:
    return Routing(selection=Selection.EXPERT_CHOICE, choice_scope=scope)


POINTS = {
    "token top-1": Routing(),
    "token top-2": Routing(**MIXTRAL),
    "token frozen": Routing(**MIXTRAL, router_state=RouterState.FROZEN),
    "token random": Routing(**MIXTRAL, router_state=RouterState.REDRAWN),
    "token global": Routing(**MIXTRAL, scope=Scope.GLOBAL),
    "sequence top-1": Routing(**SEQUENCE_MEAN),
    "sequence top-2": Routing(**SEQUENCE_TOP2),
    "sequence global": Routing(**SEQUENCE_TOP2, scope=Scope.GLOBAL),
    "sequence frozen": Routing(**SEQUENCE_TOP2, router_state=RouterState.FROZEN),
    "sequence random": Routing(**SEQUENCE_TOP2, router_state=RouterState.REDRAWN),
    "language": Routing(**LABEL, scope=Scope.GLOBAL),
    "hash": Routing(router=RouterKind.HASH, k=2),
    "two-layer router": Routing(**MIXTRAL, router=RouterKind.MLP),
    "all experts by a sequence mean": Routing(**SEQUENCE_MEAN, selection=Selection.ALL),
    "running mean": Routing(context=Context.RUNNING_MEAN, k=2),
    "prefix": Routing(unit=Unit.SEQUENCE, context=Context.PREFIX, prefix_length=5, k=2),
    "prefix, global": Routing(unit=Unit.SEQUENCE, context=Context.PREFIX, prefix_length=5, scope=Scope.GLOBAL),
    "first token": Routing(unit=Unit.SEQUENCE, context=Context.FIRST_TOKEN, k=2),
    "segment mean": Routing(**SEGMENTS, context=Context.UNIT_MEAN, k=2),
    "segment's first token": Routing(**SEGMENTS, context=Context.FIRST_TOKEN, k=2),
    "previous segment, prior": Routing(**SEGMENTS, context=Context.PREVIOUS_SEGMENT, k=2),
    "previous segment, as published": Routing(
        **SEGMENTS, context=Context.PREVIOUS_SEGMENT, first_segment="own_mean", k=2
    ),
    "threshold": Routing(selection=Selection.THRESHOLD, threshold=0.7),
    "threshold by a sequence mean": Routing(**SEQUENCE_MEAN, selection=Selection.THRESHOLD, threshold=0.7),
    "loss-free bias": Routing(k=2, balance=dataclasses.replace(Routing().balance, bias_rate=0.1)),
    "shuffled": Routing(k=2, shuffle=True),
    **{f"expert choice by {scope}": choice(scope) for scope in ChoiceScope},
    **{
        f"top-{k} with capacity, {priority}, by {group}": Routing(k=k, capacity=Capacity(0.5, priority, group))
        for k in (1, 2)
        for priority in Priority
        for group in Group
    },
    "threshold with capacity": Routing(
        selection=Selection.THRESHOLD, capacity=Capacity(0.5, Priority.RANK_PROBABILITY)
    ),
}


def sharp_model(routing: Routing) -> GPT:
    config = toy(routing, context=LENGTH, layers=2)
    validate(config)
    gpt = GPT(config.model, routing, VOCABULARY).double().eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in gpt.named_parameters():
            scale = 3.0 if "router" in name else 0.3
            parameter.copy_(scale * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return gpt


def tokens(trial: int) -> Tensor:
    return torch.randint(VOCABULARY, (3, LENGTH), generator=torch.Generator().manual_seed(trial))


def logits_of(gpt: GPT, tokens_BT: Tensor) -> Tensor:
    with torch.no_grad():
        logits_BTV = gpt(tokens_BT, label_B=torch.arange(len(tokens_BT)) % 2).logits_BTV
    assert logits_BTV is not None
    return logits_BTV


def moved(one: Tensor, other: Tensor) -> bool:
    return bool((one - other).abs().max() > 1e-9)


def measured(gpt: GPT, trials: int) -> Verdict:
    """What reached either of the first two sequences in any of `trials`.

    Where places go by position the first one sees no other, and the last one may never get any.
    """
    found = Verdict()
    for trial in range(trials):
        base_BT, new_BT = tokens(trial), tokens(trial + 1000)
        base = logits_of(gpt, base_BT)
        for b in (0, 1):
            own_B1 = (torch.arange(len(base_BT)) == b).unsqueeze(1)
            for t in PREFIXES:
                later_T = torch.arange(LENGTH) >= t
                own = logits_of(gpt, torch.where(own_B1 & later_T, new_BT, base_BT))[b]
                others = logits_of(gpt, torch.where(~own_B1 & later_T, new_BT, base_BT))[b]
                assert moved(own[t:], base[b, t:])  # the test can see a change
                found |= Verdict(moved(own[:t], base[b, :t]), moved(others[:t], base[b, :t]))
            others = logits_of(gpt, torch.where(own_B1, base_BT, new_BT))[b]
            found |= Verdict(mixes_batch=moved(others, base[b]))
    return found


@pytest.mark.parametrize("trials", [1, pytest.param(3, marks=pytest.mark.long)])
@pytest.mark.parametrize("point", every(2, POINTS))
def test_what_leaks_is_exactly_what_is_declared_to(point: str, trials: int) -> None:
    assert measured(sharp_model(POINTS[point]), trials) == verdict(POINTS[point], LENGTH)


CAUSAL = [name for name, routing in POINTS.items() if verdict(routing, LENGTH) == Verdict()]
LENGTH_MATTERS = [name for name, routing in POINTS.items() if verdict(routing, LENGTH) == Verdict(own_future=True)]


@pytest.mark.parametrize("point", CAUSAL)
def test_a_truncated_input_gives_the_beginning_of_the_whole_one(point: str) -> None:
    gpt = sharp_model(POINTS[point])
    whole = logits_of(gpt, tokens(0))
    for t in range(1, LENGTH):
        torch.testing.assert_close(logits_of(gpt, tokens(0)[:, :t]), whole[:, :t], rtol=0, atol=1e-9)


@pytest.mark.parametrize("point", LENGTH_MATTERS)
def test_truncation_shows_the_leak_of_those_that_read_ahead(point: str) -> None:
    gpt = sharp_model(POINTS[point])
    whole = logits_of(gpt, tokens(0))
    assert any(moved(logits_of(gpt, tokens(0)[:, :t]), whole[:, :t]) for t in range(1, LENGTH))


def test_the_paper_s_designs_that_leak_are_those_by_sequence_mean() -> None:
    paper = ["token top-1", "token top-2", "token frozen", "token random", "language"]
    assert not any(verdict(POINTS[name], LENGTH).leaks for name in paper)
    assert all(verdict(POINTS[name], LENGTH).own_future for name in POINTS if name.startswith("sequence "))
