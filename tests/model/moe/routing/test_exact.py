"""Products for which TF32 is switched off. What TF32 itself does needs a GPU; the switch and the gradients do not."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from moe_study.model.moe.routing.exact import exact_linear, exact_product


@pytest.fixture
def tf32() -> Iterator[None]:
    torch.set_float32_matmul_precision("high")
    yield
    torch.set_float32_matmul_precision("highest")


@pytest.mark.usefixtures("tf32")
def test_tf32_is_off_for_the_product_and_its_gradients_and_on_again_after(monkeypatch: pytest.MonkeyPatch) -> None:
    product, seen = torch.mm, []

    def watched(a: Tensor, b: Tensor) -> Tensor:
        seen.append(torch.get_float32_matmul_precision())
        return product(a, b)

    monkeypatch.setattr(torch, "mm", watched)
    a, b = torch.randn(3, 4, requires_grad=True), torch.randn(4, 5, requires_grad=True)
    exact_product(a, b).sum().backward()
    assert seen == ["highest"] * 3
    assert torch.get_float32_matmul_precision() == "high"


@pytest.mark.usefixtures("tf32")
def test_the_switch_is_on_again_after_a_failure() -> None:
    with pytest.raises(RuntimeError):
        exact_product(torch.ones(2, 3), torch.ones(4, 5))
    assert torch.get_float32_matmul_precision() == "high"


def test_gradients_are_those_of_a_product() -> None:
    a, b = (torch.randn(*shape, dtype=torch.double, requires_grad=True) for shape in ((3, 4), (4, 5)))
    assert torch.autograd.gradcheck(exact_product, (a, b))


@pytest.mark.long
def test_it_keeps_the_rules_for_an_operator_of_one_s_own() -> None:
    torch.library.opcheck(exact_product, [torch.randn(*shape, requires_grad=True) for shape in ((3, 4), (4, 5))])


@pytest.mark.long
def test_it_is_one_graph_under_torch_compile() -> None:
    a, b = torch.randn(3, 4, requires_grad=True), torch.randn(4, 5)
    compiled = torch.compile(lambda a, b: exact_product(a.sin(), b).cos(), backend="aot_eager", fullgraph=True)
    grads = (
        torch.autograd.grad(function(a, b).sum(), a)[0] for function in (compiled, lambda a, b: (a.sin() @ b).cos())
    )
    torch.testing.assert_close(*grads)


def test_a_linear_map_over_the_last_axis() -> None:
    x_BTI, weight_OI = torch.randn(2, 3, 4), torch.randn(5, 4)
    assert torch.equal(exact_linear(x_BTI, weight_OI), torch.nn.functional.linear(x_BTI, weight_OI))
