"""Declared verdicts against the table of measured facts, row by row."""

import dataclasses
from typing import Any

import pytest

from moe_study.design.causality import decides_alone, verdict, verdict_of
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
    Soft,
    SoftForm,
    SoftWeights,
    Unit,
)
from moe_study.design.verdict import Verdict
from tests.audit.table import ROWS
from tests.design.points import toy

CONTEXT = 64
NOTHING = (False, False, False)
OWN = (True, False, False)
OTHERS_AND_BATCH = (False, True, True)
BATCH = (False, False, True)
ALL_THREE = (True, True, True)


def soft(form: SoftForm, **kwargs: Any) -> Routing:
    return Routing(selection=Selection.SOFT, soft=Soft(form=form, **kwargs))


def choice(scope: ChoiceScope) -> Routing:
    return Routing(selection=Selection.EXPERT_CHOICE, choice_scope=scope, k=2)


def capacity(k: int, priority: Priority, group: Group = Group.SEQUENCE, **kwargs: Any) -> Routing:
    limit = Capacity(factor=1.0, priority=priority, group=group)
    return Routing(k=k, capacity=limit, **kwargs)


def segment(context: Context, **kwargs: Any) -> Routing:
    return Routing(unit=Unit.SEGMENT, segment_length=4, context=context, **kwargs)


def sequence(context: Context, **kwargs: Any) -> Routing:
    return Routing(unit=Unit.SEQUENCE, context=context, **kwargs)


MEASURED = {
    "Soft MoE over the sequence": (soft(SoftForm.SEQUENCE), OWN),
    "Soft MoE inside each chunk": (soft(SoftForm.CHUNK, chunk_length=4), OWN),
    "Soft MoE over the prefix": (soft(SoftForm.PREFIX), NOTHING),
    "Soft MoE chunk-lagged": (soft(SoftForm.CHUNK_LAGGED, chunk_length=4), NOTHING),
    "Mixture of Tokens": (soft(SoftForm.ACROSS_BATCH, group_size=2), BATCH),
    "expert choice over the sequence": (choice(ChoiceScope.SEQUENCE), OWN),
    "expert choice over the flattened batch": (choice(ChoiceScope.BATCH), ALL_THREE),
    "expert choice at one position": (choice(ChoiceScope.POSITION), BATCH),
    "expert choice with a moving cutoff": (choice(ChoiceScope.CUTOFF), NOTHING),
    "token choice, dropless": (Routing(k=2), NOTHING),
    "threshold, dropless": (Routing(selection=Selection.THRESHOLD), NOTHING),
    "capacity, K=1, by position": (capacity(1, Priority.CHOICE_MAJOR), NOTHING),
    "capacity, K=2, first choices before second": (capacity(2, Priority.CHOICE_MAJOR), OWN),
    "capacity, K=2, token by token": (capacity(2, Priority.TOKEN_MAJOR), NOTHING),
    "capacity, threshold, choice-major": (
        capacity(1, Priority.CHOICE_MAJOR, selection=Selection.THRESHOLD), OWN
    ),
    "capacity, K=1 split into two": (capacity(1, Priority.CHOICE_MAJOR, granularity=2), OWN),
    "XMoE's priority": (capacity(1, Priority.RANK_PROBABILITY), OWN),
    "batch-priority routing": (capacity(1, Priority.BATCH_PRIORITY), OWN),
    "capacity over the flattened batch": (capacity(1, Priority.TOKEN_MAJOR, Group.BATCH), OTHERS_AND_BATCH),
    "batch priority over the flattened batch": (capacity(1, Priority.BATCH_PRIORITY, Group.BATCH), ALL_THREE),
    "sequence mean": (sequence(Context.UNIT_MEAN), OWN),
    "sequence mean, global": (sequence(Context.UNIT_MEAN, scope=Scope.GLOBAL), OWN),
    "sequence mean, frozen": (sequence(Context.UNIT_MEAN, router_state=RouterState.FROZEN), OWN),
    "SMEAR": (sequence(Context.UNIT_MEAN, selection=Selection.MERGE), OWN),
    "all experts by a sequence mean": (sequence(Context.UNIT_MEAN, selection=Selection.ALL), OWN),
    "merging by the running mean": (
        Routing(selection=Selection.MERGE, context=Context.RUNNING_MEAN), NOTHING
    ),
    "segment mean": (segment(Context.UNIT_MEAN), OWN),
    "previous segment, as published": (segment(Context.PREVIOUS_SEGMENT, first_segment="own_mean"), OWN),
    "previous segment, learned prior": (segment(Context.PREVIOUS_SEGMENT), NOTHING),
    "segment's first token": (segment(Context.FIRST_TOKEN), NOTHING),
    "running mean": (Routing(context=Context.RUNNING_MEAN), NOTHING),
    "prefix, routed by a prior": (sequence(Context.PREFIX, prefix_length=3), NOTHING),
    "sequence's first token": (sequence(Context.FIRST_TOKEN), NOTHING),
    "given label": (sequence(Context.LABEL, router=RouterKind.LABEL), NOTHING),
    "hash of the token": (Routing(router=RouterKind.HASH), NOTHING),
    "dense": (Routing(selection=Selection.DENSE), NOTHING),
    "shuffled decisions": (Routing(shuffle=True), ALL_THREE),
    "leaking context with a capacity over the batch": (
        segment(Context.UNIT_MEAN, capacity=Capacity(factor=1.0, group=Group.BATCH)), ALL_THREE
    ),
}  # fmt: skip


@pytest.mark.parametrize("row", MEASURED)
def test_a_point_declares_what_was_measured(row: str) -> None:
    routing, (own_future, others_future, mixes_batch) = MEASURED[row]
    assert verdict(routing, CONTEXT) == Verdict(own_future, others_future, mixes_batch)


@pytest.mark.parametrize(
    ("dispatch", "combine", "leaks"),
    [
        (SoftWeights.IDENTITY, SoftWeights.IDENTITY, False),
        (SoftWeights.SOFT, SoftWeights.IDENTITY, True),
        (SoftWeights.IDENTITY, SoftWeights.SOFT, True),
        (SoftWeights.UNIFORM, SoftWeights.UNIFORM, True),
    ],
)
def test_soft_slots_leak_unless_token_i_is_slot_i(dispatch: SoftWeights, combine: SoftWeights, leaks: bool) -> None:
    assert verdict(soft(SoftForm.SEQUENCE, dispatch=dispatch, combine=combine), CONTEXT).own_future is leaks


def test_a_verdict_leaks_when_later_tokens_are_read_wherever_they_stand() -> None:
    assert [Verdict(*v).leaks for v in (NOTHING, OWN, OTHERS_AND_BATCH, BATCH, ALL_THREE)] == [
        False, True, True, False, True,
    ]  # fmt: skip


@pytest.mark.parametrize(
    "routing",
    [
        Routing(unit=Unit.SEGMENT, segment_length=1, context=Context.UNIT_MEAN),
        Routing(unit=Unit.SEGMENT, segment_length=1, context=Context.PREVIOUS_SEGMENT, first_segment="own_mean"),
        soft(SoftForm.CHUNK, chunk_length=1),
    ],
)
def test_a_mean_over_one_token_is_the_token_s_own(routing: Routing) -> None:
    assert verdict(routing, CONTEXT) == Verdict()


def test_a_group_of_one_sequence_mixes_nothing() -> None:
    assert verdict(soft(SoftForm.ACROSS_BATCH, group_size=1), CONTEXT) == Verdict()


def test_shuffled_labels_are_those_of_other_sequences() -> None:
    shuffled = sequence(Context.LABEL, router=RouterKind.LABEL, shuffle=True)
    assert verdict(shuffled, CONTEXT) == Verdict(mixes_batch=True)


LABEL: dict[str, Any] = {"unit": Unit.SEQUENCE, "context": Context.LABEL, "router": RouterKind.LABEL}
POSITIVE: dict[str, Any] = {"selection": Selection.POSITIVE}
IN_ORDER, FIRST, LIKELY = Priority.TOKEN_MAJOR, Priority.CHOICE_MAJOR, Priority.RANK_PROBABILITY


def limited(factor: float, priority: Priority, minimum: int = 1, **kwargs: Any) -> Routing:
    return Routing(capacity=Capacity(factor, priority, minimum=minimum), **kwargs)


def batch_wide(factor: float, priority: Priority = IN_ORDER, minimum: int = 1, **kwargs: Any) -> Routing:
    return Routing(capacity=Capacity(factor, priority, Group.BATCH, minimum), **kwargs)


def thresholded(t: float, **kwargs: Any) -> Routing:
    return limited(1.0, FIRST, selection=Selection.THRESHOLD, threshold=t, **kwargs)


def chosen(scope: ChoiceScope, experts: int, k: int) -> Routing:
    return Routing(selection=Selection.EXPERT_CHOICE, choice_scope=scope, num_experts=experts, k=k)


# Leaks that sizes rule out, each beside its neighbour that has one: (routing, context, sequences), what reaches.
BY_SIZE: dict[str, tuple[tuple[Routing, int, int | None], tuple[bool, bool, bool]]] = {
    "hash of every expert, shuffled": ((Routing(router=RouterKind.HASH, k=4, shuffle=True), 10, None), NOTHING),
    "hash of all but one, shuffled": ((Routing(router=RouterKind.HASH, k=3, shuffle=True), 10, None), ALL_THREE),
    "label of every expert, shuffled": ((Routing(**LABEL, k=4, shuffle=True), 10, None), NOTHING),
    "label of all but one, shuffled": ((Routing(**LABEL, k=3, shuffle=True), 10, None), BATCH),
    "every scored expert, shuffled": ((Routing(k=4, shuffle=True), 10, None), ALL_THREE),
    "threshold 0 takes one": ((thresholded(0.0), 10, None), NOTHING),
    "threshold 1/N takes one": ((thresholded(0.25), 10, None), NOTHING),
    "threshold above 1/N": ((thresholded(0.3), 10, None), OWN),
    "threshold 1/N in one layer, above it in another": ((thresholded(0.25, num_experts=(4, 8)), 10, None), OWN),
    "threshold 0 that a budget moves": ((thresholded(0.0, threshold_budget=1.5), 10, None), OWN),
    "minimum of all tokens": ((limited(0.5, LIKELY, minimum=10), 10, None), NOTHING),
    "minimum of all but one": ((limited(0.5, LIKELY, minimum=9), 10, None), OWN),
    "minimum of a sequence, over a batch": ((batch_wide(0.5, minimum=10), 10, 2), OTHERS_AND_BATCH),
    "minimum of a whole batch": ((batch_wide(0.5, minimum=20), 10, 2), NOTHING),
    "rounded up to all tokens": ((limited(3.9, LIKELY), 10, None), NOTHING),
    "rounded up to fewer": ((limited(3.9, LIKELY), 100, None), OWN),
    "rounded up to all tokens of a sequence, over a batch": ((batch_wide(3.9), 10, 16), OTHERS_AND_BATCH),
    "one expert in order of probability": ((limited(0.5, LIKELY, num_experts=1), 10, None), NOTHING),
    "two experts in order of probability": ((limited(0.5, LIKELY, num_experts=2), 10, None), OWN),
    "every token asks every expert, in order, over a batch": ((batch_wide(0.5, k=4), 10, None), NOTHING),
    "all but one, in order, over a batch": ((batch_wide(0.5, k=3), 10, None), OTHERS_AND_BATCH),
    "every token asks every expert, first choices first": ((limited(0.5, FIRST, k=4), 10, None), OWN),
    "a batch of one sequence": ((batch_wide(0.5), 10, 1), NOTHING),
    "a batch of one sequence, by probability": ((batch_wide(0.5, LIKELY), 10, 1), OWN),
    "expert choice, more experts than tokens": ((chosen(ChoiceScope.SEQUENCE, 16, 15), 10, None), NOTHING),
    "expert choice, as many as tokens": ((chosen(ChoiceScope.SEQUENCE, 10, 9), 10, None), OWN),
    "expert choice over a batch of more tokens": ((chosen(ChoiceScope.BATCH, 16, 15), 10, None), ALL_THREE),
    "expert choice over a batch of fewer": ((chosen(ChoiceScope.BATCH, 32, 31), 10, 3), NOTHING),
    "expert choice at a position, fewer sequences": ((chosen(ChoiceScope.POSITION, 9, 8), 10, 8), NOTHING),
    "expert choice at a position, more sequences": ((chosen(ChoiceScope.POSITION, 9, 8), 10, 9), BATCH),
    "one segment by its first token, shuffled": ((segment(Context.FIRST_TOKEN, shuffle=True), 4, None), BATCH),
    "two segments by their first tokens, shuffled": ((segment(Context.FIRST_TOKEN, shuffle=True), 5, None), ALL_THREE),
    "one segment by the prior, shuffled": ((segment(Context.PREVIOUS_SEGMENT, shuffle=True), 4, None), NOTHING),
    "two segments, one by the prior, shuffled": ((segment(Context.PREVIOUS_SEGMENT, shuffle=True), 5, None), ALL_THREE),
    "prefix of one token, shuffled": ((sequence(Context.PREFIX, prefix_length=1, shuffle=True), 10, None), BATCH),
    "prefix of two tokens, shuffled": ((sequence(Context.PREFIX, prefix_length=2, shuffle=True), 10, None), ALL_THREE),
    "windows of one token": ((sequence(Context.UNIT_MEAN), 1, None), NOTHING),
    "windows of one token, shuffled": ((Routing(shuffle=True), 1, None), BATCH),
    "one sequence, shuffled": ((Routing(shuffle=True), 10, 1), OWN),
    "one expert in one layer, four in another": ((sequence(Context.UNIT_MEAN, num_experts=(1, 4)), 10, None), OWN),
    "one expert that is taken or not": ((sequence(Context.UNIT_MEAN, num_experts=1, **POSITIVE), 10, 2), OWN),
    "one pick on average, first choices first": ((limited(1.0, FIRST, **POSITIVE), 10, None), OWN),
    "all picks on average, in order, over a batch": ((batch_wide(0.5, k=4, **POSITIVE), 10, None), OTHERS_AND_BATCH),
    "one expert of any weight": ((sequence(Context.UNIT_MEAN, num_experts=1, gate=Gate.SIGMOID), 10, 2), OWN),
}


@pytest.mark.parametrize("row", BY_SIZE)
def test_a_leak_that_sizes_rule_out_is_not_declared(row: str) -> None:
    (routing, context, sequences), expected = BY_SIZE[row]
    assert verdict(routing, context, sequences) == Verdict(*expected)


def test_the_largest_pass_of_a_run_decides() -> None:
    """A limit over the batch binds in training on 16 sequences, though not in evaluation on one."""
    config = toy(batch_wide(0.5))
    alone = dataclasses.replace(config.run, batch_size=1, eval_batch=1)
    assert verdict_of(dataclasses.replace(config, run=alone)) == Verdict()
    for changes in ({"batch_size": 16}, {"eval_batch": 16}, {"batch_size": 4, "micro_batch": 2}):
        run = dataclasses.replace(alone, **changes)
        assert verdict_of(dataclasses.replace(config, run=run)) == Verdict(*OTHERS_AND_BATCH)
    accumulated = dataclasses.replace(alone, batch_size=4, micro_batch=1)
    assert verdict_of(dataclasses.replace(config, run=accumulated)) == Verdict()


def test_which_tokens_decide_alone() -> None:
    """Whether that is so is seen where texts are gone on with (tests/model/test_cache.py); here, that nobody is kept
    from it."""
    alone = {name for name, (routing, _) in ROWS.items() if decides_alone(routing)}
    assert alone == {
        "dense",
        "every expert",
        "token choice, dropless",
        "token choice, loss-free bias",
        "token choice by a hash",
        "threshold, dropless",
        "positive scores (ReMoE)",
        "threshold held to a budget",
        "expert choice by a cutoff",
    }
