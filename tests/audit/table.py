"""The causality table: routings with what was measured of them in float64, independently of this project's code.

Columns: does a change of this row's later tokens, of other rows' later tokens, or of other rows altogether,
reach a position?
"""

from moe_study.design.routing import (
    Balance,
    Capacity,
    ChoiceScope,
    Context,
    Gate,
    Group,
    Priority,
    RouterKind,
    Routing,
    Scope,
    Selection,
    Soft,
    SoftForm,
    SoftWeights,
    Unit,
)
from moe_study.design.verdict import Verdict

CAUSAL = Verdict()
OWN = Verdict(own_future=True)
MIXES = Verdict(mixes_batch=True)
OTHERS = Verdict(others_future=True, mixes_batch=True)
EVERYTHING = Verdict(True, True, True)


def choice(scope: ChoiceScope) -> Routing:
    return Routing(selection=Selection.EXPERT_CHOICE, choice_scope=scope, k=2, num_experts=8)


def limited(k: int, priority: Priority, group: Group = Group.SEQUENCE) -> Routing:
    return Routing(k=k, num_experts=8, capacity=Capacity(1.25, priority, group))


def positive(**axes: object) -> Routing:
    return Routing(**({"selection": Selection.POSITIVE, "gate": Gate.RELU, "k": 2} | axes))  # type: ignore[arg-type]


def xmoe(priority: Priority, group: Group = Group.SEQUENCE) -> Routing:
    capacity = Capacity(8.0, priority, group, minimum=4)
    return Routing(selection=Selection.THRESHOLD, num_experts=64, capacity=capacity)


def sequence(context: Context, **axes: object) -> Routing:
    return Routing(unit=Unit.SEQUENCE, context=context, **axes)  # type: ignore[arg-type]


def segment(context: Context, **axes: object) -> Routing:
    return Routing(unit=Unit.SEGMENT, segment_length=16, context=context, **axes)  # type: ignore[arg-type]


def soft(form: SoftForm, **settings: object) -> Routing:
    return Routing(selection=Selection.SOFT, num_experts=8, soft=Soft(form, **settings))  # type: ignore[arg-type]


def merged(unit: Unit, context: Context, **axes: object) -> Routing:
    return Routing(selection=Selection.MERGE, unit=unit, context=context, **axes)  # type: ignore[arg-type]


ROWS: dict[str, tuple[Routing, Verdict]] = {
    "dense": (Routing(selection=Selection.DENSE), CAUSAL),
    "every expert": (Routing(selection=Selection.ALL), CAUSAL),
    "token choice, dropless": (Routing(k=2, gate=Gate.PICK_THEN_SOFTMAX), CAUSAL),
    "token choice, loss-free bias": (Routing(k=2, num_experts=8, balance=Balance(bias_rate=1e-3)), CAUSAL),
    "token choice by a hash": (Routing(k=2, router=RouterKind.HASH), CAUSAL),
    "threshold, dropless": (Routing(selection=Selection.THRESHOLD, num_experts=64), CAUSAL),
    "positive scores (ReMoE)": (positive(), CAUSAL),
    "positive scores, a capacity token by token": (positive(capacity=Capacity(1.25)), CAUSAL),
    "positive scores, first choices first, K=1": (
        positive(capacity=Capacity(1.25, Priority.CHOICE_MAJOR), k=1, num_experts=8),
        OWN,
    ),
    "threshold held to a budget": (
        Routing(selection=Selection.THRESHOLD, num_experts=64, threshold_budget=8.0),
        CAUSAL,
    ),
    "expert choice over the sequence": (choice(ChoiceScope.SEQUENCE), OWN),
    "expert choice over the batch": (choice(ChoiceScope.BATCH), EVERYTHING),
    "expert choice at one position": (choice(ChoiceScope.POSITION), MIXES),
    "expert choice by a cutoff": (choice(ChoiceScope.CUTOFF), CAUSAL),
    "capacity, K=1, by position": (limited(1, Priority.TOKEN_MAJOR), CAUSAL),
    "capacity, K=1, first choices first": (limited(1, Priority.CHOICE_MAJOR), CAUSAL),
    "capacity, K=2, first choices first": (limited(2, Priority.CHOICE_MAJOR), OWN),
    "capacity, K=2, token by token": (limited(2, Priority.TOKEN_MAJOR), CAUSAL),
    "capacity, batch priority, K=1": (limited(1, Priority.BATCH_PRIORITY), OWN),
    "capacity, batch priority, K=2": (limited(2, Priority.BATCH_PRIORITY), OWN),
    "capacity over the batch, K=1": (limited(1, Priority.TOKEN_MAJOR, Group.BATCH), OTHERS),
    "capacity over the batch, K=2": (limited(2, Priority.TOKEN_MAJOR, Group.BATCH), OTHERS),
    "capacity over the batch, first choices first": (limited(2, Priority.CHOICE_MAJOR, Group.BATCH), EVERYTHING),
    "XMoE's capacity": (xmoe(Priority.RANK_PROBABILITY), OWN),
    "XMoE's capacity over the batch": (xmoe(Priority.RANK_PROBABILITY, Group.BATCH), EVERYTHING),
    "XMoE's threshold, capacity token by token": (xmoe(Priority.TOKEN_MAJOR), CAUSAL),
    "sequence mean": (sequence(Context.UNIT_MEAN), OWN),
    "sequence mean, one decision for all layers": (sequence(Context.UNIT_MEAN, scope=Scope.GLOBAL), OWN),
    "sequence by its label": (sequence(Context.LABEL, router=RouterKind.LABEL, k=2), CAUSAL),
    "sequence by its first token": (sequence(Context.FIRST_TOKEN), CAUSAL),
    "sequence by its prefix": (sequence(Context.PREFIX, prefix_length=16), CAUSAL),
    "segment mean": (segment(Context.UNIT_MEAN), OWN),
    "segment by its first token": (segment(Context.FIRST_TOKEN), CAUSAL),
    "previous segment, as published": (segment(Context.PREVIOUS_SEGMENT, first_segment="own_mean"), OWN),
    "previous segment, learned prior": (segment(Context.PREVIOUS_SEGMENT), CAUSAL),
    "running mean": (Routing(context=Context.RUNNING_MEAN), CAUSAL),
    "shuffled decisions": (Routing(shuffle=True), EVERYTHING),
    "shuffled labels": (sequence(Context.LABEL, router=RouterKind.LABEL, shuffle=True), MIXES),
    "shuffled first tokens": (sequence(Context.FIRST_TOKEN, shuffle=True), MIXES),
    "Soft MoE over the sequence": (soft(SoftForm.SEQUENCE), OWN),
    "Soft MoE inside each chunk": (soft(SoftForm.CHUNK, chunk_length=16), OWN),
    "Soft MoE, chunk-lagged": (soft(SoftForm.CHUNK_LAGGED, chunk_length=16), CAUSAL),
    "Soft MoE over the prefix": (soft(SoftForm.PREFIX), CAUSAL),
    "Soft MoE, uniform weights": (
        soft(SoftForm.SEQUENCE, dispatch=SoftWeights.UNIFORM, combine=SoftWeights.UNIFORM),
        OWN,
    ),
    "Soft MoE, token i is slot i": (
        soft(SoftForm.SEQUENCE, slots_per_expert=16, dispatch=SoftWeights.IDENTITY, combine=SoftWeights.IDENTITY),
        CAUSAL,
    ),
    "Mixture of Tokens": (
        soft(SoftForm.ACROSS_BATCH, group_size=4, combine=SoftWeights.DISPATCH, normalise=False),
        MIXES,
    ),
    "merged by the sequence mean (SMEAR)": (merged(Unit.SEQUENCE, Context.UNIT_MEAN), OWN),
    "merged by the running mean": (merged(Unit.TOKEN, Context.RUNNING_MEAN), CAUSAL),
    "merged by the previous segment (Lory)": (
        merged(Unit.SEGMENT, Context.PREVIOUS_SEGMENT, segment_length=16, first_segment="own_mean"),
        OWN,
    ),
    "merged by the previous segment, learned prior": (
        merged(Unit.SEGMENT, Context.PREVIOUS_SEGMENT, segment_length=16),
        CAUSAL,
    ),
}
