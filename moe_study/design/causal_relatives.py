"""The causal relatives of a leaking point: the same trained weights under decisions that read no later token.

| what leaks | its relatives |
|---|---|
| soft averages over the sequence or a chunk | over the prefix; over the chunks before (an eighth of the window) |
| ... with identity weights on one side | identity on both sides |
| expert choice over the sequence or batch | a cutoff, calibrated on training text; each token's own top k |
| the mean over the sequence | the running mean, token by token; the first token; the first eighth of the window |
| the mean over the segment | the segment before; its first token; the running mean, token by token |
| the first segment's own mean | a prior, calibrated on training text |
| a capacity with a leaking priority or over the batch | no capacity; by position, per sequence |
| shuffled decisions | the token's own |

A relative needs no training: a state that the leaking model lacks (cutoffs, a prior) is calibrated.
"""

import itertools
import json
from collections.abc import Callable, Iterable
from dataclasses import fields, replace
from typing import Any

from moe_study.design.causality import verdict
from moe_study.design.plain import to_plain
from moe_study.design.routing import (
    ChoiceScope,
    Context,
    Group,
    Priority,
    Routing,
    Selection,
    SoftForm,
    SoftWeights,
    Unit,
)
from moe_study.design.selections import Pass

PARTS = 8  # a prefix or chunk is this part of the window


def causal_relatives(routing: Routing, context: int, sequences: int | None = None) -> list[Routing]:
    """Routings of the same family that read no later token, most alike first; none for one that does not leak.

    `context` and `sequences` are the sizes of a forward pass, as in `verdict`.
    """
    size = Pass(context, sequences)
    found = [routing] if verdict(routing, *size).leaks else []
    for replaced in (_shuffle, _soft, _choice, _context, _capacity):
        found = list(itertools.chain.from_iterable(_alternatives(relative, replaced, size) for relative in found))
    assert all(not verdict(relative, *size).leaks for relative in found)
    return found


Replaced = Callable[[Routing, Pass], Iterable[Routing]]


def _alternatives(routing: Routing, replaced: Replaced, size: Pass) -> list[Routing]:
    """The alternatives of one axis, or the routing itself where that axis is in order."""
    return list(replaced(routing, size)) or [routing]


def _shuffle(routing: Routing, size: Pass) -> Iterable[Routing]:
    return [replace(routing, shuffle=False)] if routing.shuffle else []


def _soft(routing: Routing, size: Pass) -> Iterable[Routing]:
    soft = routing.soft
    if routing.selection is not Selection.SOFT or not verdict(routing, *size).leaks:
        return []
    if SoftWeights.IDENTITY in (soft.dispatch, soft.combine):
        identity = replace(soft, dispatch=SoftWeights.IDENTITY, combine=SoftWeights.IDENTITY)
        return [replace(routing, soft=identity)]
    combine = soft.combine if soft.combine is SoftWeights.UNIFORM else SoftWeights.SOFT
    chunk = soft.chunk_length or max(1, size.context // PARTS)
    forms = ((SoftForm.PREFIX, None), (SoftForm.CHUNK_LAGGED, chunk))
    return [
        replace(routing, soft=replace(soft, form=form, chunk_length=length, combine=combine)) for form, length in forms
    ]


def _choice(routing: Routing, size: Pass) -> Iterable[Routing]:
    if routing.selection is not Selection.EXPERT_CHOICE or not verdict(routing, *size).leaks:
        return []
    return [
        replace(routing, choice_scope=ChoiceScope.CUTOFF),
        replace(routing, selection=Selection.TOP_K, choice_scope=ChoiceScope.SEQUENCE),
    ]


def _context(routing: Routing, size: Pass) -> Iterable[Routing]:
    running = {"unit": Unit.TOKEN, "context": Context.RUNNING_MEAN, "segment_length": None}
    first = {"context": Context.FIRST_TOKEN}
    options: list[dict[str, Any]] = []
    if routing.context is Context.UNIT_MEAN and routing.unit is Unit.SEQUENCE:
        prefix = {"context": Context.PREFIX, "prefix_length": max(1, size.context // PARTS)}
        options = [running, first, prefix]
    elif routing.context is Context.UNIT_MEAN:
        options = [{"context": Context.PREVIOUS_SEGMENT}, first, running]
    elif routing.first_segment == "own_mean":
        options = [{"first_segment": "prior"}]
    return [replace(routing, **option) for option in options]


def _capacity(routing: Routing, size: Pass) -> Iterable[Routing]:
    if not verdict(routing, *size).leaks or routing.capacity.factor is None:
        return []
    by_position = replace(routing.capacity, priority=Priority.TOKEN_MAJOR, group=Group.SEQUENCE)
    dropless = replace(routing.capacity, factor=None)
    return [replace(routing, capacity=dropless), replace(routing, capacity=by_position)]


def difference(routing: Routing, relative: Routing) -> str:
    """What changed, as overrides: `routing.unit=token routing.context=running_mean`."""
    return " ".join(_changes("routing", routing, relative))


def _changes(where: str, old: Any, new: Any) -> Iterable[str]:
    for field in fields(old):
        before, after = getattr(old, field.name), getattr(new, field.name)
        if before == after:
            continue
        if isinstance(after, str | int | float | tuple | None):
            yield f"{where}.{field.name}={json.dumps(after) if after is None or after is False else to_plain(after)}"
        else:
            yield from _changes(f"{where}.{field.name}", before, after)
