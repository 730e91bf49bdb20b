"""Our mixture layer against the peers', each over a dense network of its own kind and of equal active FLOPs.

Question: how much of a layer's time is the mixture's own, here and there? A peer's block may hold other experts
(SwiGLU where ours are GELU), so neither side is compared with the other's dense network: a row's ratio is (ours over
our dense) over (theirs over their dense), router included, forward and backward. Below 1 is in our favour. All four
layers have equal active FLOPs: a gated expert has two thirds of the hidden units of one of ours.

    pip install -c constraints.txt -e '.[peers]'
    python -m bench.peers [--rows "transformers mixtral grouped_mm 64x8" ...] [--rounds 7]
    python -m bench.peers --device cuda --precision pure_bf16 --width 768 --sequences 64 --length 1024

On a GPU use pure_bf16: transformers' grouped products take no part in autocast, and would run in float32.
All four layers of a row take turns in every round, on the same input. What is not installed or cannot run is kept as
skipped, with the reason.
"""

from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn

from bench.common import (
    Row,
    Skipped,
    milliseconds,
    open_results,
    options,
    prepare_process,
    ratio,
    seconds_of,
    spread,
    take_turns,
    unusual,
)
from bench.peer_layers import CPU_PEERS, GPU_PEERS, Peer, Shape
from bench.peer_transformers import TRANSFORMERS
from bench.sides import PRECISIONS, Setting, Side, dense, mixture, random_input
from bench.targets import GPU


class FirstOutput(nn.Module):
    """A layer whose auxiliary outputs, if it has any, are left aside."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
        y_BTD = self.layer(x_BTD)
        return y_BTD[0] if isinstance(y_BTD, tuple) else y_BTD


def side_of(layer: nn.Module, setting: Setting) -> Side:
    """A peer's layer on the benchmark's input, its matrices drawn as ours are: the packages leave some empty."""
    generator = torch.Generator().manual_seed(0)
    for parameter in layer.parameters():
        if parameter.ndim >= 2:
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator).mul_(0.02))
    return Side(FirstOutput(layer).train(), random_input(setting), setting.precision)


def their_sides(peer: Peer, shape: Shape, setting: Setting) -> tuple[Side, Side]:
    """The peer's layer and its dense twin, both run once; Skipped where that fails."""
    if find_spec(peer.package.replace("-", "_")) is None:
        raise Skipped(f"{peer.package} is not installed")
    try:
        sides = tuple(side_of(build(shape, setting), setting) for build in (peer.layer, peer.dense))
        for side in sides:
            side()
    except Exception as error:  # whatever somebody else's code may raise here
        raise Skipped(f"{peer.package} fails with {type(error).__name__}: {str(error).split(chr(10))[0]}") from error
    return sides[0], sides[1]


def compare(peer: Peer, shape: Shape, rounds: int, setting: Setting) -> Row:
    """One row: both layers over their dense twins, and the ratio of the two."""
    setting = replace(setting, bias=peer.bias)
    theirs, their_dense = their_sides(peer, shape, setting)
    ours, our_dense = mixture(peer.ours(shape), setting), dense(shape.active, setting)
    sides = {"our dense": our_dense, "ours": ours, "their dense": their_dense, "theirs": theirs}
    seconds = take_turns(sides, rounds, device=setting.device)
    over_dense = {
        name: [a / b for a, b in zip(seconds[name], seconds[twin], strict=True)]
        for name, twin in (("ours", "our dense"), ("theirs", "their dense"))
    }
    return {
        **ratio(over_dense["ours"], over_dense["theirs"]),
        **{f"{name}_over_dense": spread(values) for name, values in over_dense.items()},
        "milliseconds": milliseconds(seconds),
        "rounds": rounds,
        "seconds_of": seconds_of(setting.device),
        "tokens": setting.tokens,
        "width": setting.width,
        "expert_size": shape.size,
        **their_picks(peer, theirs, shape),
    }


@torch.no_grad()
def their_picks(peer: Peer, theirs: Side, shape: Shape) -> dict[str, Any]:
    """Experts that a token really had in the peer's layer, and the peer's note."""
    kept = float(shape.k)
    if peer.kept is not None:
        assert isinstance(theirs.module, FirstOutput)
        kept = round(peer.kept(theirs.module.layer, theirs.x_BTD), 3)
    return {"their_kept_per_token": kept, **({"note": peer.note} if peer.note else {})}


def comparisons(setting: Setting) -> dict[str, tuple[Peer, Shape]]:
    """Rows by name, at expert sizes that make active networks as wide as the dense one."""
    peers = TRANSFORMERS + CPU_PEERS + (GPU_PEERS if torch.device(setting.device).type == "cuda" else [])
    shapes = [(peer, Shape(n, k, setting.dense_hidden // k)) for peer in peers for n, k in peer.pairs]
    return {peer.row(shape): (peer, shape) for peer, shape in shapes}


def main() -> None:
    everything = comparisons(Setting(device="cuda"))
    parser = options(__doc__, rounds=7, rows=everything)
    parser.add_argument("--device", default=Setting.device, choices=["cpu", "cuda"])
    parser.add_argument("--precision", default=Setting.precision, choices=PRECISIONS)
    parser.add_argument("--threads", type=int, default=1)
    for name in ("width", "sequences", "length"):
        parser.add_argument(f"--{name}", type=int, default=getattr(Setting, name))
    arguments = parser.parse_args()
    prepare_process(arguments.threads)
    names = ("device", "precision", "width", "sequences", "length")
    chosen = {name: getattr(arguments, name) for name in names}
    setting = Setting(dense_hidden=4 * arguments.width, **chosen)
    sizes = {name: (chosen[name], getattr(Setting, name)) for name in names if name != "device"}
    end = unusual(threads=(arguments.threads, 1), **sizes)
    results, rows = open_results(arguments, setting.device), comparisons(setting)
    prefix = GPU if setting.device == "cuda" else ""
    for name in arguments.rows:
        if name in rows:
            results.measure(f"{prefix}peer {name}{end}", partial(compare, *rows[name], arguments.rounds, setting))


if __name__ == "__main__":
    main()
