import time

import pytest
import torch

from moe_study.model.forward_pass import RoutingStats
from moe_study.training.metrics import Diverged, LossWindow, RoutingWindow, Stopwatch


def step(window, loss, norm=1.0, **aux):
    window.add(torch.tensor(loss), torch.tensor(norm), {name: torch.tensor(value) for name, value in aux.items()})


def test_a_window_holds_means_and_starts_anew():
    window = LossWindow()
    for loss in (1.0, 2.0, 6.0):
        step(window, loss, norm=2 * loss, switch=loss + 1, z=0.5)
    assert window.read() == {"loss": 3.0, "grad_norm": 6.0, "aux": {"switch": 4.0, "z": 0.5}}
    assert window.read() is None
    step(window, 5.0, switch=1.0, z=1.0)
    assert window.read()["loss"] == 5.0


def test_sums_do_not_lose_small_differences():
    window = LossWindow()
    for _ in range(10_000):
        step(window, 0.1)
    assert window.read()["loss"] == pytest.approx(float(torch.tensor(0.1)), abs=1e-12)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_the_first_step_without_a_finite_loss_is_found_later_and_the_steps_before_it_count(bad):
    window = LossWindow()
    for loss in (1.0, 3.0, bad, 2.0, bad):
        step(window, loss)
    with pytest.raises(Diverged) as end:
        window.check(105)  # 105 steps are done, the window holds 101 to 105
    assert end.value.step == 102
    assert str(end.value) == "the loss of step 103 is not finite"
    assert window.read()["loss"] == 2.0
    with pytest.raises(Diverged):
        window.check(105)  # reading does not make it finite


def test_a_gradient_norm_that_overflows_is_null_in_the_record():
    window = LossWindow()
    step(window, 1.0, norm=float("inf"))
    window.check(1)
    assert window.read() == {"loss": 1.0, "grad_norm": None, "aux": {}}


def stats(layer, kept, *, wanted, executed, entropy, tokens):
    kept_E, wanted, executed, entropy = (torch.tensor(value) for value in (kept, wanted, executed, entropy))
    return RoutingStats(layer, kept_E, None, None, wanted, executed, entropy, tokens)


def test_routing_is_counted_by_layer_over_all_passes():
    window = RoutingWindow()
    window.add([stats(1, [3, 1], wanted=6, executed=8, entropy=0.5, tokens=4)])
    window.add(
        [
            stats(1, [0, 4], wanted=4, executed=4, entropy=0.2, tokens=8),
            stats(1, [0, 0], wanted=0, executed=0, entropy=float("nan"), tokens=0),
            stats(0, [1, 1, 2], wanted=4, executed=4, entropy=float("nan"), tokens=4),
        ]
    )
    first, second = window.read()
    assert first == {
        "layer": 0,
        "share": [0.25, 0.25, 0.5],
        "wanted_per_token": 1.0,
        "kept_per_token": 1.0,
        "executed_per_token": 1.0,
        "entropy": None,
    }
    assert second == {
        "layer": 1,
        "share": [3 / 8, 5 / 8],
        "wanted_per_token": 10 / 12,
        "kept_per_token": 8 / 12,
        "executed_per_token": 1.0,
        "entropy": pytest.approx((0.5 * 4 + 0.2 * 8) / 12),
    }
    assert window.read() == []


def test_counting_does_not_change_the_statistics_themselves():
    window, one = RoutingWindow(), stats(0, [1, 2], wanted=3, executed=3, entropy=0.1, tokens=3)
    window.add([one])
    window.add([one])
    assert one.kept_E.tolist() == [1, 2]


def test_the_stopwatch_leaves_out_pauses_and_the_first_step_of_the_throughput():
    watch = Stopwatch(torch.device("cpu"), tokens_per_step=100)
    watch.start()
    time.sleep(0.05)
    assert watch.lap(1) is None  # nothing to measure from yet
    time.sleep(0.02)
    watch.stop()
    time.sleep(0.1)
    watch.start()
    time.sleep(0.02)
    speed = watch.lap(5)
    watch.stop()
    assert 0.09 <= watch.seconds < 0.15
    assert 400 / 0.08 < speed <= 400 / 0.04
    assert watch.tokens_per_second == speed


def test_training_time_adds_up_across_processes():
    first, second = (Stopwatch(torch.device("cpu"), 1) for _ in range(2))
    first.start()
    time.sleep(0.02)
    first.stop()
    second.load_state_dict(first.state_dict())
    second.start()
    time.sleep(0.02)
    second.stop()
    assert second.seconds >= first.seconds + 0.02
