"""The runs of a plan beside what led to them: what comparisons and effects are asked of."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from moe_study.design.config import RunConfig
from moe_study.errors import ConfigError
from moe_study.sweeps.compose import Composed
from moe_study.sweeps.partial import Meaning, Partial, in_file, matches

Question = TypeVar("Question")
Planned = TypeVar("Planned")


@dataclass(frozen=True)
class Candidate:
    """One run of the plan, with the composed point that led to it."""

    key: str
    config: RunConfig
    composed: Composed
    meaning: Meaning

    @functools.cached_property
    def point(self) -> str:
        """What it shares with the same point's other seeds."""
        return dataclasses.replace(self.config, run=dataclasses.replace(self.config.run, seed=0)).key


def resolved(
    questions: Iterable[Question],
    candidates: Sequence[Candidate],
    resolve: Callable[[Question, Sequence[Candidate]], Iterable[Planned]],
) -> tuple[tuple[Planned, ...], tuple[str, ...]]:
    """All that `resolve` makes of each question, and a sentence for each that the points cannot answer."""
    found: list[Planned] = []
    problems = []
    for question in questions:
        try:
            found += resolve(question, candidates)
        except ConfigError as error:
            problems.append(f"compare: {error}")
    return tuple(found), tuple(problems)


def setting_named(written: str, candidates: Sequence[Candidate], where: str) -> str:
    """The group or dotted setting that a name means: itself, or the one setting that ends in it.

    ConfigError, which says `where`, for one that no point uses, or that may mean several.
    """
    settings = dict.fromkeys(name for c in candidates for name in c.meaning.settings)
    groups = dict.fromkeys(name for c in candidates for name in c.composed.choices)
    if written in ("run.seed", "seed"):
        raise ConfigError(f"{where}: seeds are what is averaged over; name another setting than run.seed")
    if written in settings or written in groups:
        return written
    ending = [name for name in settings if name.endswith(f".{written}")]
    shallow = [name for name in ending if name.count(".") == min(other.count(".") for other in ending)]
    if len(shallow) == 1:
        return shallow[0]
    if shallow:
        raise ConfigError(f"{where}: {written} may mean {' or '.join(shallow)}; write which")
    raise ConfigError(f"{where}: no point of the sweep uses a setting {written}; write it as on the command line")


def level_of(candidate: Candidate, setting: str) -> str | None:
    """The value of a group or setting of one run, in words; None where the run has no use for it."""
    choices, settings = candidate.composed.choices, candidate.meaning.settings
    if setting in choices:
        return level_words(choices[setting])
    return level_words(settings[setting]) if setting in settings else None


def level_words(value: Any) -> str:
    """A value as reports write it."""
    if value is None:
        return "unset"
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:g}" if isinstance(value, int | float) else str(value)


def one_point(side: Partial, candidates: Sequence[Candidate]) -> list[Candidate]:
    """The one point that a side means, over its seeds; ConfigError where it means none or several."""
    found = matching(side, candidates)
    if len({c.point for c in found}) > 1:
        keys, points = ", ".join(_telling_apart(found)) or "another setting", len({c.point for c in found})
        raise ConfigError(f"{in_file(side)} matches {points} points of the sweep; add {keys} to tell them apart")
    return found


def matching(side: Partial, candidates: Sequence[Candidate]) -> list[Candidate]:
    """All points that a side means, over their seeds; ConfigError where it means none."""
    for as_meant in (False, True):  # what no point was written with may be what a size came out as
        found = [c for c in candidates if matches(side, c.composed, c.meaning, "a side", as_meant=as_meant)]
        if found:
            return found
    raise ConfigError(f"{in_file(side)} matches no point of the sweep (invalid and excluded ones are none)")


def keys_of(candidates: Iterable[Candidate]) -> tuple[str, ...]:
    """Of their runs, each once."""
    return tuple(dict.fromkeys(c.key for c in candidates))


def _telling_apart(candidates: Sequence[Candidate]) -> list[str]:
    """Choices and settings in which the candidates differ, those that a file would name first; at most three."""
    written = [{**c.composed.choices, **{key: c.composed.value(key) for key in c.composed.given}} for c in candidates]
    keys = dict.fromkeys(key for one in written for key in one)
    differing = [key for key in keys if len({repr(one.get(key)) for one in written}) > 1]
    return [key for key in differing if not key.startswith("log.") and key != "run.seed"][:3]
