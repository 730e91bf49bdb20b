"""Triton kernels for what lies between grouped products: each reads and writes every row once.

Rows are sorted by expert; row q belongs to pair q // BLOCK, and that to an expert and a block of tokens. Everything
is summed in float32 and in a fixed order. None for a pointer switches its part of a kernel off.

Suffixes: R blocks, P pairs of a block and an expert, N = R * BLOCK tokens, Q = P * BLOCK rows, D width, F hidden
units, E experts, R1 = R + 1. Pointers carry the suffix of what they point to.
"""

# mypy: disable-error-code="no-untyped-def"

import torch
import triton
import triton.language as tl
from torch import Tensor

from moe_study.model.moe.experts.triton_kernels import gelu

# Numbers that one program works on at a time, as rows by columns. On an H100 this many on one warp were fastest, of 128
# to 2,048 on one to eight; all are about as fast as memory allows.
CELLS = 512
WIDEST = 1024  # columns of one program that goes by tokens; those that sum over pairs take twice as many numbers
if triton.knobs.runtime.interpret:  # small, so that tests have many
    CELLS = WIDEST = 16


@triton.jit
def bias_gelu_kernel(
    h_QF, bias_EF, expert_P, out_QF, rows, hidden, BLOCK: tl.constexpr, BQ: tl.constexpr, BF: tl.constexpr
):  # fmt: skip
    """out = gelu(h + the expert's bias)."""
    q = tl.program_id(0).to(tl.int64) * BQ + tl.arange(0, BQ)
    f = tl.program_id(1) * BF + tl.arange(0, BF)
    mask = (q < rows)[:, None] & (f < hidden)[None, :]
    h = _biased(h_QF, bias_EF, expert_P, q, f, rows, hidden, mask, BLOCK)
    out, _ = gelu(h)
    tl.store(out_QF + q[:, None] * hidden + f[None, :], out.to(out_QF.dtype.element_ty), mask=mask)


@triton.jit
def _biased(h_QF, bias_EF, expert_P, q, f, rows, hidden, mask, BLOCK: tl.constexpr):
    h = tl.load(h_QF + q[:, None] * hidden + f[None, :], mask=mask, other=0.0).to(tl.float32)
    if bias_EF is not None:
        expert = tl.load(expert_P + q // BLOCK, mask=q < rows, other=0)
        h += tl.load(bias_EF + expert[:, None] * hidden + f[None, :], mask=mask, other=0.0).to(tl.float32)
    return h


@triton.jit
def hidden_gradient_kernel(
    u_QF, h_QF, bias_EF, by_bias_NE, weight_P, block_P, expert_P, active_QF, grad_weight_Q, rows, hidden, experts,
    BLOCK: tl.constexpr, BQ: tl.constexpr, BF: tl.constexpr,
):  # fmt: skip
    """Back through the gate weight and GELU, with u = grad @ down.T: active = weight * gelu(h + bias), for the
    gradient of `down`; u becomes weight * u * gelu'(h + bias), the gradient of h; and a row's part of the weight's
    gradient, u . gelu(h + bias) + by_bias, the latter being grad . down_bias for each token and expert.
    """
    q = tl.program_id(0).to(tl.int64) * BQ + tl.arange(0, BQ)
    in_rows = q < rows
    weight = tl.load(weight_P + q // BLOCK, mask=in_rows, other=0.0).to(tl.float32)[:, None]
    by_weight = tl.zeros((BQ,), tl.float32)
    for first in range(0, hidden, BF):
        f = first + tl.arange(0, BF)
        mask, cell = in_rows[:, None] & (f < hidden)[None, :], q[:, None] * hidden + f[None, :]
        u = tl.load(u_QF + cell, mask=mask, other=0.0).to(tl.float32)
        out, slope = gelu(_biased(h_QF, bias_EF, expert_P, q, f, rows, hidden, mask, BLOCK))
        tl.store(active_QF + cell, (weight * out).to(active_QF.dtype.element_ty), mask=mask)
        tl.store(u_QF + cell, (weight * u * slope).to(u_QF.dtype.element_ty), mask=mask)
        by_weight += tl.sum(u * out, 1)
    if by_bias_NE is not None:
        token = tl.load(block_P + q // BLOCK, mask=in_rows, other=0) * BLOCK + q % BLOCK
        expert = tl.load(expert_P + q // BLOCK, mask=in_rows, other=0)
        by_weight += tl.load(by_bias_NE + token * experts + expert, mask=in_rows, other=0.0).to(tl.float32)
    tl.store(grad_weight_Q + q, by_weight, mask=in_rows)


@triton.jit
def combine_kernel(
    y_QD, bias_ED, weight_P, expert_P, pair_P, starts_R1, out_ND, width,
    BLOCK: tl.constexpr, PAIRS: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """out[n] = sum over the pairs of token n's block of [weight *] (y [+ the expert's bias]), PAIRS at a time."""
    token = tl.program_id(0).to(tl.int64)
    start = tl.load(starts_R1 + token // BLOCK)
    end = tl.load(starts_R1 + token // BLOCK + 1)
    d = tl.program_id(1) * BD + tl.arange(0, BD)
    total = tl.zeros((BD,), tl.float32)
    for first in range(start, end, PAIRS):
        i = first + tl.arange(0, PAIRS)
        pair = tl.load(pair_P + i, mask=i < end, other=0).to(tl.int64)
        mask = (i < end)[:, None] & (d < width)[None, :]
        y = tl.load(y_QD + (pair * BLOCK + token % BLOCK)[:, None] * width + d[None, :], mask=mask, other=0.0)
        y = y.to(tl.float32)
        if bias_ED is not None:
            expert = tl.load(expert_P + pair, mask=i < end, other=0)
            y += tl.load(bias_ED + expert[:, None] * width + d[None, :], mask=mask, other=0.0).to(tl.float32)
        if weight_P is not None:
            y *= tl.load(weight_P + pair, mask=i < end, other=0.0).to(tl.float32)[:, None]
        total += tl.sum(y, 0)
    tl.store(out_ND + token * width + d, total.to(out_ND.dtype.element_ty), mask=d < width)


@triton.jit
def spread_kernel(x_ND, pair_P, starts_R1, out_QD, width, BLOCK: tl.constexpr, BD: tl.constexpr):
    """out[q] = x[n] in token n's row of each pair of its block: a token is read once, however many experts take it."""
    token = tl.program_id(0).to(tl.int64)
    start = tl.load(starts_R1 + token // BLOCK)
    end = tl.load(starts_R1 + token // BLOCK + 1)
    d = tl.program_id(1) * BD + tl.arange(0, BD)
    x = tl.load(x_ND + token * width + d, mask=d < width, other=0.0).to(out_QD.dtype.element_ty)
    for i in range(start, end):
        pair = tl.load(pair_P + i).to(tl.int64)
        tl.store(out_QD + (pair * BLOCK + token % BLOCK) * width + d, x, mask=d < width)


def _columns(size: int) -> int:
    """Of one program: a power of two that divides rows of `size` evenly, if one of a quarter of CELLS or more does."""
    columns = CELLS
    while columns > CELLS // 4 and size % columns:
        columns //= 2
    return columns


def spread(x_ND: Tensor, pair_P: Tensor, starts_R1: Tensor, block: int, dtype: torch.dtype) -> Tensor:
    """The tokens of each pair's block, (Q, D), in `dtype`."""
    tokens, width = x_ND.shape
    out_QD = x_ND.new_empty(pair_P.shape[0] * block, width, dtype=dtype)
    columns = min(WIDEST, triton.next_power_of_2(width))
    if tokens:
        spread_kernel[(tokens, triton.cdiv(width, columns))](
            x_ND, pair_P, starts_R1, out_QD, width, BLOCK=block, BD=columns, num_warps=1
        )
    return out_QD


def bias_gelu(h_QF: Tensor, bias_EF: Tensor | None, expert_P: Tensor, block: int) -> Tensor:
    """gelu(h + the expert's bias), (Q, F)."""
    (rows, hidden), out_QF = h_QF.shape, torch.empty_like(h_QF)
    columns = _columns(hidden)
    bias_gelu_kernel[(triton.cdiv(rows, CELLS // columns), triton.cdiv(hidden, columns))](
        h_QF, bias_EF, expert_P, out_QF, rows, hidden,
        BLOCK=block, BQ=CELLS // columns, BF=columns, num_warps=1,
    )  # fmt: skip
    return out_QF


def hidden_gradient(
    u_QF: Tensor,
    h_QF: Tensor,
    bias_EF: Tensor | None,
    by_bias_NE: Tensor | None,
    weight_P: Tensor,
    block_P: Tensor,
    expert_P: Tensor,
    block: int,
) -> tuple[Tensor, Tensor]:
    """weight * gelu(h) (Q, F), and d loss / d weight (P) in float32; u becomes d loss / d h. See the kernel."""
    (rows, hidden), experts = h_QF.shape, 0 if by_bias_NE is None else by_bias_NE.shape[1]
    active_QF, grad_weight_Q = torch.empty_like(h_QF), h_QF.new_empty(rows, dtype=torch.float32)
    columns = _columns(hidden)
    at_once = CELLS // columns
    hidden_gradient_kernel[(triton.cdiv(rows, at_once),)](
        u_QF, h_QF, bias_EF, by_bias_NE, weight_P, block_P, expert_P, active_QF, grad_weight_Q, rows, hidden, experts,
        BLOCK=block, BQ=at_once, BF=columns, num_warps=1,
    )  # fmt: skip
    return active_QF, grad_weight_Q.view(-1, block).sum(1)


def combine(
    y_QD: Tensor,
    pair_P: Tensor,
    starts_R1: Tensor,
    block: int,
    dtype: torch.dtype,
    *,
    weight_P: Tensor | None = None,
    bias_ED: Tensor | None = None,
    expert_P: Tensor | None = None,
) -> Tensor:
    """Each token's sum over its block's pairs, [weighted,] [the expert's bias added first,] (N, D), in `dtype`."""
    (rows, width), tokens = y_QD.shape, (starts_R1.shape[0] - 1) * block
    out_ND = y_QD.new_empty(tokens, width, dtype=dtype)
    at_once = min(8, triton.next_power_of_2(max(1, round(rows / max(1, tokens)))))
    columns = min(WIDEST, 2 * WIDEST // at_once, triton.next_power_of_2(width))
    if tokens:
        combine_kernel[(tokens, triton.cdiv(width, columns))](
            y_QD, bias_ED, weight_P, expert_P, pair_P, starts_R1, out_ND, width,
            BLOCK=block, PAIRS=at_once, BD=columns, num_warps=1,
        )  # fmt: skip
    return out_ND
