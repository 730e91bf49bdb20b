"""Declared verdicts against the table of measured facts, row by row."""

from typing import Any

import pytest

from moe_study.design.causality import Verdict, verdict
from moe_study.design.routing import (
    Capacity,
    ChoiceScope,
    Context,
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
