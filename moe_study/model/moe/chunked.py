"""Dispatch on a CPU: a few experts at a time, so that gathered rows and gradients are used while in the cache.

A layer of many small experts has several times the rows of its dense twin, and each pass over them costs about a
hundredth of the twin's time. So here rows are gathered, multiplied, activated and weighted chunk by chunk, the
gate weight is applied where rows are narrow (the hidden side), and the gradients are formulas: nothing but the
hidden units is kept for the backward pass, as many numbers as the dense twin keeps. Chunks do not depend on one
another, and are shared out among threads.

With h = x U + b, a = gelu(h) and y the sum over pairs of w (a V + c), and g the gradient by y:

    dw = a . (g V^T) + c . g    dV = (w a)^T g    dc = sum w g
    dh = w gelu'(h) (g V^T)     dU = x^T dh       db = sum dh      dx = sum dh U^T

Shape suffixes: E experts, D width, F hidden units of an expert, R blocks, P pairs, Q rows sorted by expert,
C rows and S pairs of one chunk, G rows of one expert, N tokens, M = block * D numbers of one block.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from moe_study.model.moe.experts import Experts
from moe_study.model.moe.grouped import by_block, sum_rows
from moe_study.model.moe.plan import Plan
from moe_study.model.moe.threads import in_threads

CHUNK = 1024  # rows: at usual widths a chunk and its expert fit a core's cache


@torch.compiler.disable
def chunked_ffn(x_ND: Tensor, plan: Plan, experts: Experts) -> Tensor:
    """See `dispatch.expert_ffn`."""
    weights = experts.up_EDF, experts.up_bias_EF, experts.down_EFD, experts.down_bias_ED
    y_ND: Tensor = _ChunkedFFN.apply(x_ND, plan.weight_P.to(x_ND.dtype), *weights, plan)  # type: ignore[no-untyped-call]
    return y_ND


@dataclass(frozen=True)
class Chunk:
    """Consecutive experts and what they are given."""

    experts: slice
    pairs: slice
    rows: slice
    rows_of: list[int]  # rows of each of these experts


def chunks(counts: list[int], block: int) -> Iterator[Chunk]:
    """All experts in order, up to CHUNK rows at a time; an expert with more of them is a chunk of its own."""
    ends = list(itertools.accumulate(counts))
    first = start = 0
    for expert, end in enumerate(ends):
        is_last = expert + 1 == len(ends)
        if is_last or (ends[expert + 1] - start) * block > CHUNK:
            rows_of = [count * block for count in counts[first : expert + 1]]
            rows = slice(start * block, end * block)
            yield Chunk(slice(first, expert + 1), slice(start, end), rows, rows_of)
            first, start = expert + 1, end


class _ChunkedFFN(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x_ND: Tensor,
        weight_P: Tensor,
        up_EDF: Tensor,
        up_bias_EF: Tensor | None,
        down_EFD: Tensor,
        down_bias_ED: Tensor | None,
        plan: Plan,
    ) -> Tensor:
        width, hidden, rows = x_ND.shape[1], up_EDF.shape[2], plan.pair_P.shape[0] * plan.block
        x_RM = by_block(x_ND, plan)
        h_QF, y_QD = x_ND.new_empty(rows, hidden), x_ND.new_empty(rows, width)
        a_QF = torch.empty_like(h_QF)
        ctx.chunks = list(chunks(plan.counts_E.tolist(), plan.block))

        def run(taken: Iterator[Chunk]) -> None:
            (x_buffer,) = _buffers(ctx.chunks, x_ND, width)
            for chunk in taken:
                h_CF, a_CF = h_QF[chunk.rows], a_QF[chunk.rows]
                x_CD = _take(x_RM, plan.block_P[chunk.pairs], out=x_buffer)
                _linear(x_CD, up_EDF, up_bias_EF, chunk, out=h_CF)
                torch.ops.aten.gelu.out(h_CF, out=a_CF)
                _linear(a_CF, down_EFD, down_bias_ED, chunk, out=y_QD[chunk.rows])

        in_threads(run, ctx.chunks)
        ctx.save_for_backward(x_ND, weight_P, up_EDF, down_EFD, down_bias_ED, h_QF, a_QF)
        ctx.plan, ctx.has_bias = plan, up_bias_EF is not None
        return _sum_onto_blocks(y_QD, plan, weight_P)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_ND: Tensor) -> tuple[Tensor | None, ...]:
        x_ND, weight_P, up_EDF, down_EFD, down_bias_ED, h_QF, a_QF = ctx.saved_tensors
        plan, width, hidden = ctx.plan, x_ND.shape[1], h_QF.shape[1]
        x_RM, grad_RM = by_block(x_ND, plan), by_block(grad_ND, plan)
        grad_x_QD, grad_weight_P = x_ND.new_empty(len(h_QF), width), torch.empty_like(weight_P)
        grad_up_EDF, grad_down_EFD = torch.empty_like(up_EDF), torch.empty_like(down_EFD)
        grad_up_bias_EF = up_EDF.new_empty(len(up_EDF), hidden) if ctx.has_bias else None

        def run(taken: Iterator[Chunk]) -> None:
            buffers = _buffers(ctx.chunks, x_ND, width, width, hidden, hidden)
            for chunk in taken:
                block_S, weight_S1 = plan.block_P[chunk.pairs], weight_P[chunk.pairs].unsqueeze(1)
                h_CF, a_CF = h_QF[chunk.rows], a_QF[chunk.rows]
                x_CD, grad_CD = _take(x_RM, block_S, out=buffers[0]), _take(grad_RM, block_S, out=buffers[1])
                back_CF, weighted_CF = (buffer[: len(h_CF)] for buffer in buffers[2:])
                _linear(grad_CD, down_EFD.mT, None, chunk, out=back_CF)
                grad_weight_P[chunk.pairs] = torch.linalg.vecdot(by_block(back_CF, plan), by_block(a_CF, plan))
                if down_bias_ED is not None:
                    grad_weight_P[chunk.pairs] += _grad_weight_of_bias(grad_CD, down_bias_ED, chunk, plan.block)
                torch.mul(by_block(a_CF, plan), weight_S1, out=by_block(weighted_CF, plan))
                grad_h_CF = torch.ops.aten.gelu_backward.grad_input(back_CF, h_CF, grad_input=back_CF)
                by_block(grad_h_CF, plan).mul_(weight_S1)
                _products_over_rows(weighted_CF, grad_CD, chunk, out_EIO=grad_down_EFD)
                _products_over_rows(x_CD, grad_h_CF, chunk, out_EIO=grad_up_EDF)
                _linear(grad_h_CF, up_EDF.mT, None, chunk, out=grad_x_QD[chunk.rows])
                if grad_up_bias_EF is not None:
                    _sums_over_rows(grad_h_CF, chunk, out_EO=grad_up_bias_EF)

        in_threads(run, ctx.chunks)
        grad_down_bias_ED = _grad_down_bias(grad_ND, weight_P, plan) if ctx.has_bias else None
        grad_x_ND = _sum_onto_blocks(grad_x_QD, plan)
        return grad_x_ND, grad_weight_P, grad_up_EDF, grad_up_bias_EF, grad_down_EFD, grad_down_bias_ED, None


def _buffers(chunk_list: list[Chunk], like: Tensor, *widths: int) -> list[Tensor]:
    """Memory for the rows of the largest chunk, one for each width: used again, it stays in the cache."""
    rows = max(sum(chunk.rows_of) for chunk in chunk_list)
    return [like.new_empty(rows, width) for width in widths]


def _take(x_RM: Tensor, block_S: Tensor, *, out: Tensor) -> Tensor:
    """The rows of some blocks, at the beginning of `out`."""
    rows = len(block_S) * x_RM.shape[1] // out.shape[1]
    torch.index_select(x_RM, 0, block_S, out=out[:rows].view(-1, x_RM.shape[1]))
    return out[:rows]


def _linear(x_CI: Tensor, weight_EIO: Tensor, bias_EO: Tensor | None, chunk: Chunk, *, out: Tensor) -> None:
    """Each row times its expert's weight, plus its bias."""
    weights = weight_EIO[chunk.experts].unbind()
    biases = [None] * len(weights) if bias_EO is None else bias_EO[chunk.experts].unbind()
    parts = zip(x_CI.split(chunk.rows_of), out.split(chunk.rows_of), weights, biases, strict=True)
    for x_GI, y_GO, weight_IO, bias_O in parts:
        if bias_O is None:
            torch.mm(x_GI, weight_IO, out=y_GO)
        else:
            torch.addmm(bias_O, x_GI, weight_IO, out=y_GO)


def _products_over_rows(x_CI: Tensor, y_CO: Tensor, chunk: Chunk, *, out_EIO: Tensor) -> None:
    """x^T y over the rows of each expert: the gradient of its weight. Zeros for an expert without rows."""
    parts = zip(x_CI.split(chunk.rows_of), y_CO.split(chunk.rows_of), out_EIO[chunk.experts].unbind(), strict=True)
    for x_GI, y_GO, out_IO in parts:
        torch.mm(x_GI.T, y_GO, out=out_IO)


def _sums_over_rows(y_CO: Tensor, chunk: Chunk, *, out_EO: Tensor) -> None:
    for y_GO, out_O in zip(y_CO.split(chunk.rows_of), out_EO[chunk.experts].unbind(), strict=True):
        torch.sum(y_GO, 0, out=out_O)


def _grad_weight_of_bias(grad_CD: Tensor, bias_ED: Tensor, chunk: Chunk, block: int) -> Tensor:
    """The part c . g of each pair's gradient by its weight, summed over the block's rows."""
    parts = zip(grad_CD.split(chunk.rows_of), bias_ED[chunk.experts].unbind(), strict=True)
    return torch.cat([torch.mv(grad_GD, bias_D) for grad_GD, bias_D in parts]).view(-1, block).sum(1)


def _grad_down_bias(grad_ND: Tensor, weight_P: Tensor, plan: Plan) -> Tensor:
    grad_RD = grad_ND.reshape(plan.blocks, plan.block, -1).sum(1) if plan.block > 1 else grad_ND
    starts_E1 = F.pad(plan.counts_E.cumsum(0), (1, 0))
    return sum_rows(grad_RD, plan.block_P, starts_E1, weight_P)


def _sum_onto_blocks(y_QD: Tensor, plan: Plan, weight_P: Tensor | None = None) -> Tensor:
    weights = None if weight_P is None else weight_P.index_select(0, plan.pair_P)
    return sum_rows(by_block(y_QD, plan), plan.pair_P, plan.starts_R1, weights).view(-1, y_QD.shape[1])
