"""Chunked cross-entropy against torch's own, values and gradients."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from moe_study.model.loss import CPU_LOGITS, DEVICE_LOGITS, chunk_rows, cross_entropy, cross_entropy_of_logits

ROWS, WIDTH, VOCABULARY = 23, 5, 17
IGNORED_ROWS = [0, 9, 22]


def problem(dtype: torch.dtype = torch.float64, scale: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x_ND = scale * torch.randn(ROWS, WIDTH, generator=generator)
    head_VD = scale * torch.randn(VOCABULARY, WIDTH, generator=generator)
    targets_N = torch.randint(VOCABULARY, (ROWS,), generator=generator)
    targets_N[IGNORED_ROWS] = -1
    return x_ND.to(dtype).requires_grad_(), head_VD.to(dtype).requires_grad_(), targets_N


def torch_loss(x_ND: Tensor, head_VD: Tensor, targets_N: Tensor) -> Tensor:
    return F.cross_entropy(x_ND @ head_VD.T, targets_N, ignore_index=-1)


@pytest.mark.parametrize("chunk", [1, 7, 22, 23, 100])
@pytest.mark.parametrize("scale", [1.0, 10.0])
def test_loss_and_gradients_equal_those_of_torch(chunk: int, scale: float) -> None:
    x_ND, head_VD, targets_N = problem(scale=scale)
    expected = torch_loss(x_ND, head_VD, targets_N)
    loss, loss_N = cross_entropy(x_ND, head_VD, targets_N, chunk)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(
        torch.autograd.grad(3 * loss, (x_ND, head_VD)),
        torch.autograd.grad(3 * expected, (x_ND, head_VD)),
        rtol=1e-11,
        atol=1e-13,
    )
    assert not loss_N.requires_grad
    assert (loss_N[IGNORED_ROWS] == 0).all()
    torch.testing.assert_close(loss_N.sum() / (ROWS - len(IGNORED_ROWS)), expected.detach())


def test_float32_gradients_are_those_of_float64_to_rounding() -> None:
    exact_x, exact_head, targets_N = problem()
    x_ND, head_VD, _ = problem(torch.float32)
    exact = torch.autograd.grad(torch_loss(exact_x, exact_head, targets_N), (exact_x, exact_head))
    ours = torch.autograd.grad(cross_entropy(x_ND, head_VD, targets_N, 7)[0], (x_ND, head_VD))
    torch.testing.assert_close([g.double() for g in ours], list(exact), rtol=1e-5, atol=1e-7)


def test_bfloat16_autocast_keeps_losses_and_gradients_in_float32() -> None:
    x_ND, head_VD, targets_N = problem(torch.float32)
    expected = torch.autograd.grad(torch_loss(x_ND, head_VD, targets_N), (x_ND, head_VD))
    with torch.autocast("cpu", torch.bfloat16):
        loss, loss_N = cross_entropy(x_ND, head_VD, targets_N, 7)
    ours = torch.autograd.grad(loss, (x_ND, head_VD))
    assert loss.dtype == loss_N.dtype == ours[0].dtype == ours[1].dtype == torch.float32
    torch.testing.assert_close(ours, expected, rtol=0.05, atol=2e-3)


def test_a_fixed_head_gets_no_gradient() -> None:
    x_ND, head_VD, targets_N = problem()
    expected = torch.autograd.grad(torch_loss(x_ND, head_VD, targets_N), x_ND)
    loss, _ = cross_entropy(x_ND, head_VD.detach(), targets_N, 7)
    torch.testing.assert_close(torch.autograd.grad(loss, x_ND), expected)


def test_a_second_backward_pass_gives_the_same_gradients() -> None:
    x_ND, head_VD, targets_N = problem()
    loss, _ = cross_entropy(x_ND, head_VD, targets_N, 7)
    first = torch.autograd.grad(2 * loss, (x_ND, head_VD), retain_graph=True)
    assert all(map(torch.equal, first, torch.autograd.grad(2 * loss, (x_ND, head_VD))))


@pytest.mark.parametrize("chunk", [7, 100])
def test_without_gradients_the_loss_is_the_same(chunk: int) -> None:
    x_ND, head_VD, targets_N = problem()
    with torch.no_grad():
        loss, loss_N = cross_entropy(x_ND, head_VD, targets_N, chunk)
    torch.testing.assert_close(loss, torch_loss(x_ND, head_VD, targets_N).detach(), rtol=1e-12, atol=0)
    torch.testing.assert_close(loss_N, cross_entropy_of_logits(x_ND @ head_VD.T, targets_N)[1])


@pytest.mark.parametrize("chunk", [7, 100])
def test_nothing_to_predict_is_not_a_number(chunk: int) -> None:
    x_ND, head_VD, targets_N = problem()
    assert math.isnan(cross_entropy(x_ND, head_VD, targets_N.fill_(-1), chunk)[0].item())


def test_equal_logits_cost_the_logarithm_of_the_vocabulary() -> None:
    _, head_VD, targets_N = problem()
    loss, _ = cross_entropy(torch.zeros(ROWS, WIDTH, dtype=torch.float64), head_VD, targets_N, 7)
    assert loss.item() == pytest.approx(math.log(VOCABULARY), rel=1e-12)


@pytest.mark.parametrize("vocabulary", [257, 50304])
@pytest.mark.parametrize("rows", [0, 1, 2048, 100_000])
def test_chunks_bound_the_logits_that_exist_at_once(rows: int, vocabulary: int) -> None:
    on_cpu, on_gpu = (chunk_rows(rows, vocabulary, device) for device in ("cpu", "cuda"))
    assert on_cpu is not None and on_cpu >= 1
    assert on_cpu * vocabulary <= CPU_LOGITS
    assert (rows if on_gpu is None else on_gpu) * vocabulary <= DEVICE_LOGITS
