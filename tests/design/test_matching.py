"""Matched sizes: the best there is by brute force, or a refusal that says why."""

import dataclasses
import functools
from collections.abc import Callable, Iterator

import pytest

from moe_study.design.accounting import flops_per_token, num_active_params, num_params
from moe_study.design.config import RunConfig
from moe_study.design.matching import Match, resolve_match
from moe_study.design.routing import Routing, Selection
from moe_study.design.validation import validate
from moe_study.errors import ConfigError
from tests.design.points import DENSE, TOP_K, toy

QUANTITY: dict[str, Callable[[RunConfig], float]] = {
    "total_params": num_params,
    "active_params": num_active_params,
    "flops": flops_per_token,
}
POINTS = TOP_K | DENSE


def with_size(config: RunConfig, solve: str, size: int) -> RunConfig:
    """The point with one size set, written out again."""
    if solve == "dense_twin":
        routing = Routing(selection=Selection.DENSE, expert_size=size)
    elif solve == "expert_size":
        routing = dataclasses.replace(config.routing, expert_size=size)
    else:
        routing = dataclasses.replace(config.routing, num_experts=size)
    return dataclasses.replace(config, routing=routing)


def best_distance(config: RunConfig, match: Match, wanted: float) -> float:
    """Smallest distance to `wanted` over every valid size up to 300."""
    if match.solve == "dense_twin":
        assert config == toy(config.routing)
        return min(abs(size - wanted) for size in dense_sizes(match.quantity))
    return min(abs(size - wanted) for size in sizes(config, match))


@functools.cache
def dense_sizes(quantity: str) -> list[float]:
    """Those of every dense toy: the same for whatever point they are twins of."""
    return list(sizes(toy(), Match(quantity)))


def sizes(config: RunConfig, match: Match) -> Iterator[float]:
    for size in range(1, 300):
        candidate = with_size(config, match.solve, size)
        try:
            validate(candidate)
        except ConfigError:
            continue
        yield QUANTITY[match.quantity](candidate)


@pytest.mark.parametrize("quantity", QUANTITY)
@pytest.mark.parametrize("point", POINTS)
def test_a_dense_twin_is_the_closest_dense_model(point: str, quantity: str) -> None:
    config, match = toy(POINTS[point]), Match(quantity)
    twin, solution = resolve_match(config, match)
    assert twin.routing.selection is Selection.DENSE and solution is not None
    validate(twin)
    wanted, reached = QUANTITY[quantity](config), QUANTITY[quantity](twin)
    assert (solution.wanted, solution.reached) == (wanted, reached)
    assert abs(reached - wanted) == best_distance(config, match, wanted)
    assert solution.residual == pytest.approx((reached - wanted) / wanted, abs=1e-12)


@pytest.mark.parametrize("quantity", QUANTITY)
@pytest.mark.parametrize("point", ["top2 mixtral", "granular", "shared experts", "every second layer", "all experts"])
def test_an_expert_size_is_the_closest_there_is(point: str, quantity: str) -> None:
    config = toy(TOP_K[point], ffn_size=96)
    wanted = QUANTITY[quantity](toy(Routing(selection=Selection.DENSE), ffn_size=96))
    match = Match(quantity, solve="expert_size")
    solved, solution = resolve_match(config, match)
    validate(solved)
    assert dataclasses.replace(solved.routing, expert_size=None) == config.routing
    assert solution is not None and solution.wanted == wanted
    assert abs(QUANTITY[quantity](solved) - wanted) == best_distance(config, match, wanted)


@pytest.mark.parametrize("k", [1, 2, 3])
@pytest.mark.parametrize("target", [8_200.0, 9_000.0, 20_000.0, 31_234.5])
def test_a_number_of_experts_is_the_closest_there_is(k: int, target: float) -> None:
    config, match = toy(Routing(num_experts=4, k=k)), Match("total_params", solve="num_experts", target=target)
    solved, solution = resolve_match(config, match)
    validate(solved)
    assert solution is not None and solution.wanted == target
    assert abs(num_params(solved) - target) == best_distance(config, match, target)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_a_target_just_under_the_fewest_experts_is_met_by_these(k: int) -> None:
    fewest = toy(Routing(num_experts=k, k=k))
    target = num_params(fewest) - 100.0  # one expert more or fewer is over 600 parameters
    solved, _ = resolve_match(toy(Routing(k=k)), Match("total_params", solve="num_experts", target=target))
    assert solved.routing.num_experts == k


def test_a_dense_model_is_its_own_twin() -> None:
    config = toy(DENSE["dense twice as wide"])
    twin, solution = resolve_match(config, Match("flops"))
    assert twin.routing.expert_size == 24 and solution is not None and solution.residual == 0


def test_nothing_is_changed_when_nothing_is_matched() -> None:
    config = toy(TOP_K["top1"])
    assert resolve_match(config, Match()) == (config, None)


@pytest.mark.parametrize(
    ("routing", "match", "sentence"),
    [
        (Routing(), Match("parameters"), "match.quantity=parameters is unknown; choose none, total_params"),
        (Routing(), Match("flops", solve="width"), "match.solve=width is unknown; choose dense_twin"),
        (DENSE["dense"], Match("flops", solve="expert_size"), "needs a mixture"),
        (Routing(), Match("total_params", "num_experts", target=1_000), "the smallest has"),
        (Routing(num_experts=64), Match("total_params", "expert_size", target=4_000), "the smallest has"),
        (TOP_K["hash"], Match("flops", "num_experts"), "num_experts does not change flops"),
        (TOP_K["label"], Match("active_params", "num_experts"), "num_experts does not change active_params"),
    ],
)
def test_what_cannot_be_matched_is_refused(routing: Routing, match: Match, sentence: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        resolve_match(toy(routing), match)
    assert sentence in str(refusal.value)
