"""Families of points: ladders that differ in size alone, so that a curve of loss against cost has a meaning.

Points are of one family where they differ only in SIZES (and in what follows them), and where these can be put in an
order in which none shrinks as another grows: dense models 1x, 2x and 4x are one; a product of two widths with three
multipliers is two families, one for each width, since at one cost it would say two things. A product is split by the
size with the fewest values, the later one in SIZES where two have as many. Every point is in exactly one family,
most in one of their own. Leaking points and others are never of one family.
"""

import itertools
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from moe_study.analysis.pairs import Settings, settings_of
from moe_study.design.differences import differing

SIZES = (
    "routing.ffn_multiplier", "routing.expert_size", "routing.num_experts", "model.ffn_size", "model.width",
    "model.heads", "model.layers", "run.steps", "run.tokens",
)  # fmt: skip
FOLLOWING = ("model.init_std", "optimizer.warmup_steps", "run.eval_every")  # of sizes, by whatever rule
DENSE_SIZE = re.compile(r"^dense [0-9.e+-]+x")
PARTS = re.compile(r", | (?=of \d)")  # of a label


@dataclass(frozen=True)
class Family:
    """Points that differ in size alone, the smallest first."""

    name: str
    points: tuple[str, ...]  # labels
    varies: tuple[str, ...]  # settings, of SIZES


def families(runs: pd.DataFrame) -> tuple[Family, ...]:
    """Every point of `runs` (of one evaluation set, with results) in its family, in the order of first points."""
    settings = settings_of(runs)
    leaks = dict(zip(runs["label"], runs["leaks"].astype(bool), strict=True))
    groups: dict[tuple[Any, ...], list[str]] = {}
    for label, own in settings.items():
        rest = tuple(repr(own[name]) for name in sorted(own) if name not in (*SIZES, *FOLLOWING))
        groups.setdefault((leaks[label], *rest), []).append(label)
    ladders = [ladder for group in groups.values() for ladder in _ladders(group, settings)]
    names = _names([ladder for ladder, _ in ladders])
    return tuple(Family(name, points, varies) for name, (points, varies) in zip(names, ladders, strict=True))


def _ladders(group: Sequence[str], settings: Settings) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    """(points in order of size, what varies) of each family within points that differ in size alone."""
    varies = _varying(group, settings)
    ordered = sorted(group, key=lambda label: tuple(_size(settings[label][name]) for name in varies))
    if all(_grows(settings[one], settings[other], varies) for one, other in itertools.pairwise(ordered)):
        return [(tuple(ordered), varies)]
    by_value = {name: _split(ordered, settings, name) for name in varies}
    name = min(varies, key=lambda name: (len(by_value[name]), -SIZES.index(name)))
    return [ladder for part in by_value[name] for ladder in _ladders(part, settings)]


def _varying(group: Sequence[str], settings: Settings) -> tuple[str, ...]:
    """The sizes that vary by themselves, somewhere in the group."""
    first, found = settings[group[0]], set[str]()
    names = tuple(name for name in SIZES if name in first)
    for label in group[1:]:
        found.update(differing(first, settings[label], names))
    return tuple(name for name in names if name in found)


def _split(ordered: Sequence[str], settings: Settings, name: str) -> list[list[str]]:
    parts: dict[tuple[float, ...], list[str]] = {}
    for label in ordered:
        parts.setdefault(_size(settings[label][name]), []).append(label)
    return list(parts.values())


def _grows(one: Mapping[str, Any], other: Mapping[str, Any], varies: Sequence[str]) -> bool:
    return all(_size(one[name]) <= _size(other[name]) for name in varies)


def _size(value: Any) -> tuple[float, ...]:
    """A size that can be put in order; an N for each layer is ordered by their sum."""
    if value is None or value != value:
        return (0.0,)
    return (float(sum(value)), *map(float, value)) if isinstance(value, tuple | list) else (float(value),)


def _names(ladders: Sequence[Sequence[str]]) -> list[str]:
    """A name for each family, different ones for all."""
    said = [name_of(ladder) for ladder in ladders]
    return [name if said.count(name) == 1 else _ends(ladder) for name, ladder in zip(said, ladders, strict=True)]


def name_of(points: Sequence[str], labels: Collection[str] = ()) -> str:
    """A name for several points: the parts of a label that all of them share, or the first and last of them.

    What they share may be all of another point's label: no name is one of `labels`.
    """
    if len(points) == 1:
        return points[0]
    parts = [PARTS.split(DENSE_SIZE.sub("dense", label)) for label in points]
    shared = ", ".join(part for part in parts[0] if all(part in other for other in parts))
    return shared if shared and shared not in labels else _ends(points)


def _ends(points: Sequence[str]) -> str:
    return points[0] if len(points) == 1 else f"{points[0]} to {points[-1]}"
