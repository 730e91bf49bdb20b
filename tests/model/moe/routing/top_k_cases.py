"""What the kernel for the largest scores must do. Run by test_top_k.py, in Triton's interpreter.

On a machine with a GPU the same cases run compiled: python -m pytest tests/model/moe/routing/top_k_cases.py

Shape suffixes: R decisions, E experts, K picks.
"""

import math

import pytest
import torch
from torch import Tensor

from moe_study.model.moe.routing.top_k import top_k
from moe_study.model.moe.routing.top_k_kernel import top_k_in_kernel

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
ROUGH = torch.tensor([-math.inf, -2.5, -1e-40, -0.0, 0.0, 1e-40, 1.0, 3e38, math.inf])  # of every kind, many ties


def by_python(scores_RE: Tensor, k: int) -> list[list[int]]:
    """Python's sort leaves equal ones in their order."""
    return [sorted(range(len(scores)), key=lambda e: -scores[e])[:k] for scores in scores_RE.tolist()]


@pytest.mark.parametrize(
    ("rows", "experts", "k"), [(37, 8, 2), (5, 3, 3), (9, 1, 1), (7, 64, 8), (3, 70, 16), (0, 4, 2)]
)
def test_places_of_the_largest_best_first_and_of_equal_ones_the_first(rows, experts, k):
    generator = torch.Generator().manual_seed(rows)
    smooth_RE = torch.randn(rows, experts, generator=generator)
    tied_RE = ROUGH[torch.randint(len(ROUGH), (rows, experts), generator=generator)]
    for scores_RE in (smooth_RE, tied_RE):
        index_RK = top_k_in_kernel(scores_RE.to(DEVICE), k)
        assert index_RK.dtype == torch.long and index_RK.shape == (rows, k)
        assert index_RK.tolist() == by_python(scores_RE, k)


def test_not_a_number_is_the_largest_and_places_differ():
    nan = math.nan
    scores_RE = torch.tensor([[1.0, nan, 2.0], [nan, nan, nan], [math.inf, -math.inf, nan]], device=DEVICE)
    assert top_k_in_kernel(scores_RE, 3).tolist() == [[1, 2, 0], [0, 1, 2], [0, 2, 1]]


@pytest.mark.skipif(DEVICE == "cpu", reason="a CPU has torch's")
@pytest.mark.parametrize(("experts", "k"), [(8, 2), (1024, 16), (1025, 2), (64, 17)])
def test_a_gpu_gives_what_torch_gives_whether_the_kernel_takes_it_or_not(experts, k):
    scores_RE = torch.randperm(64 * experts, device=DEVICE).float().view(64, experts)
    assert torch.equal(top_k(scores_RE, k), scores_RE.topk(k, 1).indices)
    compiled = torch.compile(top_k, backend="aot_eager", fullgraph=True)
    assert torch.equal(compiled(scores_RE, k), scores_RE.topk(k, 1).indices)
