"""Refusals: each with a sentence that names what to change; and whatever is let through can be counted."""

import dataclasses
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moe_study.design.accounting import flops_per_token, num_active_params, num_params
from moe_study.design.causality import verdict_of
from moe_study.design.config import (
    DataConfig,
    Embeddings,
    LogConfig,
    OptimizerConfig,
    RunConfig,
    RunSettings,
    TokenizerConfig,
)
from moe_study.design.routing import (
    Balance,
    Capacity,
    Choices,
    ChoiceScope,
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
from moe_study.design.validation import problems, validate
from moe_study.errors import ConfigError
from tests.design.points import DENSE, TOP_K, toy
from tests.points import examples

SEQUENCE: dict[str, Any] = {"unit": Unit.SEQUENCE, "context": Context.UNIT_MEAN}
SEGMENT: dict[str, Any] = {"unit": Unit.SEGMENT, "segment_length": 4, "context": Context.UNIT_MEAN}
PREVIOUS: dict[str, Any] = SEGMENT | {"context": Context.PREVIOUS_SEGMENT}
PREFIX: dict[str, Any] = {"unit": Unit.SEQUENCE, "context": Context.PREFIX, "prefix_length": 3}
LABEL: dict[str, Any] = {"unit": Unit.SEQUENCE, "context": Context.LABEL, "router": RouterKind.LABEL}
HASH: dict[str, Any] = {"router": RouterKind.HASH}
THRESHOLD: dict[str, Any] = {"selection": Selection.THRESHOLD}
CHOICE: dict[str, Any] = {"selection": Selection.EXPERT_CHOICE}
MERGE: dict[str, Any] = {"selection": Selection.MERGE}
SOFT: dict[str, Any] = {"selection": Selection.SOFT}
ALL_CHOICES = Balance(switch=0.01, choices=Choices.ALL)
NAN = math.nan

BAD_ROUTING: list[tuple[dict[str, Any], str]] = [
    ({"num_experts": 0}, "routing.num_experts=0 must be at least 1"),
    ({"num_experts": (2, 0, 2)}, "must be at least 1"),
    ({"num_experts": ()}, "must be at least 1"),
    ({"granularity": 0}, "routing.granularity=0 must be at least 1"),
    ({"granularity": 5}, "routing.granularity=5 must divide the expert's 12 hidden units"),
    ({"granularity": 24}, "must divide the expert's 12 hidden units"),
    ({"expert_size": 0}, "the expert's 0 hidden units"),
    ({"ffn_multiplier": -1.0}, "hidden units"),
    ({"shared_experts": -1}, "routing.shared_experts=-1 must not be negative"),
    ({"layers": "odd"}, "routing.layers=odd must be all, every_second or a list"),
    ({"layers": ()}, "leaves no mixture in 3 blocks"),
    ({"layers": (0, 3)}, "must name blocks from 0 to 2"),
    ({"layers": (-1,)}, "must name blocks from 0 to 2"),
    ({"layers": (2, 0)}, "routing.layers=[2, 0] must be in ascending order, each block once"),
    ({"layers": (1, 1)}, "must be in ascending order, each block once"),
    ({"num_experts": (2, 2)}, "lists 2 numbers for 3 mixture layers"),
    ({"num_experts": (2, 3, 2), "scope": Scope.GLOBAL}, "routing.scope=global needs the same routing.num_experts"),
    ({"context": Context.UNIT_MEAN}, "unit=token cannot read routing.context=unit_mean; choose one of own"),
    ({"unit": Unit.SEQUENCE}, "unit=sequence cannot read routing.context=own"),
    ({"unit": Unit.SEGMENT, "segment_length": 4}, "unit=segment cannot read routing.context=own"),
    (SEGMENT | {"segment_length": None}, "routing.segment_length goes with routing.unit=segment"),
    (SEQUENCE | {"segment_length": 4}, "routing.segment_length goes with routing.unit=segment"),
    (SEGMENT | {"segment_length": 0}, "routing.segment_length=0 must be at least 1"),
    (PREFIX | {"prefix_length": None}, "routing.prefix_length goes with routing.context=prefix"),
    ({"prefix_length": 3}, "routing.prefix_length goes with routing.context=prefix"),
    (PREFIX | {"prefix_length": 10}, "routing.prefix_length=10 must lie between 1 and model.context - 1"),
    (PREFIX | {"prefix_length": 0}, "must lie between 1 and"),
    (PREVIOUS | {"first_segment": "zero"}, "routing.first_segment=zero is unknown; choose one of prior, own_mean"),
    (SEGMENT | {"first_segment": "own_mean"}, "first_segment goes with routing.context=previous_segment"),
    (SEQUENCE | {"router": RouterKind.LABEL}, "routing.router=label and routing.context=label go together"),
    ({"unit": Unit.SEQUENCE, "context": Context.LABEL}, "router=label and routing.context=label go together"),
    (LABEL | {"label": "author"}, "routing.label=author is unknown; choose one of language, topic"),
    (SEQUENCE | HASH, "routing.router=hash reads the token id"),
    ({"router": RouterKind.MLP, "router_depth": 0}, "routing.router_depth=0 must be at least 1"),
    ({"router": RouterKind.MLP, "router_width": 0.3}, "routing.router_width=0.3 gives a hidden layer of"),
    ({"router": RouterKind.MLP, "router_width": 0.0}, "it must be a whole number of at least 1"),
    (HASH | THRESHOLD, "routing.router=hash gives no scores"),
    (LABEL | {"selection": Selection.ALL}, "routing.router=label gives no scores"),
    (HASH | {"router_state": RouterState.FROZEN}, "routing.router=hash has no weights"),
    ({"router_noise": -0.1}, "routing.router_noise must be 0 or positive"),
    (HASH | {"router_noise": 1.0}, "needs a router with scores"),
    (HASH | {"balance": Balance(switch=0.01)}, "routing.router=hash learns nothing"),
    ({"k": 0}, "routing.k=0 must be at least 1"),
    ({"k": 5}, "routing.k=5 experts cannot be picked from N=4"),
    ({"k": 3, "num_experts": (4, 2, 4)}, "routing.k=3 experts cannot be picked from N=2"),
    (CHOICE | {"k": 5}, "cannot be picked from N=4"),
    (THRESHOLD | {"threshold": 1.5}, "routing.threshold=1.5 must lie in [0, 1]"),
    (THRESHOLD | {"threshold": -0.1}, "must lie in [0, 1]"),
    ({"threshold_budget": 2.0}, "routing.threshold_budget steers a threshold"),
    (THRESHOLD | {"threshold_budget": 0.5}, "must be at least 1 expert a token"),
    (THRESHOLD | {"threshold_budget": 4.5}, "routing.threshold_budget=4.5 is more than the N=4 experts"),
    (CHOICE | SEQUENCE, "routing.selection=expert_choice picks tokens: use routing.unit=token"),
    (MERGE | {"shuffle": True}, "routing.shuffle permutes picks"),
    (CHOICE | {"gate": Gate.PICK_THEN_SOFTMAX}, "needs a token's own picks"),
    (MERGE | {"gate": Gate.DOUBLE_SOFTMAX}, "needs a token's own picks"),
    (MERGE | {"gate": Gate.DOUBLE_SOFTMAX}, "use softmax_then_pick or sigmoid"),
    (MERGE | {"gate": Gate.RELU}, "other rules than routing.selection=positive run them all the same"),
    ({"gate": Gate.RELU}, "use that one, or another gate"),
    ({"gate": Gate.PICK_THEN_SOFTMAX}, "a learned router would get no gradient"),
    ({"gate": Gate.DOUBLE_SOFTMAX}, "a learned router would get no gradient"),
    ({"gate": Gate.SIGMOID, "renormalise": True}, "a learned router would get no gradient"),
    (THRESHOLD | {"threshold": 0.0, "renormalise": True}, "a learned router would get no gradient"),
    ({"capacity": Capacity(factor=0.0)}, "routing.capacity.factor must be positive"),
    ({"capacity": Capacity(factor=1.0, minimum=0)}, "routing.capacity.minimum at least 1"),
    (SEQUENCE | {"capacity": Capacity(factor=1.0)}, "it needs routing.unit=token with top_k, threshold or positive"),
    (CHOICE | {"capacity": Capacity(factor=1.0)}, "it needs routing.unit=token with top_k, threshold or positive"),
    (HASH | {"capacity": Capacity(factor=1.0, priority=Priority.BATCH_PRIORITY)}, "needs probabilities"),
    ({"balance": Balance(scope="global")}, "routing.balance.scope=global is unknown; choose one of micro_batch, batch"),
    ({"balance": Balance(switch=-0.01)}, "routing.balance weights must not be negative"),
    (SOFT | {"balance": Balance(z=0.01)}, "balanced by construction"),
    (THRESHOLD | {"balance": Balance(bias_rate=0.01)}, "it needs routing.selection=top_k"),
    (MERGE | {"balance": ALL_CHOICES}, "routing.balance.choices=all counts every expert alike"),
    (CHOICE | {"balance": ALL_CHOICES}, "where the loss would be constant; use first, or null"),
    ({"selection": Selection.ALL, "balance": ALL_CHOICES}, "routing.balance.choices=all counts every expert alike"),
    (SOFT | SEQUENCE, "routing.selection=soft needs routing.unit=token"),
    (SOFT | {"segment_length": 4}, "routing.segment_length goes with routing.unit=segment"),
    (SOFT | {"scope": Scope.GLOBAL}, "routing.selection=soft needs"),
    (SOFT | {"router": RouterKind.MLP}, "has its own slots"),
    (SOFT | {"soft": Soft(slots_per_expert=0)}, "routing.soft.slots_per_expert=0 must be at least 1"),
    (SOFT | {"soft": Soft(form=SoftForm.CHUNK)}, "routing.soft.chunk_length (at least 1) goes with"),
    (SOFT | {"soft": Soft(chunk_length=4)}, "routing.soft.chunk_length (at least 1) goes with"),
    (SOFT | {"soft": Soft(form=SoftForm.CHUNK, chunk_length=0)}, "routing.soft.chunk_length (at least 1)"),
    (SOFT | {"soft": Soft(form=SoftForm.ACROSS_BATCH)}, "routing.soft.group_size (at least 1) goes with"),
    (SOFT | {"soft": Soft(form=SoftForm.ACROSS_BATCH, group_size=0)}, "routing.soft.group_size (at least 1)"),
    (SOFT | {"soft": Soft(form=SoftForm.ACROSS_BATCH, group_size=3)}, "must divide the micro-batch of 4"),
    (SOFT | {"soft": Soft(dispatch=SoftWeights.IDENTITY)}, "and 4 * 1 is not 10"),
    (
        SOFT | {"soft": Soft(form=SoftForm.PREFIX, combine=SoftWeights.IDENTITY)},
        "combine=identity need soft.form=sequence",
    ),
    ({"router_noise": NAN}, "routing.router_noise=nan must be a finite number"),
    ({"balance": Balance(switch=NAN)}, "routing.balance.switch=nan must be a finite number"),
    ({"capacity": Capacity(factor=math.inf)}, "routing.capacity.factor=inf must be a finite number"),
]
BAD_DENSE: list[tuple[dict[str, Any], str]] = [
    ({"expert_size": 0}, "must leave the network at least one hidden unit"),
]
BAD_MODEL: list[tuple[dict[str, Any], str]] = [
    ({"layers": 0}, "model.layers=0 must be at least 1"),
    ({"heads": 0}, "model.heads=0 must be at least 1"),
    ({"width": 0}, "model.width=0 must be at least 1"),
    ({"context": 0}, "model.context=0 must be at least 1"),
    ({"ffn_size": 0}, "model.ffn_size=0 must be at least 1"),
    ({"heads": 3}, "model.width=8 must be a multiple of model.heads=3"),
    ({"dropout": 1.0}, "model.dropout=1.0 must lie in [0, 1)"),
    ({"init_std": 0.0}, "model.init_std=0.0 must be positive; null chooses it by model.width"),
    ({"init_std": -0.02}, "model.init_std=-0.02 must be positive"),
    ({"embeddings": Embeddings.FROZEN}, "model.embeddings=frozen would leave a tied output head frozen, too"),
    ({"embeddings": Embeddings.REDRAWN}, "redrawn, too: set model.tied_head=false"),
    ({"vocab_size": 256}, "model.vocab_size=256 is smaller than the tokenizer's 257"),
]
BAD_RUN: list[tuple[dict[str, Any], str]] = [
    ({"tokens": 100}, "exactly one of run.steps and run.tokens"),
    ({"steps": None}, "exactly one of run.steps and run.tokens"),
    ({"steps": 0}, "run.steps=0 must be at least 1"),
    ({"batch_size": 0}, "run.batch_size=0 must be at least 1"),
    ({"micro_batch": 3}, "run.batch_size=4 must be a multiple of run.micro_batch=3"),
    ({"eval_batch": 0}, "run.eval_batch=0 must be at least 1"),
    ({"eval_every": -1}, "run.eval_every=-1 must not be negative"),
    ({"eval_tokens": 9}, "run.eval_tokens=9 must cover at least one window of 10 tokens"),
    ({"dispatch": "chunked"}, "run.dispatch=chunked is unknown; choose one of auto, fused, grouped, triton"),
    ({"precision": "fp16"}, "run.precision=fp16 is unknown; choose one of fp32, tf32, bf16"),
    ({"device": "tpu"}, "run.device=tpu is unknown"),
]
BAD_OPTIMIZER: list[tuple[dict[str, Any], str]] = [
    ({"lr": 0.0}, "optimizer.lr=0.0 must be positive"),
    ({"min_lr": 1.0}, "optimizer.min_lr=1.0 in [0, lr]"),
    ({"betas": (0.9, 1.0)}, "optimizer.betas=[0.9, 1.0] must be two numbers in [0, 1)"),
    ({"betas": (0.9,)}, "must be two numbers"),
    ({"weight_decay": -0.1}, "optimizer.weight_decay=-0.1 must not be negative"),
    ({"eps": -1e-8}, "optimizer.eps=-1e-08 must not be negative"),
    ({"warmup_steps": -1}, "optimizer.warmup_steps=-1 must not be negative"),
    ({"lr": NAN}, "optimizer.lr=nan must be a finite number"),
]


BAD_LOG: list[tuple[dict[str, Any], str]] = [
    ({"keep_checkpoints": 0}, "log.keep_checkpoints=0 must be at least 1"),
    ({"threads": 0}, "log.threads=0 must be at least 1"),
    ({"trace_every": 0}, "log.trace_every=0 must be at least 1"),
    ({"trace_every": 5, "trace_tokens": -1}, "log.trace_tokens=-1 must be at least 1"),
    ({"gradients_every": -1}, "log.gradients_every=-1 must not be negative; 0 records no gradient norms"),
    ({"log_every": -5}, "log.log_every=-5 must not be negative; 0 records the last step only"),
    ({"routing_every": -1}, "log.routing_every=-1 must not be negative; 0 records shares of experts at the last"),
    ({"checkpoint_every": -1}, "log.checkpoint_every=-1 must not be negative; 0 saves only at the end"),
    ({"wandb": "on"}, "log.wandb=on is unknown; choose one of off, offline, online"),
]


def bad_configs() -> list[tuple[RunConfig, str]]:
    base, dense = toy(), DENSE["dense"]
    return [
        *((toy(Routing(**fields)), sentence) for fields, sentence in BAD_ROUTING),
        *((toy(dataclasses.replace(dense, **fields)), sentence) for fields, sentence in BAD_DENSE),
        *((toy(**fields), sentence) for fields, sentence in BAD_MODEL),
        *(
            (dataclasses.replace(base, run=dataclasses.replace(base.run, **fields)), sentence)
            for fields, sentence in BAD_RUN
        ),
        *((dataclasses.replace(base, log=LogConfig(**fields)), sentence) for fields, sentence in BAD_LOG),
        *((dataclasses.replace(base, optimizer=OptimizerConfig(**fields)), s) for fields, s in BAD_OPTIMIZER),
    ]


SENTENCES = [sentence for _, sentence in bad_configs()]


@pytest.mark.parametrize(("config", "sentence"), bad_configs(), ids=SENTENCES)
def test_what_has_no_meaning_is_refused_in_one_sentence(config: RunConfig, sentence: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        validate(config)
    assert sentence in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(("config", "sentence"), bad_configs(), ids=SENTENCES)
def test_listing_all_problems_begins_with_the_first_and_never_breaks(config: RunConfig, sentence: str) -> None:
    found = list(problems(config))
    assert any(sentence in problem for problem in found)
    with pytest.raises(ConfigError, match=r"^.*$") as refusal:
        validate(config)
    assert found[0] == str(refusal.value)


def test_several_problems_of_one_kind_are_listed_together() -> None:
    config = toy(layers=0, dropout=2.0)
    assert [problem.split("=")[0] for problem in problems(config)] == ["model.layers", "model.dropout"]


def test_a_tokenizer_without_a_size_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"needs data\.tokenizer\.vocab_size"):
        validate(dataclasses.replace(toy(vocab_size=None), data=DataConfig(tokenizer=TokenizerConfig("bpe"))))


@pytest.mark.parametrize("point", TOP_K | DENSE)
def test_points_with_a_meaning_pass(point: str) -> None:
    validate(toy((TOP_K | DENSE)[point]))


@pytest.mark.parametrize(
    "routing",
    [
        Routing(gate=Gate.PICK_THEN_SOFTMAX, router_state=RouterState.FROZEN),
        Routing(**HASH, gate=Gate.PICK_THEN_SOFTMAX),
        Routing(num_experts=1, k=1),
        Routing(num_experts=(2, 3, 2), scope=Scope.LAYER, k=2),
        Routing(**THRESHOLD, threshold=0.0),
        Routing(**THRESHOLD, threshold_budget=4.0),
        Routing(**SEGMENT | {"segment_length": 64}),  # longer than the window: one segment
        Routing(**SOFT, soft=Soft(form=SoftForm.ACROSS_BATCH, group_size=2)),
        Routing(**SOFT, num_experts=5, soft=Soft(slots_per_expert=2, dispatch=SoftWeights.IDENTITY)),
        Routing(capacity=Capacity(factor=0.5, priority=Priority.BATCH_PRIORITY)),
        Routing(**THRESHOLD, balance=ALL_CHOICES),
        Routing(**CHOICE, choice_scope=ChoiceScope.CUTOFF, balance=ALL_CHOICES),
        Routing(**MERGE, balance=Balance(choices=Choices.ALL)),  # off: nothing is counted
    ],
)
def test_unusual_points_with_a_meaning_pass(routing: Routing) -> None:
    validate(toy(routing))


def test_a_token_budget_instead_of_steps_passes() -> None:
    config = dataclasses.replace(toy(), run=RunSettings(tokens=1000, batch_size=4))
    validate(config)
    assert config.total_steps == 25  # 40 tokens a step


OPTIONAL_SIZE = st.none() | st.integers(-1, 12)
ROUTINGS = st.builds(
    Routing,
    segment_length=OPTIONAL_SIZE,
    prefix_length=OPTIONAL_SIZE,
    first_segment=st.sampled_from(["prior", "own_mean"]),
    label=st.sampled_from(["language", "topic"]),
    router_depth=st.integers(0, 3),
    router_width=st.sampled_from([-1.0, 0.0, 0.5, 1.0, 2.0, 0.3]),
    router_noise=st.floats(-1, 1),
    num_experts=st.integers(0, 6) | st.lists(st.integers(0, 6), max_size=3).map(tuple),
    k=st.integers(0, 4),
    threshold=st.floats(-0.5, 1.5),
    threshold_budget=st.none() | st.floats(0, 5),
    expert_size=OPTIONAL_SIZE,
    ffn_multiplier=st.sampled_from([0.0, 0.5, 1.0, 2.0]),
    granularity=st.integers(0, 4),
    shared_experts=st.integers(-1, 2),
    layers=st.sampled_from(["all", "every_second", "none", (0,), (2, 1), (0, 5), ()]),
    capacity=st.builds(Capacity, factor=st.none() | st.floats(-1, 2), minimum=st.integers(0, 2)),
    balance=st.just(Balance()) | st.builds(
        Balance, switch=st.floats(-0.1, 1), z=st.floats(-0.1, 1), bias_rate=st.floats(-0.1, 1)
    ),
    soft=st.builds(
        Soft, slots_per_expert=st.integers(0, 3), chunk_length=OPTIONAL_SIZE, group_size=OPTIONAL_SIZE
    ),
)  # fmt: skip


@settings(max_examples=examples(300), deadline=None)
@given(ROUTINGS)
def test_any_point_is_refused_in_sentences_or_can_be_counted(routing: Routing) -> None:
    config = toy(routing)
    found = list(problems(config))
    assert all(len(problem) > 20 and "\n" not in problem for problem in found)
    if not found:
        assert num_active_params(config) > 0 and num_params(config) > 0 and flops_per_token(config) > 0
        verdict_of(config)
