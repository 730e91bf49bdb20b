"""What the router reads, and which tokens share each decision.

The positions of a window are cut into blocks of equal length such that every block has one decision; a
decision (unit) may cover several blocks. A token decides for itself in blocks of one; a sequence is one block.

Shape suffixes: B sequences, T positions, U units that the router scores, J blocks, D width, S segments.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from moe_study.design.routing import Context, Routing, Unit


@dataclass
class RouterInput:
    """The router's input for one window."""

    states_BUD: Tensor | None  # what is scored; None when the decision reads no hidden state (label)
    prior: bool  # the first unit is routed by the router's learned prior and has no state in `states_BUD`
    unit_of_block_J: Tensor | None  # unit (prior included) of each block; None: block j is unit j
    block: int  # tokens a block
    blocks: int  # J


def make_router_input(x_BTD: Tensor, routing: Routing) -> RouterInput:
    """Cut the window into units and gather what each unit's decision may see.

    The verdict on each context's causality is declared in `moe_study.design.causality`.
    """
    length = x_BTD.shape[1]
    if routing.unit is Unit.TOKEN:
        states_BTD = x_BTD if routing.context is Context.OWN else running_mean(x_BTD)
        return RouterInput(states_BTD, False, None, 1, length)
    if routing.unit is Unit.SEQUENCE:
        return _sequence_input(x_BTD, routing)
    return _segment_input(x_BTD, routing)


def states_of_tokens(x_BTD: Tensor, routing: Routing) -> Tensor:
    """What the decision for each token reads of the hidden states (B, T, D); zeros where a learned prior decides.

    A decision that reads none (by label) stands beside the token's own.
    """
    router_input = make_router_input(x_BTD, routing)
    states_BUD = router_input.states_BUD
    if states_BUD is None:
        return x_BTD
    if router_input.prior:
        states_BUD = torch.cat((torch.zeros_like(x_BTD[:, :1], dtype=states_BUD.dtype), states_BUD), 1)
    if router_input.unit_of_block_J is not None:
        states_BUD = states_BUD[:, router_input.unit_of_block_J]
    return states_BUD.repeat_interleave(router_input.block, 1)


def running_mean(x_BTD: Tensor) -> Tensor:
    """Mean over the positions up to and including each one, in at least float32."""
    wide_BTD = x_BTD.to(torch.promote_types(x_BTD.dtype, torch.float32))
    count_T1 = torch.arange(1, x_BTD.shape[1] + 1, device=x_BTD.device, dtype=wide_BTD.dtype).unsqueeze(-1)
    return wide_BTD.cumsum(1) / count_T1


def _sequence_input(x_BTD: Tensor, routing: Routing) -> RouterInput:
    length = x_BTD.shape[1]
    if routing.context is Context.LABEL:
        return RouterInput(None, False, None, length, 1)
    if routing.context is Context.FIRST_TOKEN:
        return RouterInput(x_BTD[:, :1], False, None, length, 1)
    if routing.context is Context.UNIT_MEAN:
        return RouterInput(x_BTD.mean(1, keepdim=True), False, None, length, 1)
    prefix = routing.prefix_length
    assert prefix is not None  # validated
    if length <= prefix:
        return RouterInput(x_BTD[:, :0], True, None, length, 1)
    block = math.gcd(prefix, length)
    unit_J = (torch.arange(length // block, device=x_BTD.device) >= prefix // block).long()
    return RouterInput(x_BTD[:, :prefix].mean(1, keepdim=True), True, unit_J, block, length // block)


def _segment_input(x_BTD: Tensor, routing: Routing) -> RouterInput:
    size, length = routing.segment_length, x_BTD.shape[1]
    assert size is not None  # validated
    prior = False
    if routing.context is Context.FIRST_TOKEN:
        states_BSD = x_BTD[:, ::size]
    else:
        states_BSD = segment_means(x_BTD, size)
        if routing.context is Context.PREVIOUS_SEGMENT:
            prior = routing.first_segment == "prior"
            # The published form (Lory, 2405.03133) reads the first segment's own mean behind a stop-gradient.
            first_BSD = states_BSD[:, :0] if prior else states_BSD[:, :1].detach()
            states_BSD = torch.cat((first_BSD, states_BSD[:, :-1]), 1)
    block = min(size, length) if length % size == 0 or length < size else math.gcd(size, length)
    blocks = length // block
    segment_J = None
    if block != min(size, length):
        segment_J = torch.arange(blocks, device=x_BTD.device) * block // size
    return RouterInput(states_BSD, prior, segment_J, block, blocks)


def segment_means(x_BTD: Tensor, size: int) -> Tensor:
    """Mean of every segment of `size` positions, the last one possibly shorter: (B, S, D)."""
    whole = x_BTD.shape[1] // size * size
    parts = [x_BTD[:, :whole].unflatten(1, (-1, size)).mean(2)] if whole else []
    if whole < x_BTD.shape[1]:
        parts.append(x_BTD[:, whole:].mean(1, keepdim=True))
    return torch.cat(parts, 1)
