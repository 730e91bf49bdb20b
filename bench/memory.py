"""Peak memory of a training step with mixture layers over that of its dense twin.

Question: how much more has to be held at once than for a dense model of equal active FLOPs, beyond what no step can do
without: weights, gradients and the optimizer's state? Of a layer alone, and of a whole step by the training loop.

    python -m bench.memory [--rows "layer 64x8" "step 64x8" ...] [--model micro] [--batch 8] [--rounds 3]
    python -m bench.memory --device cuda --model gpt2_small --precision bf16 --batch 32

Every allocation and every release that torch's allocator makes during a step is read off its profiler. The peak is the
most bytes live at once among those allocated within the step, less the blocks that end up as gradients of weights.
"""

import contextlib
import dataclasses
import functools
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile, record_function

from bench import layer, step
from bench.common import Row, open_results, options, prepare_process, ratio, spread, unusual
from bench.sides import Setting as LayerSetting
from bench.sides import dense, mixture, twin_hidden
from bench.step import Setting

ALLOCATION = "[memory]"  # what torch.profiler calls both allocations and releases
GRADIENT = "gradient of a weight"
LAYER_ROWS = ("8x1", "64x8", "512x8", "64x8 sequence")
STEP_ROWS = ("8x1", "8x2", "64x8", "512x8", "64x8 sequence", "64x8 global")
ROWS = [*(f"layer {name}" for name in LAYER_ROWS), *(f"step {name}" for name in STEP_ROWS)]


@dataclass(frozen=True)
class Event:
    """Something that happened to the block of memory at `address`."""

    address: int
    bytes: int  # allocated; negative: released
    is_gradient: bool = False  # nothing was allocated: `bytes` of the block are now the gradient of a weight


def peak_beyond_gradients(events: Iterable[Event]) -> int:
    """Most bytes live at once among the blocks that `events` allocate, bytes of gradients never counted.

    A block that becomes a gradient is left out from its allocation on: the space in which a gradient is computed is
    the gradient's. Releases of blocks that were there before are nobody's gain.
    """
    changes: list[tuple[int, int]] = []  # block, bytes
    blocks: dict[int, int] = {}  # by address: the block that lives there
    gradient_bytes: dict[int, int] = {}  # by block
    for event in events:
        if event.is_gradient:
            if event.address in blocks:
                block = blocks[event.address]
                gradient_bytes[block] = gradient_bytes.get(block, 0) + event.bytes
        elif event.bytes > 0:
            blocks[event.address] = len(changes)
            changes.append((len(changes), event.bytes))
        elif event.address in blocks:
            changes.append((blocks.pop(event.address), event.bytes))
    live = peak = 0
    for block, size in changes:
        sign = 1 if size > 0 else -1
        live += sign * max(0, abs(size) - gradient_bytes.get(block, 0))
        peak = max(peak, live)
    return peak


def peak_bytes(run: Callable[[], Any], parameters: Iterable[nn.Parameter], device: torch.device | str = "cpu") -> int:
    """Peak of one call of `run` on `device`, beyond what lived before it and the gradients of `parameters`."""
    on_device = torch.device(device).type == "cuda"
    profiler = profile(activities=[ProfilerActivity.CPU], profile_memory=True)
    with gradients_announced(parameters):
        with silence():
            profiler.start()
        run()
        if on_device:
            torch.cuda.synchronize()
        with silence():
            profiler.stop()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(path))
        trace = json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
    return peak_beyond_gradients(memory_events(trace, on_device))


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Nothing on the standard error stream, where the profiler tells of its own starts and stops from C++."""
    saved, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nowhere)


@contextlib.contextmanager
def gradients_announced(parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    """Within this context a profile tells where the gradient of each parameter is, as soon as it is complete."""

    def announce(parameter: nn.Parameter) -> None:
        assert parameter.grad is not None
        with record_function(f"{GRADIENT} {parameter.grad.untyped_storage().data_ptr()} {parameter.grad.nbytes}"):
            pass

    trained = [parameter for parameter in parameters if parameter.requires_grad]
    handles = [parameter.register_post_accumulate_grad_hook(announce) for parameter in trained]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def memory_events(trace: list[dict[str, Any]], on_device: bool) -> Iterator[Event]:
    """Those of a profile in Chrome's format, in order of time, either the CPU's or the GPU's."""
    named = [event for event in trace if event["name"] == ALLOCATION or event["name"].startswith(GRADIENT)]
    for event in sorted(named, key=lambda event: event["ts"]):
        if event["name"] != ALLOCATION:
            address, size = event["name"].removeprefix(GRADIENT).split()
            yield Event(int(address), int(size), is_gradient=True)
        elif (event["args"]["Device Type"] != 0) == on_device:
            yield Event(event["args"]["Addr"], event["args"]["Bytes"])


@dataclass(frozen=True)
class Side:
    """Something that trains, with what is not counted of it."""

    run: Callable[[], Any]
    parameters: list[nn.Parameter]


def layer_sides(name: str, setting: LayerSetting) -> tuple[Side, Side]:
    """The layer of that name and its dense twin, forward and backward."""
    routing = layer.ROWS[name]
    pair = mixture(routing, setting), dense(twin_hidden(routing, setting), setting)
    ours, twin = (Side(side, list(side.module.parameters())) for side in pair)
    return ours, twin


def step_sides(name: str, setting: Setting) -> tuple[Side, Side]:
    """A training step of that name and its dense twin's."""
    routing = step.with_size(step.routings(setting.size.hidden)[name], setting)
    pair = (step.trainer_of(each, setting) for each in (routing, step.dense_twin(routing.k, routing)))
    ours, twin = (Side(trainer.train_step, list(trainer.model.parameters())) for trainer in pair)
    return ours, twin


def compare(sides: tuple[Side, Side], rounds: int, device: str, how: dict[str, Any]) -> Row:
    """Ratio of the peaks in each of `rounds` steps, after one that leaves the optimizer's state behind."""
    peaks: list[list[int]] = []
    for side in sides:
        side.run()
        peaks.append([peak_bytes(side.run, side.parameters, device) for _ in range(rounds)])
    ours, twin = ([float(peak) for peak in each] for each in peaks)
    medians = {"side": round(spread(ours)["median"]), "twin": round(spread(twin)["median"])}
    return {**ratio(ours, twin), "measured": "memory", "peak_bytes": medians, "rounds": rounds, **how}


def measure(name: str, rounds: int, setting: Setting) -> Row:
    """The row of that name; a layer's is at the size of bench/layer.py on the same device."""
    what, _, routing = name.partition(" ")
    if what == "layer":
        of_layer = LayerSetting(device=setting.device, precision=setting.precision)
        return compare(layer_sides(routing, of_layer), rounds, setting.device, dataclasses.asdict(of_layer))
    return compare(step_sides(routing, setting), rounds, setting.device, dataclasses.asdict(setting))


def row_name(name: str, setting: Setting) -> str:
    """How the row is kept: with the model of a step, and with what is not as usual."""
    what, _, routing = name.partition(" ")
    if what == "layer":
        return f"memory {name}{unusual(precision=(setting.precision, Setting.precision))}"
    return f"memory step {setting.model} {routing}{step.name_end(setting)}"


def main() -> None:
    parser = step.add_setting(options(__doc__, rounds=3, rows=ROWS))
    arguments = parser.parse_args()
    prepare_process(threads=1)
    setting = step.setting_of(arguments)
    results = open_results(arguments, setting.device)
    for name in arguments.rows:
        results.measure(row_name(name, setting), functools.partial(measure, name, arguments.rounds, setting))


if __name__ == "__main__":
    main()
