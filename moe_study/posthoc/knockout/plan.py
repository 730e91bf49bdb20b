"""Which changes of routes a run can be put through."""

from collections.abc import Iterable, Iterator
from itertools import pairwise

from moe_study.analysis.specialisation.knockout import ALL_LAYERS, Kind, RouteChange
from moe_study.design.config import RunConfig
from moe_study.design.routing import (
    FIXED_ROUTERS,
    Routing,
    decides,
    experts_of_layer,
    mixture_layers,
    picks_per_unit,
)
from moe_study.design.selections import facts_of
from moe_study.errors import ConfigError, StudyError

FEWEST_TO_CHOOSE = 2  # experts, for what sends tokens elsewhere


def deciding_layers(config: RunConfig) -> list[int]:
    """Blocks that decide; with scope=global the first one alone, and what is done to it holds for all."""
    routing, layers = config.routing, config.model.layers
    return [layer for layer in mixture_layers(routing, layers) if decides(routing, layers, layer)]


def route_changes(
    config: RunConfig, layers: Iterable[int] | None = None, kinds: Iterable[Kind] = tuple(Kind)
) -> list[RouteChange]:
    """All that can be done to `layers` (None: every one that decides), then to all of them at once.

    StudyError for a dense run, ConfigError for a layer that does not decide.
    """
    known = deciding_layers(config)
    if not known:
        raise StudyError("a dense run has no experts, so nothing can be taken away from it")
    wanted = known if layers is None else sorted(set(layers))
    if missing := [layer for layer in wanted if layer not in known]:
        raise ConfigError(f"layer {missing[0]} decides nothing here; choose of {', '.join(map(str, known))}")
    found = [change for layer in wanted for change in _of_layer(config, layer)]
    if len(wanted) > 1:  # experts have no identity across layers: only what names none
        found += [RouteChange(ALL_LAYERS, Kind.LOSE_BEST), RouteChange(ALL_LAYERS, Kind.RANDOM_ROUTES)]
    return [change for change in found if change.kind in set(kinds)]


def _of_layer(config: RunConfig, layer: int) -> Iterator[RouteChange]:
    experts = experts_of_layer(config.routing, config.model.layers, layer)
    yield from (RouteChange(layer, Kind.REMOVE, expert) for expert in range(experts))
    yield RouteChange(layer, Kind.LOSE_BEST)
    if experts < FEWEST_TO_CHOOSE:
        return
    if can_reroute(config.routing, experts):
        yield from (RouteChange(layer, Kind.REROUTE, expert) for expert in range(experts))
    yield from (RouteChange(layer, Kind.SWAP, *pair) for pair in pairwise(range(experts)))  # numbers mean nothing
    yield from (RouteChange(layer, Kind.ONE_EXPERT, expert) for expert in range(experts))
    yield RouteChange(layer, Kind.RANDOM_ROUTES)


def can_reroute(routing: Routing, experts: int) -> bool:
    """Whether a token can have a next best expert: scores, and experts that it does not have."""
    facts = facts_of(routing)
    if routing.router in FIXED_ROUTERS or not facts.leaves_out:
        return False
    return not facts.takes_k or picks_per_unit(routing) < experts
