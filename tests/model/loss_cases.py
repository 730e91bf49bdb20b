"""What the loss's kernel must do. Run by test_loss_kernels.py in Triton's interpreter, in a process of its own.

On a machine with a GPU the same cases run compiled: python -m pytest tests/model/loss_cases.py

Shape suffixes: C rows, V vocabulary.
"""

import pytest
import torch
from torch.nn import functional as F

from moe_study.model import loss
from moe_study.model.loss_kernels import loss_and_logit_gradient_

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def expected(logits_CV, targets_C):
    """By torch in float64: the loss of each row, and the gradient of their sum."""
    wide_CV = logits_CV.double().cpu().requires_grad_()
    loss_C = F.cross_entropy(wide_CV, targets_C.cpu(), reduction="none")
    loss_C.sum().backward()
    return loss_C.detach(), wide_CV.grad


@pytest.mark.parametrize(("rows", "vocabulary"), [(1, 1), (3, 2), (5, 64), (4, 65), (7, 300)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-6), (torch.bfloat16, 5e-3)])
@pytest.mark.parametrize("scale", [1.0, 40.0])
def test_loss_and_gradient_are_those_of_torch_in_float64(rows, vocabulary, dtype, tolerance, scale):
    generator = torch.Generator().manual_seed(rows)
    logits_CV = (scale * torch.randn(rows, vocabulary, generator=generator)).to(DEVICE, dtype)
    targets_C = torch.randint(vocabulary, (rows,), generator=generator).to(DEVICE)
    loss_C, grad_CV = expected(logits_CV, targets_C)
    ours_C = loss_and_logit_gradient_(logits_CV, targets_C, with_grad=True)
    assert ours_C.dtype == torch.float32
    torch.testing.assert_close(ours_C.double().cpu(), loss_C, atol=2e-6 * scale, rtol=2e-6)
    torch.testing.assert_close(logits_CV.double().cpu(), grad_CV, atol=tolerance, rtol=0)


def test_logits_that_are_far_apart_neither_overflow_nor_lose_the_target():
    logits_CV = torch.tensor([[3e4, -3e4, 0.0], [-float("inf"), 1.0, 2.0]], device=DEVICE)
    targets_C = torch.tensor([1, 2], device=DEVICE)
    loss_C, grad_CV = expected(logits_CV, targets_C)
    torch.testing.assert_close(loss_and_logit_gradient_(logits_CV, targets_C, True).double().cpu(), loss_C)
    torch.testing.assert_close(logits_CV.double().cpu(), grad_CV, atol=1e-6, rtol=0)


def test_without_gradient_the_logits_stay():
    logits_CV = torch.randn(6, 70, device=DEVICE)
    before_CV, targets_C = logits_CV.clone(), torch.arange(6, device=DEVICE)
    loss_C, _ = expected(logits_CV, targets_C)
    torch.testing.assert_close(loss_and_logit_gradient_(logits_CV, targets_C, False).double().cpu(), loss_C)
    assert torch.equal(logits_CV, before_CV)
    assert loss_and_logit_gradient_(logits_CV[:0], targets_C[:0], True).shape == (0,)


def test_chunks_by_the_kernel_are_chunks_by_torch_s_operators(monkeypatch):
    x_ND, head_VD = (torch.randn(shape, device=DEVICE, requires_grad=True) for shape in ((50, 16), (90, 16)))
    targets_N = torch.randint(-1, 90, (50,), device=DEVICE)

    def results():
        value, loss_N = loss.cross_entropy(x_ND, head_VD, targets_N, chunk=16)
        return [value, loss_N, *torch.autograd.grad(value, [x_ND, head_VD])]

    right = results()
    monkeypatch.setattr(loss, "_by_operators", loss._by_kernel)
    for ours, other in zip(results(), right, strict=True):
        torch.testing.assert_close(ours, other, atol=1e-6, rtol=1e-5)
