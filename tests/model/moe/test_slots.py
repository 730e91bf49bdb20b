"""Slots: initial values, router states, gradients and precision of their scores."""

from typing import Any

import pytest
import torch

from moe_study.design.routing import RouterState, Soft
from moe_study.model.initialisation import Initialiser
from moe_study.model.moe.soft import SoftLayer
from tests.model.moe.soft_cases import (
    CHUNK,
    EXPERTS,
    FORMS,
    LAGGED,
    MODEL,
    SEQUENCE,
    TOKENS_ACROSS,
    build,
    name,
    run,
    tokens,
)

# ---- initial values and router states


def initialised(soft: Soft, seed: int = 0, **changes: Any) -> SoftLayer:
    layer = build(soft, **changes)
    Initialiser(seed, MODEL).module(layer, "blocks.0.ffn")
    return layer


def test_the_scale_starts_at_one_and_experts_start_different() -> None:
    layer = initialised(SEQUENCE)
    assert layer.scores is not None and layer.scores.scale is not None
    assert layer.scores.scale.item() == 1
    assert len({weights.sum().item() for weights in layer.experts.up_EDF}) == EXPERTS


def test_a_slot_starts_equal_whatever_the_number_of_slots() -> None:
    few, many = initialised(SEQUENCE, experts=2), initialised(SEQUENCE, experts=5)
    assert few.scores is not None and many.scores is not None
    assert torch.equal(few.scores.phi_SD, many.scores.phi_SD[:2])


def test_router_states_hold_for_phi() -> None:
    learned, frozen, redrawn = (initialised(SEQUENCE, router_state=state) for state in RouterState)
    assert learned.scores is not None and frozen.scores is not None and redrawn.scores is not None
    assert all(p.requires_grad for p in learned.scores.parameters())
    assert not any(p.requires_grad for s in (frozen, redrawn) for p in s.scores.parameters())  # type: ignore[union-attr]
    drawn = []
    for step in (1, 2, 1):
        for layer in (learned, frozen, redrawn):
            layer.begin_step(step)
        drawn.append(redrawn.scores.phi_SD.clone())
        assert torch.equal(frozen.scores.phi_SD, learned.scores.phi_SD)
    assert torch.equal(drawn[0], drawn[2]) and not torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], frozen.scores.phi_SD)


@pytest.mark.parametrize("soft", FORMS, ids=name)
def test_every_trained_parameter_gets_a_finite_gradient(soft: Soft) -> None:
    layer = build(soft)
    run(layer, tokens(length=11))[0].square().sum().backward()
    for key, parameter in layer.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), key
        assert parameter.grad.abs().max() > 0, key


@pytest.mark.parametrize("soft", [CHUNK, LAGGED, TOKENS_ACROSS], ids=name)
@pytest.mark.long
def test_a_compiled_layer_gives_the_same(soft: Soft) -> None:
    layer, x_BTD = build(soft).float(), tokens().float()
    expected_BTD, stats = run(layer, x_BTD, detail=True)
    torch.compiler.reset()
    layer.compile(backend="eager")  # what is captured is tested here; generating code is torch's affair
    y_BTD, compiled = run(layer, x_BTD, detail=True)
    torch.testing.assert_close(y_BTD, expected_BTD, rtol=1e-4, atol=1e-3)
    assert torch.equal(compiled.kept_E, stats.kept_E)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_scores_of_any_size_of_rows_have_the_gradient_of_the_plain_formula(dtype: torch.dtype) -> None:
    scores = build(SEQUENCE).to(dtype).scores
    assert scores is not None and scores.scale is not None
    size_T1 = torch.tensor([0, 1e-30, 1e-21, 1e-7, 1e-3, 1, 1e3], dtype=dtype).unsqueeze(1)
    x_BTD = (tokens(length=7).to(dtype) * size_T1).requires_grad_()
    wide_BTD = x_BTD.detach().double().requires_grad_()
    norm_BT1 = torch.where(size_T1 > 0, wide_BTD, 1).pow(2).sum(2, keepdim=True).sqrt() * (size_T1 > 0)
    phi_SD = scores.phi_SD.detach().double()
    unit_SD = scores.scale.double() * phi_SD / (phi_SD.pow(2).sum(1, keepdim=True).sqrt() + 1e-6)
    expected_BTS = wide_BTD / (norm_BT1 + 1e-6) @ unit_SD.T
    projection_BTS = torch.randn(expected_BTS.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    logits_BTS = scores(x_BTD)
    (found,) = torch.autograd.grad((logits_BTS * projection_BTS.to(dtype)).sum(), x_BTD)
    (wanted,) = torch.autograd.grad((expected_BTS * projection_BTS).sum(), wide_BTD)
    of_one_size_BT1 = norm_BT1.detach() + 1e-6  # what a row's gradient is divided by
    tolerance = 1e-9 if dtype is torch.float64 else 2e-4
    for gradient, reference in ((logits_BTS, expected_BTS), (found * of_one_size_BT1, wanted * of_one_size_BT1)):
        torch.testing.assert_close(gradient.double(), reference, rtol=tolerance, atol=tolerance)


def test_scores_keep_float32_under_autocast() -> None:
    layer = build(SEQUENCE).float()
    assert layer.scores is not None
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert layer.scores(tokens().float()).dtype is torch.float32
        y_BTD = run(layer, tokens().float())[0]
    torch.testing.assert_close(y_BTD.double(), run(layer.double(), tokens())[0], rtol=0.05, atol=0.5)
