"""Dataclasses to plain dicts and back, strictly: an unknown key or a value of the wrong kind is a ConfigError."""

import dataclasses
import difflib
import enum
import types
import typing
from collections.abc import Mapping
from typing import Any

from moe_study.errors import ConfigError


def to_plain(value: Any) -> Any:
    """Dataclasses, enums and tuples as dicts, strings and lists, ready for YAML and JSON."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(k): to_plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(v) for v in value]
    return value


def from_plain(cls: type, value: Any, where: str = "") -> Any:
    """Build dataclass `cls` from nested dicts; ConfigError names an unknown key or a wrong value."""
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where.rstrip('.') or 'the configuration'} must be a mapping, not {value!r}")
    hints = typing.get_type_hints(cls)
    unknown = sorted(set(value) - set(hints))
    if unknown:
        close = difflib.get_close_matches(unknown[0], hints, n=1)
        advice = f"did you mean {where + close[0]}" if close else f"known here are {', '.join(sorted(hints))}"
        raise ConfigError(f"unknown key {where + unknown[0]}; {advice}")
    return cls(**{name: _convert(hints[name], item, where + name) for name, item in value.items()})


def _convert(hint: Any, value: Any, where: str) -> Any:
    """`value` as the annotated type, with no coercion that could hide a mistake ("False" is no bool)."""
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return _convert_union(typing.get_args(hint), value, where)
    if dataclasses.is_dataclass(hint):
        return from_plain(hint, value, where + ".")  # type: ignore[arg-type]
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{where} must be a list, not {value!r}")
        return tuple(_convert(typing.get_args(hint)[0], v, where) for v in value)
    if origin is dict:
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where} must be a mapping, not {value!r}")
        return to_plain(value)
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        try:
            return hint(value)
        except ValueError:
            choices = ", ".join(str(e.value) for e in hint)
            raise ConfigError(f"{where}={value} is unknown; choose one of {choices}") from None
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise ConfigError(f"{where} must be {_name(hint)}, not {value!r}")
    return value


def _convert_union(options: tuple[Any, ...], value: Any, where: str) -> Any:
    if value is None and type(None) in options:
        return None
    errors = []
    for option in options:
        if option is type(None):
            continue
        try:
            return _convert(option, value, where)
        except ConfigError as error:
            errors.append(error)
    if len(errors) == 1:
        raise errors[0]
    names = " or ".join("null" if o is type(None) else _name(o) for o in options)
    raise ConfigError(f"{where} must be {names}, not {value!r}")


def _name(hint: Any) -> str:
    plain = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
    return plain.get(hint, "a list" if typing.get_origin(hint) is tuple else str(hint))
