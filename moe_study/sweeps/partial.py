"""Partial overrides, as in `exclude` and `compare`: which composed points are meant by them."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

from moe_study.errors import ConfigError
from moe_study.sweeps.compose import Composed
from moe_study.sweeps.values import as_text

Partial = Mapping[str, Any]  # groups, or dotted names of values; a list is one of several values


class Meaning(NamedTuple):
    """What a composed point trains, if anything."""

    settings: Mapping[str, Any] = {}  # those that have an effect on it, in their one spelling
    unused: Collection[str] = ()  # those that have none


NO_MEANING = Meaning()


def on_command_line(entry: Partial) -> str:
    """An entry in one line, as on the command line."""
    return " ".join(f"{key}={as_text(value)}" for key, value in entry.items())


def in_file(entry: Partial) -> str:
    """An entry as a sweep file has it."""
    return "{" + ", ".join(f"{key}: {as_text(value)}" for key, value in entry.items()) + "}"


def matching_excludes(exclude: Iterable[Partial], composed: Composed, meaning: Meaning = NO_MEANING) -> list[int]:
    """Places of the entries that mean the composed point."""
    return [place for place, entry in enumerate(exclude) if matches(entry, composed, meaning, "exclude")]


def matches(entry: Partial, composed: Composed, meaning: Meaning, where: str, *, as_meant: bool = True) -> bool:
    """Whether the composed point matches all keys of the entry; ConfigError, which says `where`, for an unknown key.

    A value is matched as it was written or, with `as_meant`, as it is meant (`ffn_size: null` and 384 are the same); a
    setting without effect only where the point itself gives it a value.
    """
    known = meaning if as_meant else Meaning({}, meaning.unused)
    return all(_matches(key, wanted, composed, known, where) for key, wanted in entry.items())


def _matches(key: str, wanted: Any, composed: Composed, meaning: Meaning, where: str) -> bool:
    alternatives = wanted if isinstance(wanted, list) else [wanted]
    if key in composed.choices:
        return str(composed.choices[key]) in map(str, alternatives)
    try:
        value = composed.value(key)
    except KeyError:
        raise ConfigError(
            f"{where}: unknown key {key}; it is neither a group nor a value of the configuration"
        ) from None
    values = [] if key in meaning.unused and key not in composed.given else [value]
    if (meant := meaning.settings.get(key)) is not None:
        values.append(list(meant) if isinstance(meant, tuple) else meant)
    return any(v == one and isinstance(v, bool) == isinstance(one, bool) for v in values for one in alternatives)
