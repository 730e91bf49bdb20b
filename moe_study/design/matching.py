"""Makes a point comparable: solves one size so that parameters, active parameters or FLOPs come out equal.

`solve=dense_twin` replaces the point by the dense model whose hidden size comes closest to it; the other two
keep the routing and change its own size until it meets a target (by default that of the plain dense model).
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

from moe_study.design.accounting import flops_per_token, num_active_params, num_params
from moe_study.design.config import RunConfig
from moe_study.design.routing import Routing, Selection
from moe_study.errors import ConfigError

QUANTITIES: dict[str, Callable[[RunConfig], float]] = {
    "total_params": num_params,
    "active_params": num_active_params,
    "flops": flops_per_token,
}
LARGEST = 1 << 24  # no size beyond this is tried


@dataclass(frozen=True)
class Match:
    """What is held equal (`quantity`), by changing what (`solve`), to which value (`target`)."""

    quantity: str = "none"  # none | total_params | active_params | flops
    solve: str = "dense_twin"  # dense_twin | expert_size | num_experts
    target: float | None = None  # None: the plain dense model's; dense_twin always takes the point's own


@dataclass(frozen=True)
class Solution:
    """How well a size could be matched."""

    quantity: str
    wanted: float
    reached: float

    @property
    def residual(self) -> float:
        """Relative difference of what was reached to what was wanted."""
        return self.reached / self.wanted - 1


def resolve_match(config: RunConfig, match: Match) -> tuple[RunConfig, Solution | None]:
    """The configuration with its size solved, and the residual; ConfigError when there is no solution."""
    if match.quantity == "none":
        return config, None
    if match.quantity not in QUANTITIES:
        raise ConfigError(f"match.quantity={match.quantity} is unknown; choose none, {', '.join(QUANTITIES)}")
    quantity = QUANTITIES[match.quantity]
    if match.solve == "dense_twin":
        wanted = quantity(config)
        with_size = _dense_with(config)
    else:
        wanted = match.target if match.target is not None else quantity(_dense_with(config)(config.model.hidden))
        with_size = _routing_with(config, match.solve)
    if quantity(with_size(1)) == quantity(with_size(LARGEST)):
        raise ConfigError(f"{match.solve} does not change {match.quantity} here; choose another match.solve")
    size = _closest(lambda n: quantity(with_size(n)), wanted)
    if size is None:
        raise ConfigError(
            f"no {match.solve} gives {match.quantity}={wanted:.4g}: the smallest has "
            f"{quantity(with_size(1)):.4g}; change match.target or the point"
        )
    solved = with_size(size)
    return solved, Solution(match.quantity, wanted, quantity(solved))


def _dense_with(config: RunConfig) -> Callable[[int], RunConfig]:
    def build(hidden: int) -> RunConfig:
        routing = Routing(selection=Selection.DENSE, expert_size=hidden)
        return dataclasses.replace(config, routing=routing)

    return build


def _routing_with(config: RunConfig, solve: str) -> Callable[[int], RunConfig]:
    routing = config.routing
    if routing.selection is Selection.DENSE:
        raise ConfigError(f"match.solve={solve} needs a mixture; a dense model has match.solve=dense_twin")
    if solve == "expert_size":
        # A split expert stays divisible: the size grows in steps of the granularity.
        changed = lambda n: dataclasses.replace(routing, expert_size=n * routing.granularity)  # noqa: E731
    elif solve == "num_experts":
        # The first size is the smallest that leaves K experts to pick, so that every further one counts.
        changed = lambda n: dataclasses.replace(routing, num_experts=n + routing.k - 1)  # noqa: E731
    else:
        raise ConfigError(f"match.solve={solve} is unknown; choose dense_twin, expert_size or num_experts")
    return lambda n: dataclasses.replace(config, routing=changed(n))


def _closest(value: Callable[[int], float], wanted: float) -> int | None:
    """The n >= 1 whose `value` (non-decreasing in n) is closest to `wanted`; None when it cannot be met.

    It cannot when even n=1 is too large by more than half the step to n=2, or the largest n too small.
    """
    step = value(2) - value(1)
    if value(1) > wanted + step / 2 or value(LARGEST) < wanted:
        return None
    low, high = 1, LARGEST
    while low < high:
        middle = (low + high) // 2
        if value(middle) < wanted:
            low = middle + 1
        else:
            high = middle
    return min((n for n in (low - 1, low) if n >= 1), key=lambda n: abs(value(n) - wanted))
