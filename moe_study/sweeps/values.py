"""Values of sweep files: read as the command line reads them, and written as it takes them.

Without quotes a value of a sweep file means what it means behind `key=` on the command line (1e-3 is a number, off is
a text); in quotes it is a text. Where YAML sees a number and Hydra does not (010, 0x1f, 1:30, .inf), nobody can know
which was meant, and it is an error; so is a key that stands twice in one mapping.
"""

import functools
import re
from collections.abc import Hashable, Iterable
from pathlib import Path
from typing import Any, ClassVar

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString, Sweep
from hydra.errors import HydraException
from yaml.constructor import ConstructorError

from moe_study.errors import ConfigError

PLAIN = re.compile(r"[\w./:+%@*-]+|\$\{[^{}]+\}", re.ASCII)  # texts without quotes, unless Hydra sees a number in them
DICT_KEY = re.compile(r"[\w./+%@*-]+", re.ASCII)  # Hydra takes no quotes around the keys of a mapping
NULLS = ("", "~", "null", "Null", "NULL")
NUMBER_TAGS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
MERGE_TAG = "tag:yaml.org,2002:merge"
UNQUOTED_TAG = "!unquoted"


def read_yaml(path: Path) -> Any:
    """What a sweep file holds; ConfigError, which names the file and the line, where it cannot be read."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        try:
            return _construct(text, _QuickLoader)
        except yaml.YAMLError:  # C's parser takes a little less ({a:, b: 1}), and words mistakes otherwise
            return _construct(text, _Loader)
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"{path}{line} cannot be read: {error.problem or error.context}") from error
    except (OSError, UnicodeError, yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"{path} cannot be read: {' '.join(str(error).split())}") from error


def _construct(text: str, loader_class: Any) -> Any:
    loader = loader_class(text)
    node = loader.get_single_node()
    return None if node is None else loader.construct_object(node, deep=True)


class _AsOnTheCommandLine(yaml.constructor.SafeConstructor):
    """Makes values of YAML, the unquoted ones as they are read on the command line."""

    yaml_implicit_resolvers: ClassVar = {"<": [(MERGE_TAG, re.compile("<<$"))], None: [(UNQUOTED_TAG, re.compile(""))]}

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Keys are texts, as they are written; what `<<` merges in gives way to them."""
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise ConstructorError(None, None, "a list or a mapping cannot be a key", key.start_mark)
            if key.tag != MERGE_TAG and key.value in seen:
                raise ConstructorError(None, None, f"the key {key.value} stands twice", key.start_mark)
            seen.add(key.value)
        self.flatten_mapping(node)
        return {key.value: self.construct_object(value, deep=True) for key, value in node.value}

    def construct_unquoted(self, node: yaml.ScalarNode) -> Any:
        try:
            return read_unquoted(node.value)
        except ConfigError as error:
            raise ConstructorError(None, None, str(error), node.start_mark) from error

    yaml_constructors: ClassVar = {**yaml.SafeLoader.yaml_constructors, UNQUOTED_TAG: construct_unquoted}


class _Loader(_AsOnTheCommandLine, yaml.SafeLoader):
    """By Python's parser."""


_Quick: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # fifteen times faster, where PyYAML was built with it


class _QuickLoader(_AsOnTheCommandLine, _Quick):
    """By C's parser."""


def read_unquoted(text: str) -> Any:
    """What an unquoted value means: null, true or false, a number, or else the text itself."""
    if text in NULLS:
        return None
    value = _by_hydra(text)
    if isinstance(value, Sweep):
        raise ConfigError(f'{text} lists several values; write them in [...], or "{text}" for one text')
    if isinstance(value, str) and (number := _number_of_yaml(text)) is not None:
        raise ConfigError(f'{text} is a text on the command line, and {number} in YAML; write {number} or "{text}"')
    return text if isinstance(value, str) else value


def as_text(value: Any) -> str:
    """A value as Hydra takes it on the command line; ConfigError where it has no words for it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return "[" + ",".join(as_text(item) for item in value) + "]"
    if isinstance(value, dict):
        for key in value:
            if not DICT_KEY.fullmatch(str(key)):
                raise ConfigError(f"{key!r} cannot be a key; use letters, digits, _, - and dots")
        return "{" + ",".join(f"{key}:{as_text(item)}" for key, item in value.items()) + "}"
    if isinstance(value, str) and not (PLAIN.fullmatch(value) and isinstance(_by_hydra(value), str)):
        return quoted(value)
    return str(value)


def quoted(text: str) -> str:
    """The text in quotes, as Hydra takes it: those that do not stand in it, where that can be."""
    quote = Quote.single if '"' in text and "'" not in text else Quote.double
    return QuotedString(text, quote).with_quotes()


@functools.lru_cache(maxsize=4096)
def _by_hydra(text: str) -> Any:
    """What Hydra reads after `key=`; the text itself where it can read nothing."""
    try:
        return OverridesParser.create().parse_override(f"key={text}").value()
    except (HydraException, ValueError):  # ValueError: a number of too many digits
        return text


def _number_of_yaml(text: str) -> float | None:
    """The number that YAML 1.1 sees in an unquoted value, if it does."""
    loader = yaml.SafeLoader("")
    tag = loader.resolve(yaml.ScalarNode, text, (True, False))
    try:
        return loader.construct_object(yaml.ScalarNode(tag, text)) if tag in NUMBER_TAGS else None
    except ValueError:
        return None


def in_order(levels: Iterable[str]) -> tuple[str, ...]:
    """Each once: numbers by size, otherwise as they come."""
    found = list(dict.fromkeys(levels))
    try:
        return tuple(sorted(found, key=float))
    except ValueError:
        return tuple(found)
