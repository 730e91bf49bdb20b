"""Settings without effect: a row for every setting; where it is not used it changes no key, where it is it does."""

import dataclasses
from typing import Any

import pytest

from moe_study.design.config import DataConfig, RunConfig, TokenizerConfig
from moe_study.design.identity import is_outside
from moe_study.design.plain import flatten, to_plain, value_at, with_values
from moe_study.design.routing import Balance, Choices, Routing, Selection, Soft, SoftForm
from moe_study.design.unused import ALWAYS, USED, explain_unused, is_used
from moe_study.design.validation import problems
from tests.design.keyed import DENSE_ROUTING, DIGITS
from tests.design.points import COUNTED, DENSE, TOP_K, toy
from tests.part import every


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


# None of them changes alone: see TWO_RUNS in test_identity.py.
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


@pytest.mark.parametrize("first", every(3, range(3)))
@pytest.mark.parametrize("name", sorted(USED))
def test_where_a_setting_is_not_used_it_changes_no_key_and_is_explained(name: str, first: int) -> None:
    """In each third of the configurations."""
    for config in (config for config in BASES[first::3] if not is_used(config, name)):
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
