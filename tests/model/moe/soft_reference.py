"""Soft mixtures written token by token from the equations, numpy float64; nothing shared with the package."""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from moe_study.design.routing import Soft

Array = NDArray[np.float64]
Place = tuple[int, int]  # sequence, position


def soft_layer(
    x_BTD: Array, weights: dict[str, Array], soft: Soft, experts: int, to: Callable[[int], int | None] = lambda e: e
) -> Array:
    """Output of every token. `weights`: phi_SD, scale, and the experts' up_EDF, up_bias_EF, down_EFD, down_bias_ED.

    `to` says which expert gets the combine weights of each one; None: they are lost.
    """
    sequences, length, _ = x_BTD.shape
    y_BTD = np.zeros_like(x_BTD)
    for b in range(sequences):
        for t in range(length):
            places = averaged(soft, b, t, sequences, length)
            y_BTD[b, t] = token(x_BTD, (b, t), places, weights, soft, experts, to)
    return y_BTD


def averaged(soft: Soft, b: int, t: int, sequences: int, length: int) -> list[Place]:
    """The tokens in the slots that token t of sequence b reads."""
    if soft.form == "across_batch":
        assert soft.group_size is not None
        first = b // soft.group_size * soft.group_size
        return [(i, t) for i in range(first, min(first + soft.group_size, sequences))]
    chunk = soft.chunk_length or length
    start = t // chunk * chunk
    positions = {
        "sequence": range(length),
        "chunk": range(start, min(start + chunk, length)),
        "chunk_lagged": range(start),
        "prefix": range(t + 1),
    }[soft.form]
    return [(b, i) for i in positions]


def token(
    x_BTD: Array,
    place: Place,
    places: list[Place],
    w: dict[str, Array],
    soft: Soft,
    experts: int,
    to: Callable[[int], int | None],
) -> Array:
    if not places:
        first = to(0)
        return np.zeros_like(x_BTD[place]) if first is None else expert(w, first, x_BTD[place])
    slots = experts * soft.slots_per_expert
    if "identity" in (soft.dispatch, soft.combine):
        slots = min(slots, x_BTD.shape[1])  # a shorter input has fewer slots
    outputs, shares = [], []
    for s in range(slots):
        if soft.dispatch == "identity":
            slot = x_BTD[place[0], s]
        else:
            share = softmax([logit(x_BTD[q], w, s, soft) if soft.dispatch == "soft" else 0.0 for q in places])
            slot = sum(d * x_BTD[q] for d, q in zip(share, places, strict=True))
            shares.append(share[places.index(place)] if place in places else math.nan)
        outputs.append(expert(w, s // soft.slots_per_expert, slot))
    if soft.combine == "identity":
        combine = [float(s == place[1]) for s in range(slots)]
    elif soft.combine == "dispatch":
        combine = shares
    else:
        combine = softmax([logit(x_BTD[place], w, s, soft) if soft.combine == "soft" else 0.0 for s in range(slots)])
    y_D = np.zeros_like(x_BTD[place])
    for s, share_of_slot in enumerate(combine):
        target = to(s // soft.slots_per_expert)
        if target is not None:
            like = target * soft.slots_per_expert + s % soft.slots_per_expert
            y_D += share_of_slot * outputs[like] if like < slots else 0.0
    return y_D


def logit(x_D: Array, w: dict[str, Array], s: int, soft: Soft) -> float:
    phi_D = w["phi_SD"][s]
    if not soft.normalise:
        return float(x_D @ phi_D)
    x_norm, phi_norm = math.sqrt((x_D**2).sum()) + 1e-6, math.sqrt((phi_D**2).sum()) + 1e-6
    return float(w["scale"] * (x_D / x_norm) @ (phi_D / phi_norm))


def expert(w: dict[str, Array], e: int, x_D: Array) -> Array:
    hidden = x_D @ w["up_EDF"][e] + w["up_bias_EF"][e]
    active = np.array([0.5 * h * (1 + math.erf(h / math.sqrt(2))) for h in hidden])
    return np.asarray(active @ w["down_EFD"][e] + w["down_bias_ED"][e])


def softmax(values: list[float]) -> list[float]:
    powers = [math.exp(value - max(values)) for value in values]
    return [power / sum(powers) for power in powers]
