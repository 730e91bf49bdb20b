"""One mixture layer against its dense twin of equal active FLOPs: forward and backward, router included, dropless.

Questions: what does routing cost, over N, K, expert size, unit, scope and load? Does a threshold that keeps fewer
experts run in less time? Does uneven load cost more than even load? Peers are measured by bench/peers.py.

    python -m bench.layer [--rows 8x1 64x8 "64x8 sequence" ...] [--threads 1] [--rounds 9]

Each round times the dense twin, the layer, and the dense twin again; a ratio is that of the layer to the mean of the
two. With one thread the seconds are the process's CPU seconds, which other processes disturb least.

Shape suffixes: B sequences, T positions, D width, E experts, N = B * T tokens, K picks.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from bench.common import Row, flanked, open_results, options, prepare_process, unusual
from bench.sides import (
    DENSE_HIDDEN,
    Setting,
    Side,
    dense,
    kept_in_last_pass,
    kept_per_expert,
    layers_of,
    mixture,
    twin_hidden,
)
from moe_study.design.routing import Balance, Capacity, Context, Gate, RouterKind, Routing, Scope, Selection, Unit

EIGHT = Routing(num_experts=64, k=8, expert_size=DENSE_HIDDEN // 8, gate=Gate.PICK_THEN_SOFTMAX)
SEQUENCE = replace(EIGHT, unit=Unit.SEQUENCE, context=Context.UNIT_MEAN, gate=Gate.DOUBLE_SOFTMAX)
SEGMENT = replace(SEQUENCE, unit=Unit.SEGMENT, context=Context.PREVIOUS_SEGMENT, segment_length=32)
SMALL = Routing(selection=Selection.THRESHOLD, num_experts=64, expert_size=64)
BUSY = 8  # experts of 64 that take more than the others when the load is uneven


ROWS: dict[str, Routing] = {
    "8x1": Routing(num_experts=8, k=1),
    "8x2": Routing(num_experts=8, k=2, expert_size=DENSE_HIDDEN // 2, gate=Gate.PICK_THEN_SOFTMAX),
    "64x8": EIGHT,
    "512x8": replace(EIGHT, num_experts=512),
    "1024x8": replace(EIGHT, num_experts=1024),
    "64x1 of size 1024": Routing(num_experts=64, k=1),
    "64x2 of size 512": replace(EIGHT, k=2, expert_size=512),
    "64x8 of size 32": replace(EIGHT, expert_size=32),
    "64x8 of size 512": replace(EIGHT, expert_size=512),
    "64x8 balanced by loss": replace(EIGHT, balance=Balance(switch=0.01, z=0.001)),
    "64x8 shared": replace(EIGHT, shared_experts=1, k=7),
    "64x8 capacity 1.25": replace(EIGHT, capacity=Capacity(factor=1.25)),
    "64x8 hash": replace(EIGHT, router=RouterKind.HASH, gate=Gate.SOFTMAX_THEN_PICK),
    "64x8 segment": SEGMENT,
    "8x8 sequence": replace(SEQUENCE, num_experts=8),
    "64x8 sequence": SEQUENCE,
    "512x8 sequence": replace(SEQUENCE, num_experts=512),
    "64x8 global": replace(EIGHT, scope=Scope.GLOBAL),
}


def settings(side: Side, setting: Setting) -> dict[str, Any]:
    """What stands in every row of how it was measured; of a side that was timed."""
    kept = round(int(kept_in_last_pass(side).sum()) / setting.tokens, 3)
    return {
        "tokens": setting.tokens,
        "width": setting.width,
        "precision": setting.precision,
        "kept_per_token": kept,
    }


def over_dense(routing: Routing, rounds: int, setting: Setting) -> Row:
    """The layer of `routing` over its dense twin."""
    side, hidden, layers = mixture(routing, setting), twin_hidden(routing, setting), layers_of(routing)
    row = flanked(side, dense(hidden, setting, layers), rounds, device=setting.device)
    return {**row, **settings(side, setting), "twin_hidden": hidden, "layers": layers}


def threshold(rounds: int, setting: Setting) -> Row:
    """A threshold layer that keeps 2 experts per token over one that keeps 8."""
    few, many = keeping(2.0, setting), keeping(8.0, setting)
    row = flanked(few, many, rounds, device=setting.device)
    return {**row, **settings(few, setting), "kept_per_token_of_twin": settings(many, setting)["kept_per_token"]}


def keeping(picks: float, setting: Setting) -> Side:
    """A threshold layer (N=64, size 64) whose t keeps about `picks` experts per token on the benchmark's input."""
    low, high = 0.0, 1.0
    for _ in range(14):
        middle = (low + high) / 2
        side = mixture(replace(SMALL, threshold=middle), setting)
        router_weight(side).data.mul_(10)  # decisions as sharp as trained ones
        if int(kept_per_expert(side).sum()) < picks * setting.tokens:
            low = middle
        else:
            high = middle
    return side


def skew(rounds: int, setting: Setting) -> Row:
    """The (64, 8) layer whose 8 busiest experts take 4 times the mean load, over the same with even load."""
    uneven, even = loaded(4, setting), loaded(1, setting)
    row = flanked(uneven, even, rounds, device=setting.device)
    loads = {name: busiest_over_mean(side) for name, side in (("uneven", uneven), ("even", even))}
    return {**row, **settings(uneven, setting), "busiest_over_mean": loads}


def loaded(busy_picks: int, setting: Setting) -> Side:
    """The (64, 8) layer on an input that makes its router send each token to experts drawn beforehand.

    Of a token's 8 experts, `busy_picks` are among experts 0 to 7 and the others among 8 to 63, all equally likely:
    experts 0 to 7 take `busy_picks` times the mean load. The router reads logits off the first 64 entries of its
    input, in which the drawn experts stand out; everything else is as in any other row.
    """
    side = mixture(EIGHT, setting)
    experts = int(EIGHT.num_experts)  # type: ignore[arg-type]
    drawn_NK = planted_picks(busy_picks, setting.tokens, experts).to(side.x_BTD.device)
    weight_ED = router_weight(side)
    weight_ED.data.copy_(torch.eye(experts, setting.width))
    side.x_BTD.flatten(0, 1).scatter_add_(1, drawn_NK, torch.full(drawn_NK.shape, 10.0, device=drawn_NK.device))
    return side


def planted_picks(busy_picks: int, tokens: int, experts: int) -> Tensor:
    """(N, 8) distinct experts for every token, `busy_picks` of them among the first 8."""
    scores_NE = torch.rand(tokens, experts, generator=torch.Generator().manual_seed(3))
    busy_NK = scores_NE[:, :BUSY].topk(busy_picks).indices
    other_NK = scores_NE[:, BUSY:].topk(EIGHT.k - busy_picks).indices + BUSY
    return torch.cat((busy_NK, other_NK), 1)


def busiest_over_mean(side: Side) -> float:
    """Load of the 8 busiest experts over the mean load."""
    kept_E = kept_per_expert(side).double()
    return round(float(kept_E.topk(BUSY).values.mean() / kept_E.mean()), 3)


def router_weight(side: Side) -> nn.Parameter:
    return side.module.get_parameter("layers.0.decider.router.weights.0")


COMPARISONS: dict[str, Callable[[int, Setting], Row]] = {
    "threshold 2 over 8": threshold,
    "skew 4:1 over balanced": skew,
}


def measure(name: str, rounds: int, setting: Setting) -> Row:
    """The row of that name, at any setting."""
    if name in COMPARISONS:
        return COMPARISONS[name](rounds, setting)
    return over_dense(ROWS[name], rounds, setting)


def main() -> None:
    parser = options(__doc__, rounds=9, rows=[*ROWS, *COMPARISONS])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--sequences", type=int, default=Setting.sequences, help="of 256 tokens each")
    arguments = parser.parse_args()
    prepare_process(arguments.threads)
    results, setting = open_results(arguments), Setting(sequences=arguments.sequences)
    end = unusual(threads=(arguments.threads, 1), sequences=(arguments.sequences, Setting.sequences))
    for name in arguments.rows:
        results.measure(f"layer {name}{end}", partial(measure, name, arguments.rounds, setting))


if __name__ == "__main__":
    main()
