"""Hydra's and OmegaConf's errors as one sentence that says what to change."""

import contextlib
import difflib
import re
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf.errors import InterpolationKeyError, MissingMandatoryValue, OmegaConfBaseException

from moe_study.errors import ConfigError
from moe_study.sweeps.conf import command_settings, defaults, groups
from moe_study.sweeps.values import quoted


@contextlib.contextmanager
def hydra_errors_as_sentences() -> Iterator[None]:
    """Turn what Hydra and OmegaConf raise into a ConfigError of one sentence."""
    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(explain(error)) from error


def explain(error: HydraException | OmegaConfBaseException) -> str:
    """One sentence for an error of Hydra or OmegaConf."""
    if isinstance(error, MissingConfigException):
        return _unknown_choice(error)
    if isinstance(error, OverrideParseException):
        return _unreadable(error.override)
    text = str(error)
    if found := re.search(r"Could not override '([^']+)'", text):
        return _unknown_key(_inside(error) if found.group(1) in groups() else found.group(1))
    if found := re.search(r"Could not append to config\. An item is already at '([^']+)'", text):
        return f"{found.group(1)} has a value already; write {found.group(1)}=VALUE, without +"
    if found := re.search(r"Could not (?:append to|delete from) config\. (.*)", text):
        return f"cannot apply the override: {found.group(1)}"
    if found := re.search(r"Ambiguous value for argument '([^']+)'", text):
        return f"{found.group(1)} lists several values: add -m to train each, or write them in [...] for a list"
    for cause in _chain(error):
        if isinstance(cause, MissingMandatoryValue):
            return f"{cause.full_key or 'a mandatory value'} is not set; give it a value"
        if isinstance(cause, InterpolationKeyError):
            return f"{cause.full_key}: {_sentence(str(cause))}"
    return _sentence(text)


def _inside(error: BaseException) -> str:
    """The key that is unknown within the {...} that a group was given."""
    named = (getattr(cause, "full_key", None) for cause in _chain(error))
    return next((str(key) for key in named if key), "")


def _unreadable(override: str) -> str:
    key, equals, value = override.partition("=")
    if not equals:
        return f"cannot read {override}: it has no value; write {override}=VALUE"
    as_a_text = f"{key}={quoted(value)}"
    try:
        OverridesParser.create().parse_override(as_a_text)
    except HydraException:
        return f"cannot read the override {override}; write KEY=VALUE, such as routing.k=2"
    return f"cannot read the override {override}; if its value is a text, write {shlex.quote(as_a_text)}"


def _unknown_choice(error: MissingConfigException) -> str:
    group, _, name = (error.missing_cfg_file or "").rpartition("/")
    if not group:
        return _sentence(str(error))
    options = list(error.options or [])
    return f"{group}={name} is unknown; {suggestion(name, options, prefix=group + '=')}"


def _unknown_key(key: str) -> str:
    if key.startswith("hydra."):
        return f"unknown key {key}; --cfg hydra of train.py shows those of Hydra"
    known = [*dotted(defaults()), *dotted(command_settings())]
    # A misspelt last part is looked for in its own section first.
    section = key.rpartition(".")[0]
    near = [name for name in known if section and name.startswith(section + ".")]
    if f"{key}.".startswith("data.options.") and not difflib.get_close_matches(key, near, n=1):
        return f"unknown key {key}; what the file of this data does not list is added by +{key}=VALUE"
    if not difflib.get_close_matches(key, near, n=1):
        by_leaf = [name for name in known if name.rpartition(".")[2] == key.rpartition(".")[2]]
        near = by_leaf or known
        if by_leaf:
            return f"unknown key {key}; did you mean {by_leaf[0]}?"
    if not difflib.get_close_matches(key, near, n=1) and near is known:
        return f"unknown key {key}; keys begin with {', '.join(groups())}, and --cfg job of train.py shows them all"
    return f"unknown key {key}; {suggestion(key, near)}"


def suggestion(word: str, options: list[str], prefix: str = "") -> str:
    """The closest option as a question, or the whole list."""
    close = difflib.get_close_matches(word, options, n=1)
    if close:
        return f"did you mean {prefix}{close[0]}?"
    return f"choose one of {', '.join(options)}"


def dotted(tree: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """The dotted names of all leaves and sections."""
    for name, value in tree.items():
        yield prefix + name
        if isinstance(value, Mapping):
            yield from dotted(value, f"{prefix}{name}.")


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _sentence(text: str) -> str:
    return re.sub(r"\s+", " ", text.strip().split("\n    full_key")[0]).strip()
