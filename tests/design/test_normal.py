"""One spelling for each run: two that train the same have one key."""

import dataclasses

import pytest
from hypothesis import given, settings

from moe_study.design.accounting import num_params
from moe_study.design.config import RunConfig, TokenizerConfig
from moe_study.design.identity import point_of
from moe_study.design.matching import Match, resolve_match
from moe_study.design.normal import normalised
from moe_study.design.plain import with_values
from moe_study.design.routing import (
    Balance,
    Capacity,
    Choices,
    Context,
    Gate,
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
from moe_study.design.unused import unused
from moe_study.design.validation import problems, validate
from tests.design.keyed import DENSE_ROUTING, DIGITS, changed, hub_parquet, local_files
from tests.design.points import toy
from tests.points import examples, points

TWO_SPELLINGS: dict[str, tuple[RunConfig, ...]] = {
    "hidden units by default or by number": (changed(model__ffn_size=None), changed(model__ffn_size=32)),
    "initial deviation by default or by number": (changed(), changed(model__init_std=0.02 * 96**0.5)),
    "micro-batch by default or by number": (changed(), changed(run__micro_batch=4)),
    "vocabulary by default or by number": (changed(model__vocab_size=None), changed(model__vocab_size=257)),
    "size of an expert by default or by number": (changed(), changed(routing__expert_size=12)),
    "size of an expert by factor or by number": (
        changed(routing__ffn_multiplier=2.0),
        changed(routing__expert_size=24),
    ),
    "one number of experts or a list": (changed(), changed(routing__num_experts=(4, 4, 4))),
    "all layers or a list": (changed(), changed(routing__layers=(0, 1, 2))),
    "every second layer or a list": (changed(routing__layers="every_second"), changed(routing__layers=(1,))),
    "steps or tokens": (changed(run__steps=3), changed(run__steps=None, run__tokens=120)),
    "steps or rounded tokens": (changed(run__steps=3), changed(run__steps=None, run__tokens=101)),
    "a vocabulary that gpt2 does not ask for": (
        changed(data__tokenizer=TokenizerConfig("gpt2"), model__vocab_size=None),
        changed(data__tokenizer=TokenizerConfig("gpt2", 50257), model__vocab_size=None),
    ),
    "split experts or small ones": (
        changed(routing__num_experts=3, routing__k=2, routing__granularity=4),
        changed(routing__num_experts=12, routing__k=8, routing__expert_size=3),
    ),
    "split experts by layer": (
        changed(routing__num_experts=(2, 3, 2), routing__granularity=2),
        changed(routing__num_experts=(4, 6, 4), routing__k=2, routing__expert_size=6),
    ),
    "a dense network by its own size or the model's": (
        changed(routing=DENSE_ROUTING, model__ffn_size=24),
        changed(routing=dataclasses.replace(DENSE_ROUTING, ffn_multiplier=2.0)),
    ),
    "experts everywhere by their own size or the model's": (
        changed(model__ffn_size=24),
        changed(model__ffn_size=12, routing__ffn_multiplier=2.0),
    ),
    "a dense model with settings of mixtures": (
        changed(routing=DENSE_ROUTING),
        changed(
            routing=Routing(
                Selection.DENSE, Unit.SEGMENT, 4, Context.PREFIX, 3, k=3, num_experts=(8, 2), scope=Scope.GLOBAL,
                router=RouterKind.HASH, router_state=RouterState.FROZEN, shuffle=True, threshold_budget=2.0,
                gate=Gate.SIGMOID, renormalise=True, granularity=5, shared_experts=1, layers=(0,),
                capacity=Capacity(1.0, Priority.BATCH_PRIORITY), balance=Balance(0.1, 0.1, 0.1),
                soft=Soft(SoftForm.PREFIX, 3),
            )
        ),
    ),
    "a threshold where the best K are taken": (changed(), changed(routing__threshold=0.5)),
    "K where a threshold decides": tuple(
        changed(routing=Routing(selection=Selection.THRESHOLD, k=k, choice_scope="batch")) for k in (1, 3)
    ),
    "depth of a router without depth": (changed(), changed(routing__router_depth=3)),
    "width of a router without hidden layers": (changed(), changed(routing__router_width=2.0)),
    "a label that nobody reads": (changed(), changed(routing__label="topic")),
    "gate of a hash": tuple(
        changed(routing=Routing(router=RouterKind.HASH, gate=gate)) for gate in (Gate.SIGMOID, Gate.SOFTMAX_THEN_PICK)
    ),
    "priority without a capacity": (changed(), changed(routing__capacity__priority=Priority.BATCH_PRIORITY)),
    "what balance is counted over without balance": (changed(), changed(routing__balance__scope="batch")),
    "what balance is counted over in one micro-batch": (
        changed(routing__balance__switch=0.1),
        changed(routing__balance__switch=0.1, routing__balance__scope="batch"),
    ),
    "which choices balance counts without balance": tuple(
        changed(routing__k=2, routing__balance=Balance(choices=choices)) for choices in (None, *Choices)
    ),
    "which choices balance counts of one": tuple(
        changed(routing__balance=Balance(switch=0.1, choices=choices)) for choices in (None, *Choices)
    ),
    "which choices balance counts of one under a low threshold": tuple(
        changed(routing=Routing(Selection.THRESHOLD, threshold=0.2, balance=Balance(switch=0.1, choices=choices)))
        for choices in (None, *Choices)
    ),
    "which choices balance counts by itself, or as it is said": tuple(
        changed(routing__k=2, routing__balance=Balance(switch=0.1, choices=choices)) for choices in (None, Choices.ALL)
    ),
    "which choices balance counts at a threshold by itself, or as it is said": tuple(
        changed(routing=Routing(Selection.THRESHOLD, balance=Balance(switch=0.1, choices=choices)))
        for choices in (None, Choices.FIRST)
    ),
    "the scope of one decision": (
        changed(routing__layers=(1,)),
        changed(routing__layers=(1,), routing__scope=Scope.GLOBAL),
    ),
    "slots without softness": (changed(), changed(routing__soft=Soft(SoftForm.CHUNK, 2, 4))),
    "state of a router that uniform slots lack": tuple(
        changed(
            routing=Routing(
                Selection.SOFT, router_state=state, soft=Soft(dispatch=SoftWeights.UNIFORM, combine=SoftWeights.UNIFORM)
            )
        )
        for state in (RouterState.LEARNED, RouterState.FROZEN)
    ),
    "how a dense model dispatches": (
        changed(routing=DENSE_ROUTING),
        changed(routing=DENSE_ROUTING, run__dispatch="grouped"),
    ),
    "an evaluation that never comes": (changed(run__steps=3), changed(run__steps=3, run__eval_every=3)),
    "a part of a window": (changed(run__eval_tokens=40), changed(run__eval_tokens=49)),
    "the tokenizer of images": (DIGITS, with_values(DIGITS, {"data.tokenizer": TokenizerConfig("gpt2")})),
    "where the data lies": (changed(), changed(data__root="/elsewhere")),
    "where the texts lie": tuple(changed(**local_files(path=path)) for path in ("/here", "/there")),
    "options by default or spelled out": (
        changed(**local_files(path="/here")),
        changed(**local_files(path="/here", pattern="**/*", folders=["_"], topic=" unknown ", separator=None)),
    ),
    "where the files of a source lie": tuple(changed(**hub_parquet(folder=folder)) for folder in ("/here", "/there")),
    "what is printed": (changed(), changed(log__log_every=1, log__threads=7, log__wandb="offline", log__sweep="x")),
    "a whole number for a fraction": (changed(optimizer__grad_clip=2.0), changed(optimizer__grad_clip=2)),
    "a list for a tuple": (changed(), changed(optimizer__betas=[0.9, 0.95])),
    "options in another order": (
        changed(data__options={"limits": {"en_news": 1, "de_parliament": 2}}),
        changed(data__options={"limits": {"de_parliament": 2, "en_news": 1}}),
    ),
}


@pytest.mark.parametrize("name", TWO_SPELLINGS)
def test_two_spellings_of_one_run_have_one_key(name: str) -> None:
    one, *others = TWO_SPELLINGS[name]
    for other in others:
        assert one.key == other.key and point_of(one) == point_of(other)
        assert num_params(one) == num_params(other)


@pytest.mark.parametrize("quantity", ["total_params", "active_params", "flops"])
def test_a_matched_twin_is_the_dense_model_of_that_size(quantity: str) -> None:
    twin, _ = resolve_match(toy(Routing(k=2, num_experts=8)), Match(quantity))
    size = twin.routing.expert_size
    assert size is not None
    assert twin.key == toy(DENSE_ROUTING, ffn_size=size).key
    assert twin.key == toy(dataclasses.replace(DENSE_ROUTING, ffn_multiplier=size / 12)).key


def test_a_matched_number_of_experts_is_that_number() -> None:
    wanted = num_params(toy(Routing(num_experts=7)))
    solved, _ = resolve_match(toy(), Match("total_params", "num_experts", wanted))
    assert solved.key == toy(Routing(num_experts=7)).key != toy().key


@settings(max_examples=examples(100), deadline=None)
@given(points())
def test_the_one_spelling_of_a_run_is_valid_has_its_key_and_is_its_own(config: RunConfig) -> None:
    if list(problems(config)):
        return
    normal = normalised(config)
    validate(normal)
    assert normalised(normal) == normal
    assert normal.key == config.key
    assert num_params(normal) == num_params(config)
    assert {name for name in unused(config) if name != "routing.ffn_multiplier"} <= set(unused(normal))
