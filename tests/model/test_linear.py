"""Products by oneDNN and by torch's default, values and gradients against float64."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from moe_study.model import linear as linear_module
from moe_study.model.linear import linear, product, uses_onednn

HAS_ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


@pytest.fixture(params=[pytest.param(True, marks=pytest.mark.skipif(not HAS_ONEDNN, reason="no oneDNN")), False])
def onednn(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[bool]:
    """Both libraries in turn, whichever this processor would choose."""
    monkeypatch.setattr(linear_module, "USE_ONEDNN", request.param)
    yield request.param


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(7,), (40,), (2, 3, 7), (0,)])
@pytest.mark.parametrize("outputs", [5, 33])
@pytest.mark.parametrize("bias", [True, False])
def test_values_and_gradients_are_those_of_float64(
    onednn: bool, shape: tuple[int, ...], outputs: int, bias: bool
) -> None:
    inputs = [normal(*shape, 19, seed=1), normal(outputs, 19, seed=2), *([normal(outputs, seed=3)] if bias else [])]
    grad = normal(*shape, outputs, seed=4)
    exact = [tensor.double().requires_grad_() for tensor in inputs]
    single = [tensor.requires_grad_() for tensor in inputs]
    assert uses_onednn(single[0]) is (onednn and 0 not in shape)
    expected, y = F.linear(*exact), linear(*single)
    torch.testing.assert_close(y.double(), expected, rtol=1e-5, atol=1e-5)
    ours = [gradient.double() for gradient in torch.autograd.grad(y, single, grad)]
    torch.testing.assert_close(ours, list(torch.autograd.grad(expected, exact, grad.double())), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("rows", "outputs"), [(3, 50), (50, 3)])
@pytest.mark.parametrize("transposed_left", [True, False])
@pytest.mark.parametrize("transposed_right", [True, False])
def test_products_take_any_strides(
    onednn: bool, rows: int, outputs: int, transposed_left: bool, transposed_right: bool
) -> None:
    a_RI, b_OI = normal(rows, 20, seed=1), normal(outputs, 20, seed=2)
    expected = a_RI.double() @ b_OI.double().T
    a_RI = a_RI.T.contiguous().T if transposed_left else a_RI
    b_OI = b_OI.T.contiguous().T if transposed_right else b_OI
    torch.testing.assert_close(product(a_RI, b_OI).double(), expected, rtol=1e-5, atol=1e-5)


def test_a_gradient_that_is_not_wanted_is_not_made(onednn: bool) -> None:
    x, weight_OI = normal(4, 6).requires_grad_(), normal(3, 6)
    linear(x, weight_OI).sum().backward()
    assert x.grad is not None and weight_OI.grad is None
    torch.testing.assert_close(x.grad, weight_OI.sum(0).expand(4, 6))


def test_a_row_s_result_does_not_depend_on_other_rows(onednn: bool) -> None:
    x, weight_OI = normal(64, 24, seed=1), normal(48, 24, seed=2)
    changed = x.clone()
    changed[20:] = normal(44, 24, seed=3)
    assert torch.equal(linear(x, weight_OI)[:20], linear(changed, weight_OI)[:20])


def test_only_float32_outside_autocast_goes_to_onednn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear_module, "USE_ONEDNN", True)
    assert uses_onednn(torch.zeros(1))
    assert not uses_onednn(torch.zeros(1, dtype=torch.float64))
    assert not uses_onednn(torch.zeros(1, device="meta"))
    with torch.autocast("cpu", torch.bfloat16):
        assert not uses_onednn(torch.zeros(1))
        assert linear(normal(2, 3), normal(4, 3)).dtype == torch.bfloat16
