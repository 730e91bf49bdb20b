"""What bench/gpu.py measures, in order of importance: a name for each row, and what measures it.

A row without more in its name runs through the implementation that `dispatch` chooses, uncompiled, over a dense twin
that is uncompiled, too; "compiled" rows compile both sides.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import torch

from bench import memory, nanogpt_dense, step
from bench.common import Row, Skipped, flanked, milliseconds, model_config, ratio, seconds_of, take_turns
from bench.gpu_checks import check_rows
from bench.gpu_setting import IMPLEMENTATIONS, Sizes, float32_products, implementation_of
from bench.sides import Side, dense, kept_in_last_pass, mixture, twin_hidden
from moe_study.design.routing import Gate, Routing
from moe_study.model.moe.experts.dispatch import ON_GPUS
from moe_study.training.device import autocast
from moe_study.training.loop import clip_gradients

Rows = dict[str, Callable[[], Row]]
MIXTURES = ("8x2", "64x8")
OTHERS = tuple(name for name in IMPLEMENTATIONS if name != "fused")  # than what `dispatch` chooses in bfloat16
# What the tiles of triton_launch.TILES are tried against, for two-byte values.
ALTERNATIVES = {
    "product": [
        {"BO": 128, "BI": 64, "num_warps": 4, "num_stages": 4},
        {"BO": 128, "BI": 64, "num_warps": 8, "num_stages": 4},
        {"BO": 256, "BI": 64, "num_warps": 8, "num_stages": 3},
        {"BO": 64, "BI": 64, "num_warps": 4, "num_stages": 4},
    ],
    "hidden gradient": [
        {"BO": 128, "BI": 64, "num_warps": 8, "num_stages": 4},
        {"BO": 64, "BI": 64, "num_warps": 4, "num_stages": 4},
        {"BO": 64, "BI": 64, "num_warps": 8, "num_stages": 4},
    ],
    "weight gradient": [
        {"BI": 128, "BO": 128, "BQ": 64, "num_warps": 8, "num_stages": 4},
        {"BI": 128, "BO": 128, "BQ": 64, "num_warps": 4, "num_stages": 3},
        {"BI": 128, "BO": 256, "BQ": 64, "num_warps": 8, "num_stages": 3},
        {"BI": 128, "BO": 128, "BQ": 32, "num_warps": 8, "num_stages": 4},
    ],
}


def all_rows(sizes: Sizes, nanogpt: Path | None) -> Rows:
    """Every row, the most important first: right, then the targets, then what explains them."""
    rows = check_rows(sizes)
    for name in MIXTURES:
        for implementation in (None, *OTHERS):
            rows |= layer_row(name, implementation, False, sizes)
    rows |= step_rows(sizes, compiled=False)
    rows["dense over nanogpt"] = partial(dense_over_nanogpt, nanogpt, sizes)
    for name in MIXTURES:
        rows[f"memory step {name}"] = partial(step_memory, name, sizes)
        for implementation in (None, *OTHERS):
            rows |= layer_row(name, implementation, True, sizes)
    rows |= step_rows(sizes, compiled=True)
    for name in MIXTURES:
        for precision in ("tf32", "fp32"):
            for implementation in (None, "grouped", "fused"):
                rows |= layer_row(name, implementation, False, sizes, precision)
    rows |= tile_rows(sizes)
    return rows


def layer_row(name: str, implementation: str | None, compiled: bool, sizes: Sizes, precision: str = "bf16") -> Rows:
    ending = f", {implementation}" * bool(implementation) + ", compiled" * compiled
    ending += f", {precision}" * (precision != "bf16")
    return {f"layer {name}{ending}": partial(layer_over_dense, name, implementation, compiled, sizes, precision)}


def routing_of(name: str, hidden: int) -> Routing:
    """(N, K) experts that together are as wide as a dense network of `hidden` units."""
    experts, k = (int(number) for number in name.split("x"))
    return Routing(num_experts=experts, k=k, expert_size=hidden // k, gate=Gate.PICK_THEN_SOFTMAX)


@contextlib.contextmanager
def chosen(implementation: str | None, sizes: Sizes) -> Iterator[None]:
    """Through that implementation, or, None, through whatever `dispatch` chooses."""
    if implementation in ON_GPUS and sizes.device == "cpu":
        raise Skipped("Triton's interpreter is too slow for it")
    with implementation_of(implementation) if implementation else contextlib.nullcontext():
        yield


def layer_over_dense(name: str, implementation: str | None, compiled: bool, sizes: Sizes, precision: str) -> Row:
    """A mixture layer over its dense twin, forward and backward."""
    setting = replace(sizes.layer(), precision="bf16" if precision == "bf16" else "fp32")
    routing = routing_of(name, setting.dense_hidden)
    hidden = twin_hidden(routing, setting)
    with chosen(implementation, sizes), float32_products(precision):
        side, twin = mixture(routing, setting), dense(hidden, setting)
        if compiled:
            side.module.compile(backend=sizes.backend)
            twin.module.compile(backend=sizes.backend)
        row = flanked(side, twin, sizes.rounds, warmup=3, device=setting.device)
    kept = int(kept_in_last_pass(side).sum()) / setting.tokens
    return {**row, "tokens": setting.tokens, "width": setting.width, "twin_hidden": hidden, "kept_per_token": kept}


def tile_rows(sizes: Sizes) -> Rows:
    """The Triton layer with other tile sizes over itself with the present ones: what is below 1 is faster."""
    return {
        f"tiles of the {kernel}, {' '.join(f'{name} {value}' for name, value in tiles.items())}": partial(
            other_tiles, kernel, tiles, sizes
        )
        for kernel, choices in ALTERNATIVES.items()
        for tiles in choices
    }


def other_tiles(kernel: str, tiles: dict[str, int], sizes: Sizes) -> Row:
    setting, key = sizes.layer(), (kernel, 2)
    with chosen("triton", sizes):
        side = mixture(routing_of("64x8", setting.dense_hidden), setting)
        return flanked(with_tiles(side, key, tiles), side, sizes.rounds, warmup=3, device=setting.device)


def with_tiles(side: Side, key: tuple[str, int], tiles: dict[str, int]) -> Callable[[], None]:
    from moe_study.model.moe.experts.triton_launch import TILES

    def run() -> None:
        before = TILES[key]
        TILES[key] = tiles
        try:
            side()
        finally:
            TILES[key] = before

    return run


def step_rows(sizes: Sizes, *, compiled: bool) -> Rows:
    """Whole training steps; through both implementations, and those of 512 experts over those of 8."""
    rows: Rows = {}
    ending = ", compiled" * compiled
    setting = sizes.step(compiled=compiled)
    hidden = setting.size.hidden
    for name in MIXTURES:
        for implementation in (None, *OTHERS):
            routing = routing_of(name, hidden)
            twin = step.dense_twin(routing.k, routing)
            row_name = f"step {name}{f', {implementation}' * bool(implementation)}{ending}"
            rows[row_name] = partial(step_over, routing, twin, implementation, sizes, setting)
    if not compiled:
        many = routing_of("512x8", hidden)
        rows["step N512 over N8"] = partial(step_over, many, replace(many, num_experts=8), None, sizes, setting)
        rows["step N512 over N8, triton"] = partial(
            step_over, many, replace(many, num_experts=8), "triton", sizes, setting
        )
    return rows


def step_over(routing: Routing, twin: Routing, implementation: str | None, sizes: Sizes, setting: step.Setting) -> Row:
    with chosen(implementation, sizes):
        return step.compare(routing, twin, sizes.step_rounds, setting)


def step_memory(name: str, sizes: Sizes) -> Row:
    """Peak memory of a step beyond weights, gradients and optimizer state over the dense twin's."""
    setting = sizes.step(batch=sizes.memory_batch)
    return memory.compare(memory.step_sides(name, setting), 1, sizes.device, asdict(setting))


def dense_over_nanogpt(path: Path | None, sizes: Sizes) -> Row:
    """A training step of our dense model over one of nanoGPT's, both compiled and under bfloat16 autocast."""
    if path is None:
        raise Skipped("nanoGPT's model.py was not given; fetch it from https://github.com/karpathy/nanoGPT and name it"
                      " with --nanogpt")  # fmt: skip
    device, model = torch.device(sizes.device), model_config(sizes.model)
    vocabulary = 50304  # a multiple of 64, as nanoGPT takes it
    ours, theirs = nanogpt_dense.build(nanogpt_dense.load_nanogpt(path), model, vocabulary)
    ours, theirs = ours.to(device), theirs.to(device)
    their_optimizer = theirs.configure_optimizers(
        nanogpt_dense.WEIGHT_DECAY, nanogpt_dense.LEARNING_RATE, nanogpt_dense.BETAS, device.type
    )
    our_optimizer = nanogpt_dense.our_optimizer(ours)
    for each in (ours, theirs):
        each.compile(backend=sizes.backend)
    generator = torch.Generator().manual_seed(1)
    shape = (sizes.dense_batch, model.context)
    x_BT, y_BT = (torch.randint(vocabulary, shape, generator=generator).to(device) for _ in range(2))

    def step_of(module: torch.nn.Module, optimizer: torch.optim.Optimizer, loss_of: Callable[[], torch.Tensor]):  # type: ignore[no-untyped-def]
        def run() -> None:
            with autocast(device, "bf16"):
                loss = loss_of()
            loss.backward()
            clip_gradients(module, 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

        return run

    sides = {
        "nanogpt": step_of(theirs, their_optimizer, lambda: theirs(x_BT, y_BT)[1]),
        "ours": step_of(ours, our_optimizer, lambda: ours(x_BT, y_BT).loss),
    }
    seconds = take_turns(sides, sizes.step_rounds, warmup=3, device=device)
    times = milliseconds(seconds)
    return {
        **ratio(seconds["ours"], seconds["nanogpt"]),
        "seconds_of": seconds_of(device),
        "milliseconds": times,
        "tokens_per_second": {name: 1000 * x_BT.numel() / time for name, time in times.items()},
    }
