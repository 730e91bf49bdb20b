"""Points of the design space at toy size, shared by the tests of the design and of the mixture layers."""

import dataclasses
from typing import Any

from moe_study.design.config import DataConfig, ModelConfig, RunConfig, RunSettings, TokenizerConfig
from moe_study.design.routing import (
    Balance,
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

VOCABULARY = 257
TOY = ModelConfig(layers=3, heads=2, width=8, context=10, ffn_size=12, vocab_size=VOCABULARY)


def toy(routing: Routing | None = None, **model: Any) -> RunConfig:
    """A run of a toy model over bytes; keywords replace fields of its model."""
    return RunConfig(
        model=dataclasses.replace(TOY, **model),
        routing=routing if routing is not None else Routing(),
        data=DataConfig(tokenizer=TokenizerConfig(kind="bytes")),
        run=RunSettings(steps=1, batch_size=4, eval_batch=4),
    )


SEGMENTS: dict[str, Any] = {"unit": Unit.SEGMENT, "segment_length": 4}  # does not divide the context of 10
SEQUENCE_MEAN: dict[str, Any] = {"unit": Unit.SEQUENCE, "context": Context.UNIT_MEAN}
MIXTRAL: dict[str, Any] = {"k": 2, "gate": Gate.PICK_THEN_SOFTMAX}

# Points whose expert rows a token are K (or N) exactly: what can be counted can be compared to the last unit.
TOP_K: dict[str, Routing] = {
    "top1": Routing(),
    "top2 mixtral": Routing(**MIXTRAL),
    "one expert": Routing(num_experts=1),
    "all experts": Routing(selection=Selection.ALL),
    "top3 sigmoid renormalised": Routing(k=3, gate=Gate.SIGMOID, renormalise=True),
    "sequence double softmax": Routing(**SEQUENCE_MEAN, k=2, gate=Gate.DOUBLE_SOFTMAX),
    "sequence global": Routing(**SEQUENCE_MEAN, **MIXTRAL, scope=Scope.GLOBAL),
    "sequence global in two layers": Routing(**SEQUENCE_MEAN, **MIXTRAL, scope=Scope.GLOBAL, layers=(1, 2)),
    "sequence prefix": Routing(unit=Unit.SEQUENCE, context=Context.PREFIX, prefix_length=3, k=2),
    "sequence first token": Routing(unit=Unit.SEQUENCE, context=Context.FIRST_TOKEN, k=2),
    "running mean": Routing(context=Context.RUNNING_MEAN, k=2),
    "segment mean": Routing(**SEGMENTS, context=Context.UNIT_MEAN, k=2),
    "segment first token": Routing(**SEGMENTS, context=Context.FIRST_TOKEN, k=2),
    "previous segment, prior": Routing(**SEGMENTS, context=Context.PREVIOUS_SEGMENT, k=2),
    "previous segment, own mean": Routing(**SEGMENTS, context=Context.PREVIOUS_SEGMENT, first_segment="own_mean", k=2),
    "label": Routing(unit=Unit.SEQUENCE, context=Context.LABEL, router=RouterKind.LABEL, k=2),
    "label global": Routing(
        unit=Unit.SEQUENCE, context=Context.LABEL, router=RouterKind.LABEL, k=2, scope=Scope.GLOBAL
    ),
    "hash": Routing(router=RouterKind.HASH, k=2),
    "mlp router": Routing(router=RouterKind.MLP, k=2),
    "cosine router": Routing(router=RouterKind.COSINE, num_experts=6, k=2),
    "cosine router of two experts and a prior": Routing(
        **SEGMENTS, context=Context.PREVIOUS_SEGMENT, router=RouterKind.COSINE, num_experts=2
    ),
    "deep mlp router": Routing(router=RouterKind.MLP, router_depth=3, k=2),
    "wide mlp router": Routing(router=RouterKind.MLP, router_depth=2, router_width=1.5, k=2),
    "frozen": Routing(**MIXTRAL, router_state=RouterState.FROZEN),
    "redrawn": Routing(**MIXTRAL, router_state=RouterState.REDRAWN),
    "token global": Routing(**MIXTRAL, scope=Scope.GLOBAL),
    "shared experts": Routing(k=2, shared_experts=2),
    "granular": Routing(num_experts=3, k=2, granularity=4),
    "granular and shared": Routing(num_experts=3, k=1, granularity=3, shared_experts=1),
    "small experts": Routing(num_experts=16, k=4, expert_size=3),
    "wide experts": Routing(num_experts=3, k=1, ffn_multiplier=2.0),
    "every second layer": Routing(k=2, layers="every_second"),
    "some layers": Routing(k=2, layers=(0, 2)),
    "experts by layer": Routing(k=2, num_experts=(2, 5, 3)),
    "experts by listed layer": Routing(k=2, num_experts=(2, 5), layers=(0, 2)),
    "shuffled": Routing(k=2, shuffle=True),
}
# Points whose rows follow from the tokens, and are measured.
COUNTED: dict[str, Routing] = {
    "threshold": Routing(selection=Selection.THRESHOLD, threshold=0.6),
    "threshold with a budget": Routing(selection=Selection.THRESHOLD, threshold_budget=2.0),
    "threshold by sequence": Routing(**SEQUENCE_MEAN, selection=Selection.THRESHOLD, threshold=0.6),
    "positive": Routing(selection=Selection.POSITIVE, gate=Gate.RELU, k=2),
    "positive by sequence": Routing(**SEQUENCE_MEAN, selection=Selection.POSITIVE, k=2),
    "capacity": Routing(k=2, capacity=Capacity(0.6, Priority.BATCH_PRIORITY)),
    "hash with capacity": Routing(k=2, router=RouterKind.HASH, capacity=Capacity(0.6)),
    "granular threshold with capacity": Routing(
        selection=Selection.THRESHOLD, granularity=2, capacity=Capacity(1.0, group=Group.BATCH)
    ),
    **{f"expert choice by {s}": Routing(selection=Selection.EXPERT_CHOICE, choice_scope=s) for s in ChoiceScope},
    "loss-free bias": Routing(balance=Balance(bias_rate=0.01)),
}
DENSE: dict[str, Routing] = {
    "dense": Routing(selection=Selection.DENSE),
    "dense twice as wide": Routing(selection=Selection.DENSE, ffn_multiplier=2.0),
    "dense by size": Routing(selection=Selection.DENSE, expert_size=7),
}
