"""One mixture layer against its dense twin of equal active FLOPs: forward and backward, router included, dropless.

Questions: what does routing cost, over N, K, expert size, unit, scope and load? Does a threshold that keeps fewer
experts run in less time? Peers are measured by bench/peers.py.

    python -m bench.layer [--rows 8x1 64x8 ...] [--threads 1] [--rounds 9] [--output FILE]

Each round times the dense twin, the layer, and the dense twin again; a ratio is that of the layer to the mean of the
two. With one thread the seconds are the process's CPU seconds, which other processes disturb least.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from bench.common import environment, prepare_process, report
from moe_study.config import ModelConfig
from moe_study.design.routing import Balance, Context, Gate, Routing, Selection, Unit, expert_hidden
from moe_study.model.ffn import MLP, build_ffn
from moe_study.model.forward_pass import ForwardPass
from moe_study.model.initialisation import Initialiser

WIDTH, DENSE_HIDDEN, SEQUENCES, LENGTH = 256, 1024, 32, 256  # 8,192 tokens
MODEL = ModelConfig(layers=1, heads=4, width=WIDTH, context=LENGTH)
EIGHT = Routing(num_experts=64, k=8, expert_size=128, gate=Gate.PICK_THEN_SOFTMAX)
SEQUENCE = Routing(k=8, expert_size=128, unit=Unit.SEQUENCE, context=Context.UNIT_MEAN, gate=Gate.DOUBLE_SOFTMAX)
SMALL = Routing(selection=Selection.THRESHOLD, num_experts=64, expert_size=64)


ROWS: dict[str, Routing] = {
    "8x1": Routing(num_experts=8, k=1),
    "8x2": Routing(num_experts=8, k=2, expert_size=512, gate=Gate.PICK_THEN_SOFTMAX),
    "64x8": EIGHT,
    "64x8 balanced by loss": replace(EIGHT, balance=Balance(switch=0.01, z=0.001)),
    "64x8 shared": replace(EIGHT, shared_experts=1, k=7),
    "512x8": replace(EIGHT, num_experts=512),
    "1024x8": replace(EIGHT, num_experts=1024),
    "8x8 sequence": replace(SEQUENCE, num_experts=8),
    "64x8 sequence": replace(SEQUENCE, num_experts=64),
    "512x8 sequence": replace(SEQUENCE, num_experts=512),
}


class Side:
    """A layer with its input, timed over forward and backward."""

    def __init__(self, layer: nn.Module, clock: Callable[[], float]) -> None:
        generator = torch.Generator().manual_seed(0)
        Initialiser(0, 1).module(layer, "blocks.0.ffn")
        self.layer, self.clock = layer, clock
        self.x_BTD = torch.randn(SEQUENCES, LENGTH, WIDTH, generator=generator)
        self.grad_BTD = torch.randn(SEQUENCES, LENGTH, WIDTH, generator=generator)
        self.tokens_BT = torch.zeros(SEQUENCES, LENGTH, dtype=torch.long)

    def seconds(self) -> float:
        x_BTD = self.x_BTD.detach().requires_grad_()
        self.layer.zero_grad(set_to_none=True)
        start = self.clock()
        self.layer(x_BTD, ForwardPass(self.tokens_BT)).backward(self.grad_BTD)
        return self.clock() - start

    def picks_per_token(self) -> float:
        forward_pass = ForwardPass(self.tokens_BT)
        with torch.no_grad():
            self.layer(self.x_BTD, forward_pass)
        return float(forward_pass.stats[0].kept_E.sum()) / self.tokens_BT.numel()


def mixture(routing: Routing, clock: Callable[[], float]) -> Side:
    return Side(build_ffn(MODEL, routing, 0, 1), clock)


def dense(hidden: int, clock: Callable[[], float]) -> Side:
    return Side(MLP(WIDTH, hidden, MODEL.bias, 0.0), clock)


def ratios(side: Side, beside: Side, rounds: int) -> list[float]:
    """Seconds of `side` over those of `beside` right before and after it."""
    side.seconds(), beside.seconds()
    result = []
    for _ in range(rounds):
        before, middle, after = beside.seconds(), side.seconds(), beside.seconds()
        result.append(2 * middle / (before + after))
    return result


def threshold_for(picks: float, clock: Callable[[], float]) -> Side:
    """A threshold layer (N=64, size 64) whose t keeps `picks` experts a token on the benchmark's input."""
    low, high = 0.0, 1.0
    for _ in range(30):
        middle = (low + high) / 2
        side = mixture(replace(SMALL, threshold=middle), clock)
        side.layer.get_parameter("decider.router.weights.0").data.mul_(10)  # decisions as sharp as trained ones
        if side.picks_per_token() < picks:
            low = middle
        else:
            high = middle
    return side


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", choices=[*ROWS, "threshold"], default=[*ROWS, "threshold"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--output", type=Path, help="write the results to this JSON file")
    arguments = parser.parse_args()
    prepare_process()
    torch.set_num_threads(arguments.threads)
    clock = time.process_time if arguments.threads == 1 else time.perf_counter
    results = []
    for name in arguments.rows:
        if name == "threshold":
            pair = threshold_for(2.0, clock), threshold_for(8.0, clock)
            what = "threshold, 2 experts a token over 8"
        else:
            routing = ROWS[name]
            active = (routing.k + routing.shared_experts) * expert_hidden(routing, DENSE_HIDDEN)
            pair, what = (mixture(routing, clock), dense(active, clock)), f"{name} over dense {active}"
        low, middle, high = statistics.quantiles(ratios(*pair, arguments.rounds), n=4, method="inclusive")
        print(f"{what:<40} {middle:.3f} [{low:.3f}, {high:.3f}]", flush=True)
        results.append({"row": name, "what": what, "median": middle, "low": low, "high": high})
    settings = {"tokens": SEQUENCES * LENGTH, "width": WIDTH, "threads": arguments.threads, "rounds": arguments.rounds}
    report({"benchmark": "layer", "environment": environment(), **settings, "rows": results}, arguments.output)


if __name__ == "__main__":
    main()
