"""The largest scores on a CPU; the kernel's cases in Triton's interpreter, and its launch compiled for Hopper."""

from typing import Any

import pytest
import torch

from moe_study.model.moe.routing.top_k import top_k
from tests.hopper import HOPPER_SHARED_MEMORY, INTERPRETER, launched, run_in_interpreter

__all__ = ["launched"]


def test_experts_of_the_largest_scores_best_first() -> None:
    scores_RE = torch.rand(50, 7, generator=torch.Generator().manual_seed(0))
    best_first_RE = scores_RE.argsort(1, descending=True)
    for k in (1, 3, 7):
        assert torch.equal(top_k(scores_RE, k), best_first_RE[:, :k])


@pytest.mark.long
@INTERPRETER
def test_the_cases_hold_in_the_interpreter() -> None:
    run_in_interpreter("tests/model/moe/routing/top_k_cases.py")


@pytest.mark.long
@pytest.mark.parametrize(("experts", "k"), [(8, 2), (64, 8), (512, 8), (1000, 16)])
def test_every_launch_compiles_for_hopper(launched: list[tuple[str, Any]], experts: int, k: int) -> None:
    from moe_study.model.moe.routing.top_k_kernel import top_k_in_kernel

    top_k_in_kernel(torch.zeros(300, experts), k)
    ((name, kernel),) = launched
    assert name == "top_k_kernel" and kernel.metadata.shared <= HOPPER_SHARED_MEMORY
