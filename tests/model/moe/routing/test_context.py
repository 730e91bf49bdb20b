"""What each decision reads, position by position, at lengths that fit the units and lengths that do not."""

import pytest
import torch

from moe_study.design.routing import Context, Routing, Unit
from moe_study.model.moe.routing.context import make_router_input
from tests.model.moe import oracle
from tests.model.moe.doubles import states

READINGS = {
    "own": Routing(),
    "running mean": Routing(context=Context.RUNNING_MEAN),
    "sequence mean": Routing(unit=Unit.SEQUENCE, context=Context.UNIT_MEAN),
    "first token": Routing(unit=Unit.SEQUENCE, context=Context.FIRST_TOKEN),
    "prefix of 3": Routing(unit=Unit.SEQUENCE, context=Context.PREFIX, prefix_length=3),
    "prefix of 4": Routing(unit=Unit.SEQUENCE, context=Context.PREFIX, prefix_length=4),
    "segment mean": Routing(unit=Unit.SEGMENT, segment_length=4, context=Context.UNIT_MEAN),
    "segment's first": Routing(unit=Unit.SEGMENT, segment_length=3, context=Context.FIRST_TOKEN),
    "previous segment": Routing(unit=Unit.SEGMENT, segment_length=4, context=Context.PREVIOUS_SEGMENT),
    "previous segment as published": Routing(
        unit=Unit.SEGMENT, segment_length=3, context=Context.PREVIOUS_SEGMENT, first_segment="own_mean"
    ),
}


@pytest.mark.parametrize("length", [1, 2, 3, 4, 6, 7, 8, 11, 12])
@pytest.mark.parametrize("name", READINGS)
def test_every_position_follows_a_decision_that_reads_what_its_context_says(name: str, length: int) -> None:
    routing, x_BTD = READINGS[name], states(2, length, 5)
    router_input = make_router_input(x_BTD, routing)
    assert router_input.block * router_input.blocks == length and router_input.states_BUD is not None
    for b in range(2):
        for t in range(length):
            block = t // router_input.block
            unit = block if router_input.unit_of_block_J is None else int(router_input.unit_of_block_J[block])
            expected = oracle.reading(x_BTD[b], t, routing)
            if expected is None:
                assert router_input.prior and unit == 0
            else:
                found = router_input.states_BUD[b, unit - int(router_input.prior)]
                torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-13)


def test_units_that_fit_the_window_move_as_whole_blocks() -> None:
    blocks = {name: make_router_input(states(1, 12, 5), routing).block for name, routing in READINGS.items()}
    assert blocks["own"] == blocks["running mean"] == 1
    assert blocks["sequence mean"] == blocks["first token"] == 12
    assert (blocks["segment mean"], blocks["previous segment"], blocks["segment's first"]) == (4, 4, 3)
    assert (blocks["prefix of 3"], blocks["prefix of 4"]) == (3, 4)
    # Where they do not fit, blocks are as long as can be.
    assert make_router_input(states(1, 10, 5), READINGS["segment mean"]).block == 2
    assert make_router_input(states(1, 9, 5), READINGS["prefix of 3"]).block == 3


def test_a_label_s_decision_reads_no_state() -> None:
    router_input = make_router_input(states(2, 7, 5), Routing(unit=Unit.SEQUENCE, context=Context.LABEL))
    assert router_input.states_BUD is None and (router_input.block, router_input.blocks) == (7, 1)


def test_the_published_first_segment_is_read_behind_a_stop_gradient() -> None:
    x_BTD = states(1, 6, 5)
    router_input = make_router_input(x_BTD, READINGS["previous segment as published"])
    assert router_input.states_BUD is not None
    (gradient,) = torch.autograd.grad(router_input.states_BUD.sum(), x_BTD)
    # Read by segment 1 with gradient, by segment 0 without; the last segment is read by none.
    torch.testing.assert_close(gradient[0, :, 0], torch.tensor([1, 1, 1, 0, 0, 0], dtype=torch.float64) / 3)


def test_a_running_mean_of_bfloat16_states_is_summed_in_float32() -> None:
    x_BTD = torch.full((1, 2000, 1), 1.0).bfloat16()  # bfloat16 would stop counting at 256
    states_BTD = make_router_input(x_BTD, READINGS["running mean"]).states_BUD
    assert states_BTD is not None and states_BTD.dtype == torch.float32
    torch.testing.assert_close(states_BTD, torch.ones(1, 2000, 1))
