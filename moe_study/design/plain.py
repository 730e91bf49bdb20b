"""Dataclasses to plain dicts and back, strictly: an unknown key or a value of the wrong kind is a ConfigError.

A setting's dotted name, such as routing.capacity.factor, leads through nested dataclasses as through nested dicts.
"""

import dataclasses
import difflib
import enum
import functools
import sys
import types
import typing
from collections.abc import Mapping
from typing import Any

from moe_study.errors import ConfigError

_ATOMS = (int, float, str, bool)
_PLAIN = frozenset((*_ATOMS, type(None)))  # nine settings of ten: told by their type, without a call


def to_plain(value: Any) -> Any:
    """Dataclasses, enums and tuples as dicts, strings and lists, ready for YAML and JSON."""
    kind: Any = type(value)
    if kind in _PLAIN:
        return value
    if (names := _field_names(kind)) is not None:
        items = [(name, getattr(value, name)) for name in names]
        return {name: item if type(item) in _PLAIN else to_plain(item) for name, item in items}
    if isinstance(value, list | tuple):
        return [to_plain(v) for v in value]
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(k): to_plain(v) for k, v in value.items()}
    return value


@functools.cache
def _field_names(cls: Any) -> tuple[str, ...] | None:
    """Of a dataclass; None for another type."""
    return tuple(field.name for field in dataclasses.fields(cls)) if dataclasses.is_dataclass(cls) else None


def flatten(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, with dotted names; lists become tuples, so that they can be compared."""
    flat: dict[str, Any] = {}
    for name, item in nested.items():
        if type(item) not in _PLAIN and isinstance(item, Mapping):
            flat.update(flatten(item, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = tuple(item) if isinstance(item, list) else item
    return flat


def value_at(config: Any, name: str) -> Any:
    """The value of a dataclass's setting by its dotted name."""
    for part in name.split("."):
        config = getattr(config, part)
    return config


def with_values(config: Any, values: Mapping[str, Any]) -> Any:
    """The dataclass with the settings of these dotted names changed."""
    changes: dict[str, Any] = {}
    below: dict[str, dict[str, Any]] = {}
    for name, value in values.items():
        head, _, rest = name.partition(".")
        if rest:
            below.setdefault(head, {})[rest] = value
        else:
            changes[head] = value
    changes |= {head: with_values(getattr(config, head), inner) for head, inner in below.items()}
    return dataclasses.replace(config, **changes)


def from_plain(cls: type, value: Any, where: str = "") -> Any:
    """Build dataclass `cls` from nested dicts; ConfigError names an unknown key or a wrong value."""
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where.rstrip('.') or 'the configuration'} must be a mapping, not {value!r}")
    hints = _hints(cls)
    unknown = sorted(map(str, set(value) - set(hints)))
    if unknown:
        close = difflib.get_close_matches(unknown[0], hints, n=1)
        advice = f"did you mean {where + close[0]}" if close else f"known here are {', '.join(sorted(hints))}"
        raise ConfigError(f"unknown key {where + unknown[0]}; {advice}")
    return cls(**{name: _convert(hints[name], item, where + name) for name, item in value.items()})


_hints = functools.cache(typing.get_type_hints)  # a tenth of a millisecond each time
_origin = functools.cache(typing.get_origin)
_arguments = functools.cache(typing.get_args)


def _convert(hint: Any, value: Any, where: str) -> Any:
    """`value` as the annotated type, with no coercion that could hide a mistake ("False" is no bool)."""
    if type(value) is hint and hint in _ATOMS:
        return value + 0.0 if hint is float else value  # -0.0 is 0.0, and no other key
    origin = _origin(hint)
    if origin in (typing.Union, types.UnionType):
        return _convert_union(_arguments(hint), value, where)
    if dataclasses.is_dataclass(hint):
        return from_plain(hint, value, where + ".")  # type: ignore[arg-type]
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{where} must be a list, not {value!r}")
        return tuple(_convert(_arguments(hint)[0], v, where) for v in value)
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
        if abs(value) > sys.float_info.max:
            raise ConfigError(f"{where} must be {_name(hint)} below 1e308, not {shown(value)}")
        return float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        said = shown(value)
        is_number = isinstance(value, int | float) and not isinstance(value, bool) and " " not in said
        advice = f"; in quotes it is one: '{where}=\"{said}\"'" if hint is str and is_number else ""
        raise ConfigError(f"{where} must be {_name(hint)}, not {said}{advice}")
    return value


def _convert_union(options: tuple[Any, ...], value: Any, where: str) -> Any:
    if type(value) in options:  # an atom, or None where it may be
        return value + 0.0 if type(value) is float else value
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
    raise ConfigError(f"{where} must be {names}, not {shown(value)}")


def shown(value: Any) -> str:
    """A value for a sentence. Python refuses to write a whole number of more than 4,300 digits."""
    if isinstance(value, int) and value.bit_length() > 64:
        return f"a whole number of {value.bit_length()} bits"
    return repr(value)


def _name(hint: Any) -> str:
    plain = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
    return plain.get(hint, "a list" if typing.get_origin(hint) is tuple else str(hint))
