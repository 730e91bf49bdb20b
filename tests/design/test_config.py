"""The run's configuration: read back as written, and refused where misspelt."""

import dataclasses
import enum
import json
import types
import typing
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from moe_study.design.config import DataConfig, RunConfig, TokenizerConfig
from moe_study.design.plain import from_plain, to_plain, with_values
from moe_study.errors import ConfigError
from tests.design.points import DENSE, TOP_K, toy
from tests.points import examples


def fields_of(cls: type, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every leaf field below a dataclass as (dotted name, type)."""
    for name, hint in typing.get_type_hints(cls).items():
        if dataclasses.is_dataclass(hint):
            yield from fields_of(hint, f"{prefix}{name}.")  # type: ignore[arg-type]
        else:
            yield prefix + name, hint


def values_of(hint: Any) -> st.SearchStrategy[Any]:
    """Values of a field's type; no 0.0 beside -0.0, which compare equal."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return st.one_of([values_of(option) for option in typing.get_args(hint)])
    if typing.get_origin(hint) is tuple:
        return st.lists(values_of(typing.get_args(hint)[0]), min_size=1, max_size=3).map(tuple)
    if typing.get_origin(hint) is dict:
        return st.dictionaries(st.text(max_size=3), st.integers() | st.text(max_size=3), max_size=3)
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return st.sampled_from(list(hint))
    simple = {
        int: st.integers(-5, 10**9),
        float: st.floats(1e-9, 1e9),
        str: st.text(max_size=5),
        bool: st.booleans(),
        type(None): st.none(),
    }
    return simple[hint]


FIELDS = dict(fields_of(RunConfig))


@st.composite
def configs(draw: st.DrawFn) -> RunConfig:
    """Any configuration, with a meaning or without: some fields off their defaults."""
    config = RunConfig()
    for name in draw(st.lists(st.sampled_from(sorted(FIELDS)), max_size=8)):
        config = with_values(config, {name: draw(values_of(FIELDS[name]))})
    return config


@settings(max_examples=examples(60), deadline=None)
@given(configs())
def test_a_configuration_comes_back_from_yaml_and_json_as_it_was(config: RunConfig) -> None:
    for text in (json.dumps(to_plain(config)), yaml.safe_dump(to_plain(config), sort_keys=False)):
        again = from_plain(RunConfig, yaml.safe_load(text) if text[0] != "{" else json.loads(text))
        assert again == config


def test_the_points_used_in_tests_have_keys_of_their_own() -> None:
    points = TOP_K | DENSE
    assert len({toy(routing).key for routing in points.values()}) == len(points)


def test_the_seed_is_part_of_the_key() -> None:
    config = toy()
    seeds = [with_values(config, {"run.seed": seed}).key for seed in range(3)]
    assert len(set(seeds)) == 3
    assert all(len(key) == 16 and set(key) <= set("0123456789abcdef") for key in seeds)


@pytest.mark.parametrize(
    ("plain", "sentence"),
    [
        ({"modle": {}}, "unknown key modle; did you mean model"),
        ({"routing": {"numexperts": 3}}, "unknown key routing.numexperts; did you mean routing.num_experts"),
        ({"routing": {"zzz": 3}}, "unknown key routing.zzz; known here are balance, capacity"),
        ({"routing": {"balance": {"swich": 1.0}}}, "unknown key routing.balance.swich"),
        ({"routing": {"shuffle": "False"}}, "routing.shuffle must be true or false, not 'False'"),
        ({"routing": {"shuffle": 0}}, "routing.shuffle must be true or false, not 0"),
        ({"routing": {"k": "2"}}, "routing.k must be a whole number, not '2'"),
        ({"routing": {"k": 2.0}}, "routing.k must be a whole number, not 2.0"),
        ({"routing": {"k": True}}, "routing.k must be a whole number, not True"),
        ({"routing": {"k": None}}, "routing.k must be a whole number, not None"),
        ({"routing": {"threshold": "high"}}, "routing.threshold must be a number, not 'high'"),
        ({"routing": {"unit": "word"}}, "routing.unit=word is unknown; choose one of token, segment, sequence"),
        ({"routing": {"num_experts": 2.5}}, "routing.num_experts must be a whole number or a list, not 2.5"),
        ({"routing": {"num_experts": [2, "x"]}}, "routing.num_experts must be a whole number or a list"),
        ({"routing": {"segment_length": "4"}}, "routing.segment_length must be a whole number, not '4'"),
        ({"routing": 3}, "routing must be a mapping, not 3"),
        ({"optimizer": {"betas": 0.9}}, "optimizer.betas must be a list, not 0.9"),
        ({"data": {"options": [1]}}, "data.options must be a mapping, not [1]"),
        ([], "the configuration must be a mapping"),
    ],
)
def test_mistakes_are_refused_by_name(plain: Any, sentence: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        from_plain(RunConfig, plain)
    assert sentence in str(refusal.value)


def test_whole_numbers_serve_where_numbers_are_asked_for_and_give_one_key() -> None:
    whole = from_plain(RunConfig, {"optimizer": {"grad_clip": 1}, "routing": {"capacity": {"factor": 2}}})
    decimal = from_plain(RunConfig, {"optimizer": {"grad_clip": 1.0}, "routing": {"capacity": {"factor": 2.0}}})
    assert whole.key == decimal.key
    assert isinstance(whole.routing.capacity.factor, float)


@pytest.mark.parametrize(
    ("tokenizer", "size"),
    [
        (TokenizerConfig("gpt2"), 50257),
        (TokenizerConfig("bytes"), 257),
        (TokenizerConfig("bpe", 512), 512),
    ],
)
def test_the_vocabulary_is_known_without_data(tokenizer: TokenizerConfig, size: int) -> None:
    assert RunConfig(data=DataConfig(tokenizer=tokenizer)).vocab_size == size
