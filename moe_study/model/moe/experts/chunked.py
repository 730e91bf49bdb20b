"""Dispatch on a CPU: a few experts at a time, so that gathered rows and gradients are used while in the cache.

A layer of many small experts has several times the rows of its dense twin, and each pass over them costs about a
hundredth of the twin's time. So here rows are gathered, multiplied, activated and weighted chunk by chunk, the
gate weight is applied where rows are narrow (the hidden side), and the gradients are formulas: nothing but the
hidden units is kept for the backward pass, as many numbers as the dense twin keeps. Chunks of different experts do
not depend on one another, and are shared out among threads.

With h = x U + b, a = gelu(h) and y the sum over pairs of w (a V + c), and g the gradient by y:

    dw = a . (g V^T) + c . g    dV = (w a)^T g    dc = sum w g
    dh = w gelu'(h) (g V^T)     dU = x^T dh       db = sum dh      dx = sum dh U^T

Shape suffixes: E experts, D width, F hidden units of an expert, I inputs and O outputs of a linear map, R blocks,
P pairs, Q rows sorted by expert, C rows and S pairs of one chunk, G rows of one of its experts (x_GIs: a tensor for
each of them), N tokens, M = block * D numbers of one block.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from moe_study.model.moe.experts.dispatch_plan import DispatchPlan
from moe_study.model.moe.experts.experts import Experts
from moe_study.model.moe.experts.operands import weights_of
from moe_study.model.moe.experts.rows import by_block, sum_rows
from moe_study.model.moe.experts.threads import in_threads

CACHES = Path("/sys/devices/system/cpu/cpu0/cache")  # what Linux says of a core's caches


def level_2_bytes(caches: Path = CACHES) -> int | None:
    """Size of a core's second cache in bytes; None where the system does not say."""
    units = {"K": 1 << 10, "M": 1 << 20}
    try:
        for cache in sorted(caches.glob("index*")):
            if (cache / "level").read_text(encoding="utf-8").strip() == "2":
                size = (cache / "size").read_text(encoding="utf-8").strip()
                return int(size[:-1]) * units[size[-1]]
    except (OSError, ValueError, KeyError, IndexError):
        return None
    return None


def rows_of_chunk(cache_bytes: int | None) -> int:
    """Rows of a chunk: a second cache of 1 MiB keeps 1,024 near; a smaller one loses them, and more rows save calls.

    Measured on both kinds of machine (docs/LOG.md). Sums are cut at chunks, so the last bits depend on it: it is
    fixed for a machine, and runs record it.
    """
    return 1024 if cache_bytes is None or cache_bytes >= 1 << 20 else 4096


CHUNK = rows_of_chunk(level_2_bytes())


def chunked_ffn(x_ND: Tensor, plan: DispatchPlan, experts: Experts) -> Tensor:
    """See `dispatch.expert_ffn`."""
    if torch.compiler.is_compiling():
        from moe_study.model.moe.experts.uncompiled import uncompiled

        return uncompiled(_chunked_ffn, x_ND, plan, experts)
    return _chunked_ffn(x_ND, plan, experts)


def _chunked_ffn(x_ND: Tensor, plan: DispatchPlan, experts: Experts) -> Tensor:
    weight_P = plan.weight_P.to(x_ND.dtype)
    y_ND: Tensor = _ChunkedFFN.apply(x_ND, weight_P, *weights_of(experts), plan)  # type: ignore[no-untyped-call]
    return y_ND


@dataclass(frozen=True)
class Chunk:
    """Pairs that follow one another in the plan, of one expert or of several."""

    pairs: slice
    rows: slice
    experts: list[int]
    rows_of: list[int]  # rows of each of these experts, at least one
    adds: bool  # gradients add to those of a chunk before it, of the same expert


def shares(counts: list[int], block: int) -> list[list[Chunk]]:
    """All pairs in shares that do not depend on one another, each of one or more chunks of about CHUNK rows.

    Experts with few rows are together in a chunk; one with many has a share of several. An expert without rows is
    in none. The largest shares come first, lest a thread be left with one when the others have nothing more to do.
    """
    found: list[list[Chunk]] = []
    experts: list[int] = []
    first = end = 0
    for expert, count in enumerate(counts):
        if experts and (end + count - first) * block > CHUNK:
            found.append(_share(experts, counts, first, block))
            experts, first = [], end
        if count:
            experts.append(expert)
            end += count
    if experts:
        found.append(_share(experts, counts, first, block))
    return sorted(found, key=lambda share: share[-1].rows.stop - share[0].rows.start, reverse=True)


def _share(experts: list[int], counts: list[int], first: int, block: int) -> list[Chunk]:
    pairs_of = [counts[e] for e in experts]
    if len(experts) > 1:
        return [_chunk(first, experts, pairs_of, block, adds=False)]
    chunks = min(pairs_of[0], max(1, pairs_of[0] * block // CHUNK))
    cuts = [first + pairs_of[0] * cut // chunks for cut in range(chunks + 1)]
    return [_chunk(start, experts, [end - start], block, adds=start > first) for start, end in itertools.pairwise(cuts)]


def _chunk(start: int, experts: list[int], pairs_of: list[int], block: int, adds: bool) -> Chunk:
    end = start + sum(pairs_of)
    rows_of = [pairs * block for pairs in pairs_of]
    return Chunk(slice(start, end), slice(start * block, end * block), experts, rows_of, adds)


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
        plan: DispatchPlan,
    ) -> Tensor:
        width, hidden, rows = x_ND.shape[1], up_EDF.shape[2], plan.pair_P.shape[0] * plan.block
        x_RM = by_block(x_ND, plan)
        h_QF, y_QD = x_ND.new_empty(rows, hidden), x_ND.new_empty(rows, width)
        a_QF = torch.empty_like(h_QF)
        up, down = _Linear(up_EDF, up_bias_EF), _Linear(down_EFD, down_bias_ED)
        ctx.shares = shares(plan.counts_E.tolist(), plan.block)

        def run(taken: Iterator[list[Chunk]]) -> None:
            (buffer,) = _buffers(ctx.shares, x_ND, width)
            for chunk in itertools.chain.from_iterable(taken):
                h_CF, a_CF = h_QF[chunk.rows], a_QF[chunk.rows]
                up(_take(x_RM, plan, chunk, buffer), chunk, out=h_CF)
                torch.ops.aten.gelu.out(h_CF, out=a_CF)
                down(a_CF.split(chunk.rows_of), chunk, out=y_QD[chunk.rows])

        in_threads(run, ctx.shares)
        ctx.save_for_backward(x_ND, weight_P, up_EDF, down_EFD, down_bias_ED, h_QF, a_QF)
        ctx.plan, ctx.has_bias = plan, up_bias_EF is not None
        return _sum_onto_blocks(y_QD, plan, weight_P)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_ND: Tensor) -> tuple[Tensor | None, ...]:
        x_ND, weight_P, up_EDF, down_EFD, down_bias_ED, h_QF, a_QF = ctx.saved_tensors
        plan, width, hidden = ctx.plan, x_ND.shape[1], h_QF.shape[1]
        x_RM, grad_RM = by_block(x_ND, plan), by_block(grad_ND, plan)
        grad_x_QD = x_ND.new_empty(len(h_QF), width)
        grad_weight_P = torch.empty_like(weight_P) if ctx.needs_input_grad[1] else None
        up, down = _Linear(up_EDF.mT), _Linear(down_EFD.mT)
        grad_up, grad_down = _Gradient(up_EDF, ctx.has_bias, plan), _Gradient(down_EFD, False, plan)

        def run(taken: Iterator[list[Chunk]]) -> None:
            buffers = _buffers(ctx.shares, x_ND, width, width, hidden, hidden)
            for chunk in itertools.chain.from_iterable(taken):
                weight_S1, h_CF, a_CF = weight_P[chunk.pairs].unsqueeze(1), h_QF[chunk.rows], a_QF[chunk.rows]
                x_GDs, grad_GDs = (_take(x, plan, chunk, b) for x, b in ((x_RM, buffers[0]), (grad_RM, buffers[1])))
                back_CF, weighted_CF = (buffer[: len(h_CF)] for buffer in buffers[2:])
                down(grad_GDs, chunk, out=back_CF)
                if grad_weight_P is not None:
                    grad_weight_P[chunk.pairs] = torch.linalg.vecdot(by_block(back_CF, plan), by_block(a_CF, plan))
                    if down_bias_ED is not None:
                        grad_weight_P[chunk.pairs] += _grad_weight_of_bias(grad_GDs, down_bias_ED, chunk, plan.block)
                torch.mul(by_block(a_CF, plan), weight_S1, out=by_block(weighted_CF, plan))
                grad_h_CF = torch.ops.aten.gelu_backward.grad_input(back_CF, h_CF, grad_input=back_CF)
                by_block(grad_h_CF, plan).mul_(weight_S1)
                grad_h_GFs = grad_h_CF.split(chunk.rows_of)
                grad_down.take(weighted_CF.split(chunk.rows_of), grad_GDs, chunk)
                grad_up.take(x_GDs, grad_h_GFs, chunk)
                up(grad_h_GFs, chunk, out=grad_x_QD[chunk.rows])

        in_threads(run, ctx.shares)
        grad_down_bias_ED = _grad_down_bias(grad_ND, weight_P, plan) if ctx.has_bias else None
        grad_x_ND = _sum_onto_blocks(grad_x_QD, plan)
        gradients = grad_up.weight_EIO, grad_up.bias_EO, grad_down.weight_EIO, grad_down_bias_ED
        return grad_x_ND, grad_weight_P, *gradients, None


class _Linear:
    """A chunk's rows, each times its expert's weight, plus its bias."""

    def __init__(self, weight_EIO: Tensor, bias_EO: Tensor | None = None) -> None:
        self.weights, self.biases = weight_EIO.unbind(), None if bias_EO is None else bias_EO.unbind()

    def __call__(self, x_GIs: Sequence[Tensor], chunk: Chunk, *, out: Tensor) -> None:
        for e, x_GI, y_GO in zip(chunk.experts, x_GIs, out.split(chunk.rows_of), strict=True):
            if self.biases is None:
                torch.mm(x_GI, self.weights[e], out=y_GO)
            else:
                torch.addmm(self.biases[e], x_GI, self.weights[e], out=y_GO)


class _Gradient:
    """Gradients of the experts' weights and biases; zeros for experts without rows."""

    def __init__(self, weight_EIO: Tensor, has_bias: bool, plan: DispatchPlan) -> None:
        self.weight_EIO = torch.empty_like(weight_EIO)
        self.bias_EO = torch.empty_like(weight_EIO[:, 0]) if has_bias else None
        self.weights, self.biases = self.weight_EIO.unbind(), None if self.bias_EO is None else self.bias_EO.unbind()
        for e in (plan.counts_E == 0).nonzero().flatten().tolist():
            self.weights[e].zero_()
            if self.biases is not None:
                self.biases[e].zero_()

    def take(self, x_GIs: Sequence[Tensor], grad_GOs: Sequence[Tensor], chunk: Chunk) -> None:
        """x^T grad, and the sum of grad, over the chunk's rows of each expert."""
        for e, x_GI, grad_GO in zip(chunk.experts, x_GIs, grad_GOs, strict=True):
            if chunk.adds:
                self.weights[e].addmm_(x_GI.T, grad_GO)
            else:
                torch.mm(x_GI.T, grad_GO, out=self.weights[e])
            if self.biases is not None and chunk.adds:
                self.biases[e].add_(grad_GO.sum(0))
            elif self.biases is not None:
                torch.sum(grad_GO, 0, out=self.biases[e])


def _buffers(shares: list[list[Chunk]], like: Tensor, *widths: int) -> list[Tensor]:
    """Memory for the rows of the largest chunk, one for each width: used again, it stays in the cache."""
    rows = max((sum(chunk.rows_of) for share in shares for chunk in share), default=0)
    return [like.new_empty(rows, width) for width in widths]


def _take(x_RM: Tensor, plan: DispatchPlan, chunk: Chunk, buffer_CD: Tensor) -> Sequence[Tensor]:
    """What each of the chunk's experts is given, gathered into the buffer."""
    block_S = plan.block_P[chunk.pairs]
    x_CD = buffer_CD[: len(block_S) * plan.block]
    torch.index_select(x_RM, 0, block_S, out=x_CD.view(len(block_S), -1))
    return x_CD.split(chunk.rows_of)


def _grad_weight_of_bias(grad_GDs: Sequence[Tensor], bias_ED: Tensor, chunk: Chunk, block: int) -> Tensor:
    """The part c . g of each pair's gradient by its weight, summed over the block's rows."""
    products = [torch.mv(grad_GD, bias_ED[e]) for grad_GD, e in zip(grad_GDs, chunk.experts, strict=True)]
    return torch.cat(products).view(-1, block).sum(1)


def _grad_down_bias(grad_ND: Tensor, weight_P: Tensor, plan: DispatchPlan) -> Tensor:
    grad_RD = grad_ND.reshape(plan.blocks, plan.block, -1).sum(1) if plan.block > 1 else grad_ND
    starts_E1 = F.pad(plan.counts_E.cumsum(0), (1, 0))
    return sum_rows(grad_RD, plan.block_P, starts_E1, weight_P)


def _sum_onto_blocks(y_QD: Tensor, plan: DispatchPlan, weight_P: Tensor | None = None) -> Tensor:
    weights = None if weight_P is None else weight_P.index_select(0, plan.pair_P)
    return sum_rows(by_block(y_QD, plan), plan.pair_P, plan.starts_R1, weights).view(-1, y_QD.shape[1])
