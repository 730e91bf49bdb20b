"""Grouped linear maps, on counts that are hard: none, all in one, odd sizes."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from moe_study.model.moe.experts.grouped_linear import column_sums, column_sums_by_bag, grouped_linear

COUNTS = [[3, 0, 5, 1], [0, 0, 0, 4], [4, 0, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1]]


def random(*shape: int, dtype: torch.dtype, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("counts", COUNTS)
@pytest.mark.parametrize("inputs", [8, 6])  # 6 float32 numbers are not a multiple of 16 bytes
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_every_row_goes_through_its_expert(counts: list[int], inputs: int, dtype: torch.dtype) -> None:
    rows = sum(counts)
    leaves = (
        random(rows, inputs, dtype=dtype),
        random(4, inputs, 8, dtype=dtype, seed=1),
        random(4, 8, dtype=dtype, seed=2),
    )
    x_QI, weight_EIO, bias_EO = (leaf.requires_grad_() for leaf in leaves)
    ends_E = torch.tensor(counts).cumsum(0).to(torch.int32)
    y_QO = grouped_linear(x_QI, weight_EIO, bias_EO, ends_E)
    assert y_QO.shape == (rows, 8) and y_QO.dtype == dtype
    wide = [leaf.detach().double().requires_grad_() for leaf in leaves]
    owners = [expert for expert, count in enumerate(counts) for _ in range(count)]
    expected = [wide[0][q] @ wide[1][e] + wide[2][e] for q, e in enumerate(owners)]
    if not expected:
        y_QO.sum().backward()
        assert all(leaf.grad is not None and (leaf.grad == 0).all() for leaf in leaves[1:])
        return
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 5e-2}[dtype]
    torch.testing.assert_close(y_QO.double(), torch.stack(expected), rtol=tolerance, atol=tolerance)
    weights_QO = random(rows, 8, dtype=torch.float64, seed=3)
    found = torch.autograd.grad((y_QO.double() * weights_QO).sum(), leaves)
    wanted = torch.autograd.grad((torch.stack(expected) * weights_QO).sum(), wide)
    for gradient, reference in zip(found, wanted, strict=True):
        torch.testing.assert_close(gradient.double(), reference, rtol=3 * tolerance, atol=3 * tolerance)


@pytest.mark.parametrize("counts", [counts for counts in COUNTS if sum(counts)])
@pytest.mark.parametrize("sums", [column_sums, column_sums_by_bag])
def test_column_sums_are_those_of_each_expert_s_rows(
    sums: Callable[[Tensor, Tensor], Tensor], counts: list[int]
) -> None:
    y_QO = random(sum(counts), 8, dtype=torch.float32)
    expected_EO = torch.stack([part.sum(0) for part in y_QO.split(counts)])
    ends_E = torch.tensor(counts).cumsum(0).to(torch.int32)
    torch.testing.assert_close(sums(y_QO, ends_E), expected_EO)
