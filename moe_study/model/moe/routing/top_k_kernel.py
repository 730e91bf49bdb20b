"""A Triton kernel for the k largest of each row's few scores: torch's, made for long rows, takes ten times as long.

Needs Triton and a GPU (or Triton's interpreter), and is imported only where it is wanted.

Suffixes: R rows, E scores of a row, K picks.
"""

# mypy: disable-error-code="no-untyped-def"

import torch
import triton
import triton.language as tl
from torch import Tensor

CELLS = 32 if triton.knobs.runtime.interpret else 1024  # scores that one program looks through; few in tests


@triton.jit
def top_k_kernel(scores_RE, index_RK, rows, experts, K: tl.constexpr, BR: tl.constexpr, BE: tl.constexpr):
    """A key for each score: above, its bits in an order of integers; below, its place, the first highest."""
    LEAST: tl.constexpr = -(2**63)
    r = tl.program_id(0).to(tl.int64) * BR + tl.arange(0, BR)
    e = tl.arange(0, BE)
    mask = (r < rows)[:, None] & (e < experts)[None, :]
    score = tl.load(scores_RE + r[:, None] * experts + e[None, :], mask=mask, other=0.0)
    score = tl.where(score == score, score + 0.0, float("inf"))  # NaN is the largest, as in torch; -0 is 0
    bits = score.to(tl.int32, bitcast=True)
    ordered = bits ^ ((bits >> 31) & 0x7FFFFFFF)  # of negative numbers the larger bits are the smaller number
    key = (ordered.to(tl.int64) << 32) | (BE - 1 - e)[None, :].to(tl.int64)
    key = tl.where(mask, key, LEAST)
    for rank in tl.static_range(K):
        best = tl.max(key, 1)
        tl.store(index_RK + r * K + rank, BE - 1 - (best & 0xFFFFFFFF), mask=r < rows)
        key = tl.where(key == best[:, None], LEAST, key)


def top_k_in_kernel(scores_RE: Tensor, k: int) -> Tensor:
    """Places (R, K), int64, of the k largest float32 scores of each row, best first; of equal ones the first."""
    rows, experts = scores_RE.shape
    index_RK = scores_RE.new_empty(rows, k, dtype=torch.long)
    columns = triton.next_power_of_2(experts)
    at_once = max(1, CELLS // columns)
    if rows:
        top_k_kernel[(triton.cdiv(rows, at_once),)](
            scores_RE, index_RK, rows, experts, K=k, BR=at_once, BE=columns, num_warps=4
        )
    return index_RK
