"""What a sweep is there to compare (`compare:` in its file), from partial overrides to the runs on either side.

A few comparisons that are stated before the runs can be tested together at a small price: every comparison that is
tested makes all of them harder to decide. So a file states those that it was written for, and reports describe all
others without a verdict.
"""

import dataclasses
import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moe_study.design.config import RunConfig
from moe_study.errors import ConfigError
from moe_study.runs.members import PlannedComparison
from moe_study.sweeps.compose import Composed
from moe_study.sweeps.partial import Meaning, Partial, matches
from moe_study.sweeps.values import as_text

FORM = "a list of two sides, or a mapping with pair: (two sides), why: (a text) and margin: (a number)"


@dataclass(frozen=True)
class Question:
    """One comparison as a sweep file states it."""

    sides: tuple[Partial, Partial]
    why: str = ""
    margin: float | None = None  # nats per token

    @property
    def texts(self) -> tuple[str, str]:
        """Each side in one line, as on the command line."""
        left, right = (" ".join(f"{key}={as_text(value)}" for key, value in side.items()) for side in self.sides)
        return left, right


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


def read_questions(content: Mapping[str, Any], path: Path) -> tuple[Question, ...]:
    """`compare:` and `margin:` of a sweep file; ConfigError says what is wrong with them."""
    margin = _margin(content.get("margin"), path)
    entries = content.get("compare") or []
    if not isinstance(entries, list):
        raise ConfigError(f"{path}: compare must be a list, each entry {FORM}")
    questions = tuple(_question(entry, margin, path) for entry in entries)
    seen: set[frozenset[str]] = set()
    for question in questions:
        if frozenset(question.texts) in seen:
            raise ConfigError(f"{path}: compare has {' against '.join(question.texts)} twice; write it once")
        seen.add(frozenset(question.texts))
    return questions


def _question(entry: Any, margin: float | None, path: Path) -> Question:
    if isinstance(entry, list):
        entry = {"pair": entry}
    if not isinstance(entry, dict) or not set(entry) <= {"pair", "why", "margin"}:
        raise ConfigError(f"{path}: an entry of compare must be {FORM}, not {entry!r}")
    pair, why = entry.get("pair"), entry.get("why") or ""
    if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(side, dict) and side for side in pair):
        raise ConfigError(
            f"{path}: a comparison has two sides, each a mapping from override keys to values, as in "
            f"[{{routing: token_top2}}, {{routing: dense}}], not {pair!r}"
        )
    if not isinstance(why, str):
        raise ConfigError(f"{path}: why must be a text, not {why!r}")
    for side in pair:
        if "run.seed" in side:
            raise ConfigError(f"{path}: a comparison is over all seeds; leave run.seed out of {side!r}")
    return Question((pair[0], pair[1]), " ".join(why.split()), _margin(entry.get("margin"), path) or margin)


def _margin(value: Any, path: Path) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise ConfigError(f"{path}: margin must be a number of nats per token above 0, not {value!r}")
    return float(value)


def resolve(
    questions: Iterable[Question], candidates: Sequence[Candidate]
) -> tuple[tuple[PlannedComparison, ...], tuple[str, ...]]:
    """The comparisons with the keys of their runs, and a sentence for each that is not one between two points."""
    found, problems = [], []
    for question in questions:
        try:
            left, right = (tuple(_runs_of_side(side, candidates)) for side in question.sides)
            if set(left) == set(right):
                raise ConfigError(f"both sides are the same point: {' and '.join(question.texts)}; change one")
        except ConfigError as error:
            problems.append(f"compare: {error}")
            continue
        texts = question.texts
        found.append(PlannedComparison(texts[0], texts[1], left, right, question.why, question.margin))
    return tuple(found), tuple(problems)


def _runs_of_side(side: Partial, candidates: Sequence[Candidate]) -> list[str]:
    """Keys of the one point that a side means, over its seeds; ConfigError where it means none or several."""
    for as_meant in (False, True):  # what no point was written with may be what a size came out as
        matching = [c for c in candidates if matches(side, c.composed, c.meaning, "a side", as_meant=as_meant)]
        points = list(dict.fromkeys(c.point for c in matching))
        if len(points) == 1:
            return list(dict.fromkeys(c.key for c in matching))
        if points:
            keys = ", ".join(_telling_apart(matching)) or "another setting"
            raise ConfigError(f"{_text(side)} matches {len(points)} points of the sweep; add {keys} to tell them apart")
    raise ConfigError(f"{_text(side)} matches no point of the sweep (invalid and excluded ones are none)")


def _telling_apart(candidates: Sequence[Candidate]) -> list[str]:
    """Choices and settings in which the candidates differ, those that a file would name first; at most three."""
    written = [{**c.composed.choices, **{key: c.composed.value(key) for key in c.composed.given}} for c in candidates]
    keys = dict.fromkeys(key for one in written for key in one)
    differing = [key for key in keys if len({repr(one.get(key)) for one in written}) > 1]
    return [key for key in differing if not key.startswith("log.") and key != "run.seed"][:3]


def _text(side: Partial) -> str:
    return "{" + ", ".join(f"{key}: {as_text(value)}" for key, value in side.items()) + "}"
