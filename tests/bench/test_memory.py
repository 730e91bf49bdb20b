from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bench import memory, step
from bench.memory import Event, Side, compare, measure, peak_beyond_gradients, peak_bytes
from moe_study.design.config import ModelConfig

MEGABYTE = 1 << 20


def block(megabytes: int, device: str = "cpu") -> Tensor:
    return torch.empty(megabytes * MEGABYTE, dtype=torch.uint8, device=device)


class Scratch(torch.autograd.Function):
    """Passes its input on; its backward pass needs `megabytes` for a moment."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, megabytes: int) -> Tensor:
        ctx.megabytes = megabytes
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        block(ctx.megabytes, str(grad.device))
        return grad.clone(), None


def test_the_peak_is_of_what_lives_at_once() -> None:
    events = [Event(1, 30), Event(2, 20), Event(1, -30), Event(3, 25), Event(2, -20), Event(3, -25)]
    assert peak_beyond_gradients(events) == 50


def test_a_block_that_becomes_a_gradient_never_counts() -> None:
    events = [Event(1, 30), Event(2, 20), Event(2, 20, is_gradient=True), Event(3, 5), Event(1, -30), Event(4, 28)]
    assert peak_beyond_gradients(events) == 35  # 30 + 5, then 5 + 28


def test_an_address_used_before_a_gradient_counts_until_its_release() -> None:
    events = [Event(1, 40), Event(1, -40), Event(1, 10), Event(1, 10, is_gradient=True), Event(2, 15)]
    assert peak_beyond_gradients(events) == 40


def test_a_block_larger_than_its_gradients_counts_for_the_rest() -> None:
    events = [Event(1, 40), Event(1, 10, is_gradient=True), Event(1, 10, is_gradient=True), Event(2, 15)]
    assert peak_beyond_gradients(events) == 35


def test_releases_of_blocks_from_before_are_ignored() -> None:
    assert peak_beyond_gradients([Event(9, -100), Event(1, 30), Event(8, 50, is_gradient=True)]) == 30


def test_planted_allocations_are_found_to_the_byte() -> None:
    def run() -> None:
        first, second = block(8), block(4)
        del first
        third = block(7)  # 11 with the second: less than the 12 before
        del second, third
        block(2)

    assert peak_bytes(run, []) == 12 * MEGABYTE


def test_what_stays_behind_counts_only_in_the_run_that_allocates_it() -> None:
    kept: list[Tensor] = []

    def run() -> None:
        if not kept:
            kept.append(block(16))
        block(1)

    assert peak_bytes(run, []) == 17 * MEGABYTE
    assert peak_bytes(run, []) == 1 * MEGABYTE


@pytest.mark.parametrize("scratch", [3, 24])
def test_gradients_are_left_out_and_what_a_backward_pass_needs_besides_is_not(scratch: int) -> None:
    weight = nn.Parameter(torch.zeros(2 * MEGABYTE))  # of 4 bytes

    def run() -> None:
        weight.grad = None
        product = weight * 1.0
        Scratch.apply(product, scratch).sum().backward()  # type: ignore[no-untyped-call]

    # The product lives to the end (8 MB). Beside it the scratch, then the product's gradient (8 MB); while the weight's
    # own gradient, 8 MB more, is not part of it.
    assert peak_bytes(run, [weight]) / MEGABYTE == pytest.approx(8 + max(scratch, 8), abs=0.01)


def test_the_ratio_is_that_of_the_two_peaks() -> None:
    row = compare((Side(lambda: block(9), []), Side(lambda: block(6), [])), 2, "cpu", {"batch": 1})
    assert row["median"] == row["low"] == row["high"] == 1.5
    assert row["peak_bytes"] == {"side": 9 * MEGABYTE, "twin": 6 * MEGABYTE} and row["batch"] == 1


def test_a_dense_layer_holds_what_its_formula_says() -> None:
    setting = memory.LayerSetting(sequences=4, length=64, width=64, dense_hidden=256)
    side = memory.dense(256, setting)
    side()
    hidden, width = (4 * 64 * size * 4 for size in (256, 64))
    # At the peak: hidden units before the activation and their gradients before and after it; and the output.
    peak = peak_bytes(side, side.module.parameters())
    assert 3 * hidden + width == peak


@pytest.mark.long
def test_every_row_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    size = ModelConfig(layers=2, heads=2, width=32, context=16, vocab_size=50304)
    monkeypatch.setattr(step, "model_config", lambda name: size)
    monkeypatch.setattr(memory, "LayerSetting", lambda **_: memory.layer.Setting(sequences=2, length=32, width=32))
    for name in memory.ROWS:
        row = measure(name, 1, step.Setting(batch=2))
        assert row["median"] > 0.5 and row["peak_bytes"]["twin"] > 0, name


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_the_peak_is_that_of_torchs_own_count() -> None:
    def run() -> None:
        first, second = block(8, "cuda"), block(4, "cuda")
        del first, second
        block(2, "cuda")

    run()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run()
    assert peak_bytes(run, [], "cuda") == torch.cuda.max_memory_allocated() - before == 12 * MEGABYTE
