"""Keys: one for each thing that is trained, whatever its spelling, and none that moves when an axis is added."""

import copy
import dataclasses
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings

from moe_study.design import identity
from moe_study.design.accounting import num_params
from moe_study.design.config import (
    DataConfig,
    Embeddings,
    ModelConfig,
    RunConfig,
    RunSettings,
    TokenizerConfig,
    read_record,
)
from moe_study.design.identity import ABSENT, described, is_outside, key_of, point_of, settings_of
from moe_study.design.matching import Match, resolve_match
from moe_study.design.normal import normalised
from moe_study.design.plain import flatten, to_plain, value_at, with_values
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
from moe_study.design.unused import ALWAYS, USED, explain_unused, is_used, unused
from moe_study.design.validation import problems, validate
from moe_study.errors import ConfigError
from tests.design.points import COUNTED, DENSE, TOP_K, toy
from tests.points import examples, points

DENSE_ROUTING = Routing(selection=Selection.DENSE)
DIGITS = RunConfig(
    task="images",
    model=ModelConfig(layers=2, heads=2, width=8, context=16, patch=7),
    data=DataConfig(recipe="digits"),
    run=RunSettings(steps=3),
)


def changed(**values: Any) -> RunConfig:
    """The toy run with settings changed; a dotted name is written with two underscores for each dot."""
    return with_values(toy(), {name.replace("__", "."): value for name, value in values.items()})


def local_files(**options: Any) -> dict[str, Any]:
    return {"data__recipe": "local_files", "data__options": options}


def hub_parquet(**source: Any) -> dict[str, Any]:
    return {"data__recipe": "hub_parquet", "data__options": {"sources": [{"files": ["*.parquet"], **source}]}}


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


TWO_RUNS: dict[str, tuple[RunConfig, ...]] = {
    "hidden units beside mixtures": tuple(
        changed(routing__layers="every_second", routing__expert_size=12, model__ffn_size=size) for size in (12, 16)
    ),
    "priority under a capacity": tuple(
        changed(routing__capacity=Capacity(1.0, priority))
        for priority in (Priority.TOKEN_MAJOR, Priority.BATCH_PRIORITY)
    ),
    "what balance is counted over in two micro-batches": tuple(
        changed(routing__balance=Balance(switch=0.1, scope=scope), run__micro_batch=2)
        for scope in ("batch", "micro_batch")
    ),
    "the head that is tied or not": (changed(), changed(model__tied_head=False)),
    "embeddings that are learned or frozen": tuple(
        changed(model__tied_head=False, model__embeddings=state) for state in (Embeddings.LEARNED, Embeddings.FROZEN)
    ),
    "embeddings that are frozen or redrawn": tuple(
        changed(model__tied_head=False, model__embeddings=state) for state in (Embeddings.FROZEN, Embeddings.REDRAWN)
    ),
    "the recipe, whose options are its own": (
        changed(data__recipe="local_files", data__options={"path": "texts"}),
        changed(data__recipe="hub_parquet", data__options={"sources": [{"folder": "texts", "files": ["*"]}]}),
    ),
    "which choices balance counts of two": tuple(
        changed(routing__k=2, routing__balance=Balance(0.1, choices=choices)) for choices in (None, Choices.FIRST)
    ),
    "which choices balance counts at a threshold": tuple(
        changed(routing=Routing(Selection.THRESHOLD, balance=Balance(switch=0.1, choices=choices)))
        for choices in (None, Choices.ALL)
    ),
    "the scope of three decisions": (changed(), changed(routing__scope=Scope.GLOBAL)),
    "K of experts that choose": tuple(
        changed(routing=Routing(selection=Selection.EXPERT_CHOICE, k=k)) for k in (1, 2)
    ),
    "the unit of a decision": tuple(
        changed(routing=Routing(unit=unit, context=Context.FIRST_TOKEN, segment_length=length))
        for unit, length in ((Unit.SEQUENCE, None), (Unit.SEGMENT, 10))
    ),
    "the patches of an image": (DIGITS, with_values(DIGITS, {"model.patch": 14, "model.context": 4})),
    "text and images": (changed(), changed(task="images", data__recipe="digits", model__patch=7, model__context=16)),
    "the seed": (changed(), changed(run__seed=1)),
    "the name of the data": (changed(), changed(data__name="mine")),
    "the recipe of the data": (changed(**local_files(path="/here")), changed(**hub_parquet(folder="/here"))),
    "the language of a source": tuple(
        changed(**hub_parquet(repo="a/b", language=language)) for language in ("de", "en")
    ),
    "a limit of the data": (changed(), changed(data__options={"limits": {"en_news": 1}})),
    "the size of a split expert": (changed(routing__granularity=2), changed(routing__granularity=2, routing__k=2)),
    "a device that is chosen": (changed(), changed(run__device="auto")),
}


@pytest.mark.parametrize("name", TWO_RUNS)
def test_two_runs_have_two_keys(name: str) -> None:
    one, other = TWO_RUNS[name]
    assert one.key != other.key
    assert (point_of(one) == point_of(other)) is (name == "the seed")


@pytest.mark.parametrize("config", [toy(), DIGITS, *(one for pair in TWO_RUNS.values() for one in pair)])
def test_what_is_described_at_once_is_what_each_says_alone(config: RunConfig) -> None:
    read = read_record(to_plain(config))
    assert described(read) == (settings_of(normalised(config)), config.key, point_of(config))


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


def test_keys_are_sixteen_digits_and_the_points_of_the_tests_have_their_own() -> None:
    keys = {toy(routing).key for routing in (TOP_K | COUNTED | DENSE).values()}
    assert len(keys) == len(TOP_K | COUNTED | DENSE)
    assert all(len(key) == 16 and set(key) <= set("0123456789abcdef") for key in keys)


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


# A row for every setting -------------------------------------------------------------------------------------------


def test_every_setting_says_when_it_is_used() -> None:
    names = {name for name in flatten(to_plain(RunConfig(data=DataConfig(options={"a": 1})))) if not is_outside(name)}
    names = {"data.options" if name.startswith("data.options") else name for name in names} | {"data.root"}
    assert ALWAYS | set(USED) == names, "a new setting has a row in USED or a name in ALWAYS (design/unused.py)"
    assert not ALWAYS & set(USED)


SOFT_POINTS = {
    "soft": Routing(Selection.SOFT),
    "chunks": Routing(Selection.SOFT, soft=Soft(SoftForm.CHUNK, chunk_length=4)),
    "groups": Routing(Selection.SOFT, soft=Soft(SoftForm.ACROSS_BATCH, group_size=2)),
}
BASES = [
    *(toy(routing) for routing in (TOP_K | COUNTED | DENSE | SOFT_POINTS).values()),
    with_values(toy(Routing(balance=Balance(switch=0.1))), {"run.micro_batch": 2}),
    toy(Routing(k=2, balance=Balance(switch=0.1))),
    toy(tied_head=False),
    with_values(toy(), {"data.tokenizer": TokenizerConfig("bpe", 257), "model.vocab_size": None}),
    DIGITS,
]
OTHERS: dict[str, tuple[Any, ...]] = {
    "model.patch": (14,),
    "model.heads": (1, 4),
    "model.context": (12, 4),
    "model.vocab_size": (300,),
    "data.options": ({"limits": {"en_news": 5}},),
    "data.tokenizer.kind": ("gpt2", "bytes"),
    "data.tokenizer.vocab_size": (258,),
    "optimizer.betas": ((0.5, 0.6),),
    "optimizer.min_lr": (1e-5,),
    "routing.balance.scope": ("batch", "micro_batch"),
    "routing.balance.choices": tuple(Choices),
    "routing.first_segment": ("own_mean", "prior"),
    "routing.label": ("topic", "language"),
    "routing.layers": ((0,), (1, 2)),
    "routing.num_experts": (5, (2, 3, 2)),
    "run.device": ("cuda",),
    "run.dispatch": ("grouped",),
    "run.precision": ("bf16",),
    "run.steps": (7,),
    "routing.prefix_length": (1,),
    "routing.segment_length": (1,),
    "routing.soft.chunk_length": (1,),
    "routing.soft.group_size": (1,),
}


# None of them changes alone: see TWO_RUNS.
ONLY_WITH_OTHERS = {"task", "model.patch", "data.recipe", "routing.unit", "run.tokens"}


@pytest.mark.parametrize("name", sorted((ALWAYS | set(USED)) - ONLY_WITH_OTHERS - {"data.root"}))
def test_no_setting_is_left_out_of_the_key_where_it_is_used(name: str) -> None:
    """For each setting there is a configuration that uses it, and there another value of it gives another key."""
    using = [config for config in BASES if is_used(config, name)]
    assert using
    pairs = [
        (config, other)
        for config in using
        for value in _others(name, value_at(config, name))
        if not list(problems(other := with_values(config, {name: value})))
    ]
    assert any(config.key != other.key for config, other in pairs)


def _others(name: str, value: Any) -> list[Any]:
    if name in OTHERS:
        return [other for other in OTHERS[name] if other != value]
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value + 1, value * 2]
    if isinstance(value, float) or value is None:
        return [(value or 0.0) + 0.125, 1, 2, 1.5]
    if hasattr(type(value), "__members__"):
        return [other for other in type(value) if other is not value]
    return [value + "x"]


@pytest.mark.parametrize("name", sorted(USED))
def test_where_a_setting_is_not_used_it_changes_no_key_and_is_explained(name: str) -> None:
    for config in (config for config in BASES if not is_used(config, name)):
        for value in _others(name, value_at(config, name)):
            assert with_values(config, {name: value}).key == config.key
        assert str(explain_unused(config, ["optimizer.lr", name])).startswith(f"{name} has no effect ")


def test_settings_without_effect_are_named_with_their_reason_in_one_line() -> None:
    names = ["routing.k", "routing.num_experts", "optimizer.lr", "routing.shuffle", "routing.ffn_multiplier"]
    dense = toy(DENSE_ROUTING)
    assert explain_unused(dense, names) == (
        "routing.k, routing.num_experts and routing.shuffle have no effect on a dense model"
    )
    sized = toy(dataclasses.replace(DENSE_ROUTING, expert_size=7))
    assert explain_unused(sized, names[:1] + names[-1:]) == (
        "routing.k has no effect on a dense model; "
        "routing.ffn_multiplier has no effect without routing.expert_size=null"
    )
    assert explain_unused(toy(), names) is None
    assert explain_unused(toy(), ["routing.threshold"]) == (
        "routing.threshold has no effect without routing.selection=threshold"
    )


# Axes come, defaults move --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class GrownModel(ModelConfig):
    mood: str = "calm"


@dataclass(frozen=True)
class GrownConfig(RunConfig):
    model: GrownModel = field(default_factory=GrownModel)


@dataclass(frozen=True)
class MovedModel(ModelConfig):
    mood: str = "wild"


@dataclass(frozen=True)
class MovedConfig(RunConfig):
    model: MovedModel = field(default_factory=MovedModel)


@pytest.fixture
def grown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "ABSENT", {**ABSENT, "model.mood": lambda older: "calm"})


@pytest.mark.usefixtures("grown")
def test_a_new_setting_changes_no_key_but_where_it_is_set() -> None:
    run = RunSettings(steps=3)
    assert key_of(GrownConfig(run=run)) == key_of(RunConfig(run=run))
    assert key_of(GrownConfig(model=GrownModel(mood="wild"), run=run)) != key_of(RunConfig(run=run))


@pytest.mark.usefixtures("grown")
def test_when_a_default_moves_keys_move_with_it_and_older_runs_keep_their_value() -> None:
    run = RunSettings(steps=3)
    assert key_of(MovedConfig(run=run)) == key_of(GrownConfig(model=GrownModel(mood="wild"), run=run))
    assert key_of(MovedConfig(run=run)) != key_of(RunConfig(run=run))
    assert key_of(MovedConfig(model=MovedModel(mood="calm"), run=run)) == key_of(RunConfig(run=run))
    whole = identity.completed(to_plain(RunConfig(run=run)), MovedConfig())
    assert whole["model"]["mood"] == "calm"


def test_what_an_older_run_lacks_has_the_value_it_was_trained_with() -> None:
    plain = to_plain(toy())
    del plain["task"], plain["model"]["patch"], plain["run"]["dispatch"], plain["routing"]["soft"]["normalise"]
    assert read_record(plain) == toy()


def test_completing_a_record_leaves_it_as_it_was() -> None:
    plain = to_plain(toy())
    del plain["routing"]["soft"]["normalise"]
    before = copy.deepcopy(plain)
    assert identity.completed(plain, RunConfig())["routing"]["soft"]["normalise"] is True
    assert plain == before


def test_a_setting_that_every_version_wrote_is_not_made_up() -> None:
    plain = to_plain(toy())
    del plain["routing"]["shuffle"]
    with pytest.raises(ConfigError, match=r"routing\.shuffle is missing"):
        read_record(plain)


def test_an_older_run_is_read_with_the_deviation_that_its_weights_had() -> None:
    for config, std in ((toy(), 0.02), (with_values(DIGITS, {"model.width": 16}), 0.25)):
        plain = to_plain(config)
        del plain["model"]["init_std"]
        assert read_record(plain).model.init_std == std
        assert "model.init_std" not in identity.identity(with_values(config, {"model.init_std": std}))


def test_what_a_later_version_wrote_is_refused_by_name() -> None:
    plain = to_plain(toy())
    plain["routing"]["mood"] = "good"
    with pytest.raises(ConfigError, match=r"unknown key routing\.mood"):
        read_record(plain)


def test_settings_say_what_data_is_and_not_where_it_lies() -> None:
    texts = settings_of(changed(**local_files(path="/x", language="de")))
    assert texts["data.options.language"] == "de" and "data.options.path" not in texts
    (source,) = settings_of(changed(**hub_parquet(folder="/x", language="de")))["data.options.sources"]
    assert source["language"] == "de" and "folder" not in source
    assert is_outside("data.options.path") and not is_outside("data.options.language")
