"""Which changes there are for which routing."""

from collections import Counter
from pathlib import Path

import pytest

from moe_study.analysis.specialisation.knockout import ALL_LAYERS, Kind
from moe_study.design.plain import from_plain
from moe_study.design.routing import Routing
from moe_study.errors import ConfigError, StudyError
from moe_study.posthoc.knockout.plan import deciding_layers, route_changes
from tests.posthoc.runs import run_config
from tests.posthoc.test_trace import POINTS

REROUTED = (
    "top-1", "top-2 sigmoid", "top-2 with capacity", "threshold", "threshold with capacity", "expert choice",
    "sequence mean", "prefix", "segments", "global", "every second layer", "many experts",
)  # fmt: skip


@pytest.mark.parametrize("name", POINTS)
def test_every_routing_has_what_means_something_for_it(name: str) -> None:
    config = run_config(Path("runs"), from_plain(Routing, POINTS[name]))
    layers = {"every second layer": [1]}.get(name, [0] if "global" in name else [0, 1, 2])
    assert deciding_layers(config) == layers
    found = Counter((change.layer, change.kind) for change in route_changes(config))
    experts = 300 if name == "many experts" else 4
    for layer in layers:
        assert found[layer, Kind.REMOVE] == found[layer, Kind.ONE_EXPERT] == experts
        assert found[layer, Kind.SWAP] == experts - 1
        assert found[layer, Kind.LOSE_BEST] == found[layer, Kind.RANDOM_ROUTES] == 1
        assert found[layer, Kind.REROUTE] == (experts if name in REROUTED else 0)
    together = {change.kind for change in route_changes(config) if change.layer == ALL_LAYERS}
    assert together == ({Kind.LOSE_BEST, Kind.RANDOM_ROUTES} if len(layers) > 1 else set())


def test_layers_and_kinds_can_be_chosen() -> None:
    config = run_config(Path("runs"), Routing())
    found = route_changes(config, [2], [Kind.REMOVE, Kind.SWAP])
    assert {(change.layer, change.kind) for change in found} == {(2, Kind.REMOVE), (2, Kind.SWAP)}
    assert all(change.layer != ALL_LAYERS for change in route_changes(config, [2]))


def test_one_expert_can_be_removed_and_nothing_else() -> None:
    found = route_changes(run_config(Path("runs"), Routing(num_experts=1)), [0])
    assert [change.kind for change in found] == [Kind.REMOVE, Kind.LOSE_BEST]


def test_where_every_expert_is_picked_there_is_no_next_best() -> None:
    config = run_config(Path("runs"), Routing(num_experts=2, k=2))
    assert Kind.REROUTE not in {change.kind for change in route_changes(config)}


def test_what_cannot_be_is_one_clear_sentence() -> None:
    with pytest.raises(StudyError, match="a dense run has no experts"):
        route_changes(run_config(Path("runs"), from_plain(Routing, {"selection": "dense"})))
    followers = run_config(Path("runs"), from_plain(Routing, {"scope": "global"}))
    with pytest.raises(ConfigError, match="layer 2 decides nothing here; choose of 0"):
        route_changes(followers, [0, 2])
