import dataclasses
from typing import Any

import pytest

from moe_study.design.config import DataConfig, RunConfig, TokenizerConfig
from moe_study.design.data_options import (
    LocalFilesOptions,
    check_data_config,
    identity_options,
    label_of,
    place_options,
    read_options,
    without_defaults,
)
from moe_study.design.validation import problems
from moe_study.errors import ConfigError

HUB = {"repo": "a/b", "files": ["*"]}


def local(**options: Any) -> DataConfig:
    return DataConfig("mine", "local_files", {"path": "texts", **options}, TokenizerConfig("bytes"))


def hub(*sources: dict[str, Any], **options: Any) -> DataConfig:
    return DataConfig("mine", "hub_parquet", {"sources": list(sources), **options}, TokenizerConfig("bytes"))


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        (local(pth=1), "unknown key data.options.pth; did you mean data.options.path"),
        (local(patern="*"), "did you mean data.options.pattern"),
        (local(path=7), "data.options.path must be a text, not 7"),
        (local(path=""), "set data.options.path"),
        (local(path=" "), "set data.options.path"),
        (local(path="a\0b"), "set data.options.path"),
        (local(folders="language"), "data.options.folders must be a list"),
        (local(folders=["lang"]), "lang is unknown; use language, topic or _"),
        (local(folders=["topic", "_", "topic"]), "names topic twice"),
        (local(separator=""), "must not be empty"),
        (local(pattern=""), "is empty; write one such as **/*.txt"),
        (local(pattern="/texts/*.txt"), "begins with /"),
        (local(pattern="../*.txt"), "nothing outside data.options.path is read"),
        (local(pattern="./*.txt"), "nothing outside data.options.path is read"),
        (local(pattern="a**/b"), "stands alone"),
        (local(pattern="***"), "stands alone"),
        (local(topic=None), "data.options.topic must be a text"),
        (local(text_field=10**5000), "must be a text, not a whole number of 16610 bits"),
        (hub(HUB, max_bytes=-(10**5000)), "must be above 0, not a whole number of"),
        (hub(HUB, max_bytes=10**5000), "must be above 0, not a whole number of"),
        (hub({**HUB, "share": 10**400}, max_bytes=10), "must be a number"),
        (hub({**HUB, "share": float("nan")}, max_bytes=10), "share must be above 0"),
        (hub({**HUB, "reop": "x"}), "did you mean data.options.sources.repo"),
        (DataConfig(options={"limits": {"en_news": 10**5000}}), "must be a number of bytes or null, not a whole"),
        (DataConfig(options={"limits": {"en_news": True}}), "must be a number of bytes or null"),
        (DataConfig(options={1: 2, "limits": {}}), "unknown key data.options.1"),
        (DataConfig(recipe="digits", options={"side": 28}), "has no option side; drop it"),
        (DataConfig(recipe="wiki"), "data.recipe=wiki is unknown; choose one of parliament_news"),
        (dataclasses.replace(local(), tokenizer=TokenizerConfig("bpe", 10**12)), "at most 1048576"),
        (dataclasses.replace(local(), validation_fraction=float("nan")), "must be between 0 and 1"),
        *((dataclasses.replace(local(), name=name), "cannot name a folder") for name in ("", "..", "a/b", "a" * 300)),
    ],
)
def test_options_without_meaning_are_one_sentence_and_known_to_a_plan(config: DataConfig, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_data_config(config)
    assert sentence in str(caught.value) and "\n" not in str(caught.value)


def test_a_plan_names_what_is_wrong_with_the_data() -> None:
    config = RunConfig(data=local(pth=1), run=dataclasses.replace(RunConfig().run, steps=1))
    assert list(problems(config)) == ["unknown key data.options.pth; did you mean data.options.path"]


def test_options_are_typed_and_in_one_spelling() -> None:
    spelled = local(separator="\\r\\n\\r\\n", folders=["topic", "_", "_"], topic=" a  b ", language="\ufeff")
    assert read_options(spelled) == LocalFilesOptions(
        "texts", separator="\n\n", folders=("topic",), topic="a b", language="unknown"
    )
    twice = read_options(hub({**HUB, "files": ["b*", "a*", "b*"]}))
    assert twice.sources[0].files == ("a*", "b*")


COMPLETED = [("texts/", "texts"), (".//texts", "texts"), ("/a//b/", "/a/b"), ("~/x/", "~/x")]


@pytest.mark.parametrize(("path", "tidy"), COMPLETED)
def test_a_folder_is_one_place_however_a_shell_completes_it(path: str, tidy: str) -> None:
    assert place_options(local(path=path)) == place_options(local(path=tidy)) == {"path": tidy}
    source = {"folder": path, "files": ["*"]}
    assert place_options(hub(source)) == {"sources": [{"folder": tidy}]}


def test_places_are_no_part_of_what_data_is() -> None:
    assert place_options(local()) == {"path": "texts"}
    assert identity_options(local(path="elsewhere")) == identity_options(local())
    assert "path" not in identity_options(local())
    mixed = hub(HUB, {"folder": "wiki", "files": ["*"]})
    assert place_options(mixed) == {"sources": [{"folder": None}, {"folder": "wiki"}]}
    assert place_options(hub(HUB)) == {} == place_options(DataConfig())
    assert [sorted(source).count("folder") for source in identity_options(mixed)["sources"]] == [0, 0]
    assert identity_options(mixed)["sources"][0]["repo"] == "a/b"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (local(), local(pattern="**/*", topic_field="topic", separator=None)),
        (local(separator="\n\n"), local(separator="\\n\\n")),
        (hub({**HUB, "files": ["b", "a"]}), hub({**HUB, "files": ["a", "b"], "topic": "unknown"})),
        (DataConfig(), DataConfig(options={"limits": {"en_news": None}})),
    ],
)
def test_what_is_the_same_is_identified_the_same(one: DataConfig, other: DataConfig) -> None:
    assert identity_options(one) == identity_options(other)
    assert without_defaults(one) == without_defaults(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (local(), local(pattern="*")),
        (local(), local(topic="law")),
        (hub(HUB), hub(HUB, HUB)),
        (hub(HUB), hub({**HUB, "revision": "abc"})),
        (DataConfig(), DataConfig(options={"limits": {"en_news": 0}})),
    ],
)
def test_what_differs_is_told_apart(one: DataConfig, other: DataConfig) -> None:
    assert identity_options(one) != identity_options(other)
    assert without_defaults(one) != without_defaults(other)


def test_a_recipe_of_another_version_keeps_its_options_as_they_are() -> None:
    config = DataConfig(recipe="of_tomorrow", options={"a": [1], "path": "x"})
    assert identity_options(config) == {"a": [1], "path": "x"}
    assert place_options(config) == {}


SPELLINGS = [("a", "a"), ("\u00a0 a\n b\t", "a b"), ("e\u0301", "\u00e9"), (" \ufeff", "")]
SPELLINGS += [("\0", ""), ("a\x1b\x7f b", "a b"), ("\u200b \u2060", ""), ("\u200e a\u200db \u200b", "a\u200db")]


@pytest.mark.parametrize(("text", "label"), SPELLINGS)
def test_a_label_has_one_spelling(text: str, label: str) -> None:
    assert label_of(text) == label == label_of(label)
