"""What makes two configurations the same run.

A run's key hashes the configuration in its one spelling (normal.py), less what it cannot use, what only says where
something lies, and what changes no result. Two spellings that analysis tells apart, because they answer different
questions, are one network here: experts that were split, or were small from the beginning.

What a machine brings along stands elsewhere: the number of threads changes the last bits, is not a setting of the run
and is recorded in provenance.json; `run.device=auto` is a value of its own, whatever it finds.

When a setting is added: a row in `ABSENT`, and one in unused.py. When a default moves: nothing here; the golden test
says what to do.
"""

import functools
import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from moe_study.design.data_config import DataConfig
from moe_study.design.data_options import PLACE_NAMES, identity_options
from moe_study.design.normal import normalised, normalised_typed
from moe_study.design.plain import flatten, to_plain
from moe_study.design.routing import Selection, mixture_layers
from moe_study.design.unused import is_used
from moe_study.errors import ConfigError

KEY_DIGITS = 16
NO_PART = ("log.", "data.root")  # of a run's identity: what it prints and keeps, and where things lie
SEED = "run.seed"  # tells runs of one point apart

# The value that a setting had before it was one, asked of an older run's settings by dotted name. It is what such a run
# is read with, and the only value at which a setting stays out of the hash, so that a new setting changes no key. One
# row for each setting added since 22 November 2026; a row is never edited, whatever becomes of the default.
ABSENT: Mapping[str, Callable[[Mapping[str, Any]], Any]] = {
    "task": lambda older: "language",
    "model.patch": lambda older: None,
    "model.init_std": lambda older: older["model.width"] ** -0.5 if older.get("task") == "images" else 0.02,
    "run.dispatch": lambda older: "auto",
    "routing.soft.normalise": lambda older: True,
    "routing.router_width": lambda older: 1.0,
    "routing.balance.choices": lambda older: None,
    "model.embeddings": lambda older: "learned",
    "model.tied_head": lambda older: True,
}


def is_outside(name: str) -> bool:
    """Whether the setting `name` has no part in a run's identity: what is printed or kept, and where data lies."""
    return name.startswith(NO_PART) or (name.startswith("data.options.") and name.rpartition(".")[2] in PLACE_NAMES)


def is_of_point(name: str) -> bool:
    """Whether runs that differ in the setting `name` are of different points: the seed, too, makes no other point."""
    return "." in name and name != SEED and not is_outside(name)


class Described(NamedTuple):
    """What analysis asks of a run's configuration."""

    settings: dict[str, Any]  # all of them by dotted name, each in its one spelling
    key: str
    point: str


def described(config: Any) -> Described:
    """All at once of a valid RunConfig that from_plain has made: its one spelling is found only once."""
    normal = normalised_typed(config)
    settings = settings_of(normal)
    hashed = _hashed(normal, settings)
    return Described(settings, _digest(hashed), _digest_of_point(hashed))


def key_of(config: Any) -> str:
    """The identity of a valid RunConfig: KEY_DIGITS hexadecimal digits."""
    return _digest(identity(config))


def point_of(config: Any) -> str:
    """As the key, without the seed: runs that differ in it alone are one point."""
    return _digest_of_point(identity(config))


def identity(config: Any) -> dict[str, Any]:
    """What the key hashes, by dotted name: the settings that have a part in what `config` trains."""
    normal = normalised(config)
    return _hashed(normal, settings_of(normal))


def _digest_of_point(settings: Mapping[str, Any]) -> str:
    return _digest({name: value for name, value in settings.items() if name != SEED})


def _digest(settings: Mapping[str, Any]) -> str:
    canonical = json.dumps(to_plain(settings), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:KEY_DIGITS]


def _hashed(normal: Any, whole: Mapping[str, Any]) -> dict[str, Any]:
    """The identity of a configuration in its one spelling, of which `whole` is all settings."""
    settings = {name: value for name, value in whole.items() if not is_outside(name) and is_used(normal, name)}
    settings |= _one_network(normal, settings)
    before = {name: value(settings) for name, value in ABSENT.items() if name in settings}
    return {
        name: value
        for name, value in settings.items()
        if value is not _GONE and not (name in before and before[name] == value)
    }


def settings_of(config: Any) -> dict[str, Any]:
    """All settings by dotted name, lists as tuples; of the data's options those that say what it is, not where."""
    plain = to_plain(config)
    plain["data"]["options"] = _options(config.data)
    return flatten(plain)


_GONE = object()


def _one_network(config: Any, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that can say the same network in several ways, put in the one that the network itself shows."""
    routing, depth = config.routing, config.model.layers
    layers = mixture_layers(routing, depth)
    said: dict[str, Any] = {"run.tokens": _GONE, "routing.granularity": _GONE}  # steps and sizes say the same
    if routing.selection is Selection.DENSE or len(layers) == depth:
        said["model.ffn_size"] = _GONE  # no block has a network of that size
    if routing.selection is not Selection.DENSE:
        parts = routing.granularity
        counts = routing.num_experts if isinstance(routing.num_experts, tuple) else (routing.num_experts,)
        said["routing.layers"] = layers
        said["routing.expert_size"] = routing.expert_size // parts
        said["routing.num_experts"] = [count * parts for count in counts]
        if "routing.k" in settings:
            said["routing.k"] = routing.k * parts
    return said


def _options(data: DataConfig) -> dict[str, Any]:
    try:
        return identity_options(data)
    except ConfigError:  # of an older run, by a rule that is stricter today: as they stand
        return {name: value for name, value in to_plain(data.options).items() if name not in PLACE_NAMES}


# Reading older runs ---------------------------------------------------------------------------------------------------


def completed(plain: Mapping[str, Any], todays: Any) -> dict[str, Any]:
    """A run's configuration in plain dicts, as it was written, with what it does not know yet from ABSENT.

    `todays` is any RunConfig of this version. ConfigError for a setting that is missing and not in ABSENT: every
    version wrote it, so the file is not whole.
    """
    whole, known = dict(plain), flatten(plain)
    for name in _names(todays.__class__):
        if name in known or name.startswith(("log.", "data.options")):
            continue
        if name not in ABSENT:
            raise ConfigError(f"{name} is missing, which every version of moe_study has written")
        whole = _with(whole, name, ABSENT[name](known))
    return whole


@functools.cache
def _names(config_type: type) -> tuple[str, ...]:
    """The dotted names of all settings."""
    return tuple(flatten(to_plain(config_type())))


def _with(nested: Mapping[str, Any], name: str, value: Any) -> dict[str, Any]:
    """`nested` with one more setting; none below what is not a mapping."""
    head, _, rest = name.partition(".")
    if not rest:
        return {**nested, head: value}
    below = nested.get(head, {})
    return {**nested, head: _with(below, rest, value)} if isinstance(below, Mapping) else dict(nested)
