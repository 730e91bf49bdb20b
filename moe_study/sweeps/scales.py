"""The sizes at which a sweep can be asked (`scales:` in its file): its changes for each, one chosen by `scale=NAME`.

    scale: cpu                                      # which one is meant without scale=; may be left out
    scales:
      paper: {recipe: study_paper, $english: openwebtext, seeds: [0, 1, 2]}
      cpu: {recipe: pico, $english: english_news_512}

A scale's overrides come after those of `base` and before those of each point. The keys `seeds`, `points`, `exclude`,
`compare`, `margin` and `skip_invalid` stand in for the file's. What begins with $ is a word: wherever the file has it
as a value, the scale's value is meant. A sweep's runs and results are kept under NAME@SCALE; the name of a scale has no
part in any run's key, so that scales, and sweeps, share the runs that they have in common.
"""

import difflib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from moe_study.errors import ConfigError

MARK = "@"  # between the name of a sweep and its scale
WORD = "$"
REPLACED = ("seeds", "points", "exclude", "compare", "margin", "skip_invalid")  # the file's, by those of a scale
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_FORM = "scales must map names to changes, as in scales: {cpu: {recipe: pico}, gpu: {recipe: gpu}}"

Content = Mapping[str, Any]  # of a sweep file


def names_of(content: Content, path: Path) -> list[str]:
    """The names of a sweep file's scales; ConfigError says what is wrong with how they are written."""
    scales = content.get("scales")
    if scales is None:
        if content.get("scale") is not None:
            raise ConfigError(f"{path}: scale says which of its scales is meant by itself, and it has no scales")
        return []
    if not isinstance(scales, dict) or not scales:
        raise ConfigError(f"{path}: {_FORM}, not be {scales!r}")
    for name, changes in scales.items():
        if not _NAME.fullmatch(name):
            raise ConfigError(f"{path}: a scale's name has letters, digits, - and _, unlike {name!r}")
        if not isinstance(changes, dict | None):
            raise ConfigError(f"{path}: {_FORM}; those of {name} are {changes!r}")
        for key in ("base", "scale", "scales"):
            if key in (changes or {}):
                raise ConfigError(f"{path}: {key} cannot stand in a scale; write the overrides of {name} themselves")
    default = content.get("scale")
    if default is not None and default not in scales:
        raise ConfigError(f"{path}: scale: {default!r} is none of its scales; {_advice(str(default), scales)}")
    return list(scales)


def at_scale(content: Content, scale: str | None, path: Path) -> tuple[dict[str, Any], str | None]:
    """What a sweep file says at `scale` (None: at the one that it names itself), and which scale that is.

    ConfigError where the file has no such scale, or has several and names none.
    """
    names = names_of(content, path)
    if not names:
        if scale is not None:
            raise ConfigError(f"{path} has no scales; leave scale={scale} out")
        return dict(content), None
    chosen = content.get("scale") if scale is None else scale
    if chosen is None:
        raise ConfigError(f"{path} has scales; choose one: {' or '.join(f'scale={name}' for name in names)}")
    if chosen not in names:
        raise ConfigError(f"{path} has no scale {chosen}; {_advice(chosen, names, 'scale=')}")
    changes = dict(content["scales"][chosen] or {})
    words = {key: changes.pop(key) for key in list(changes) if key.startswith(WORD)}
    own = {key: changes.pop(key) for key in REPLACED if key in changes}
    base = content.get("base") or {}
    if not isinstance(base, dict):
        raise ConfigError(f"{path}: base must map override keys to values, not be {base!r}")
    rest = {key: value for key, value in content.items() if key not in ("scale", "scales", "base")}
    merged = {**rest, "base": {**base, **changes}, **own}
    where = f"{path} at scale {chosen}"
    return {key: _with_words(value, words, where) for key, value in merged.items()}, chosen


def split(name: str) -> tuple[str, str | None]:
    """A sweep's name and its scale, of NAME@SCALE; None where it has none."""
    sweep, mark, scale = name.rpartition(MARK)
    return (sweep, scale) if mark and sweep and _NAME.fullmatch(scale) else (name, None)


def joined(name: str, scale: str | None) -> str:
    """NAME@SCALE."""
    return name if scale is None else f"{name}{MARK}{scale}"


def _with_words(value: Any, words: Mapping[str, Any], where: str) -> Any:
    if isinstance(value, dict):
        return {key: _with_words(item, words, where) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_words(item, words, where) for item in value]
    if not isinstance(value, str) or not re.fullmatch(r"\$\w+", value):
        return value
    if value not in words:
        raise ConfigError(f"{where}: {value} stands for nothing; {_advice(value, words)}")
    return words[value]


def _advice(name: str, names: Iterable[str], prefix: str = "") -> str:
    close = difflib.get_close_matches(name, list(names), n=1)
    if close:
        return f"did you mean {prefix}{close[0]}?"
    return f"choose one of {', '.join(names)}" if names else f"give the scale a value for it, as in {name}: pico"
