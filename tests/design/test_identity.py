"""Keys: one for each thing that is trained, and none that moves when an axis is added."""

import copy
from dataclasses import dataclass, field

import pytest

from moe_study.design import identity
from moe_study.design.config import Embeddings, ModelConfig, RunConfig, RunSettings, read_record
from moe_study.design.identity import ABSENT, described, is_outside, key_of, point_of, settings_of
from moe_study.design.normal import normalised
from moe_study.design.plain import to_plain, with_values
from moe_study.design.routing import Balance, Capacity, Choices, Context, Priority, Routing, Scope, Selection, Unit
from moe_study.errors import ConfigError
from tests.design.keyed import DIGITS, changed, hub_parquet, local_files
from tests.design.points import COUNTED, DENSE, TOP_K, toy

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


@pytest.mark.parametrize("name", ["optimizer.weight_decay", "routing.balance.z", "model.dropout"])
def test_nothing_below_nothing_is_nothing(name: str) -> None:
    one, other = (with_values(toy(), {name: zero}) for zero in (0.0, -0.0))
    assert one.key == other.key


def test_keys_are_sixteen_digits_and_the_points_of_the_tests_have_their_own() -> None:
    keys = {toy(routing).key for routing in (TOP_K | COUNTED | DENSE).values()}
    assert len(keys) == len(TOP_K | COUNTED | DENSE)
    assert all(len(key) == 16 and set(key) <= set("0123456789abcdef") for key in keys)


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
