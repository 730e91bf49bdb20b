"""The experts' feed-forward on sorted pairs by torch's grouped products, with kernels of our own between them.

    y[n] = sum over token n's pairs p of weight[p] * (gelu(x[n] @ up[e] + up_bias[e]) @ down[e] + down_bias[e])

with e the expert of p. Products go through torch's grouped product, which on a GPU is as fast as a dense one; biases,
GELU, gate weights and the sums over a token's pairs go through `fused_kernels`, one pass each. Forward: tokens are
spread over their pairs' rows, multiplied by `up`; bias and GELU; multiplied by `down`; bias, weight and sum. What is
kept of the pairs' size are the tokens' rows and the first product. Backward, with u = grad[token] @ down.T: one pass
gives the hidden gradient, the weighted activations and the gate weights' gradients (as in SonicMoE, 2512.14080, so
that no expert's output is kept); three products more, and the tokens' sums. What the biases of `down` take part in is
two small products over tokens, (D) by (E), in place of passes over all pairs. Nothing is added atomically and no value
is read by the host.

Both passes are custom operators, opaque to torch.compile, which therefore does not break the graph. This module
needs Triton and is imported only where it is wanted; in Triton's interpreter it runs on the CPU.

Shape suffixes: R blocks, P pairs of a block and an expert, N = R * block tokens, Q = P * block rows of expert input,
D width, F hidden units, E experts, R1 = R + 1.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from moe_study.model.moe.experts.dispatch_plan import DispatchPlan
from moe_study.model.moe.experts.experts import Experts
from moe_study.model.moe.experts.fused_kernels import bias_gelu, combine, hidden_gradient, spread
from moe_study.model.moe.experts.grouped_linear import column_sums
from moe_study.model.moe.experts.operands import compact, present, room_for_gradients, weights_of
from moe_study.model.precision import product_dtype


def fused_ffn(x_ND: Tensor, plan: DispatchPlan, experts: Experts) -> Tensor:
    """See `dispatch.expert_ffn`. The sizes must be what torch's grouped product takes (`grouped_linear.aligned`)."""
    indices = plan.block_P, plan.weight_P.float(), plan.expert_P, plan.ends_E, plan.pair_P, plan.starts_R1
    dtype = product_dtype(x_ND)
    return _FusedFFN.apply(x_ND, *indices, plan.block, *weights_of(experts), dtype, torch.is_grad_enabled())  # type: ignore


class _FusedFFN(torch.autograd.Function):
    """Weights are cast in here, so that their gradients leave in full precision without a second pass."""

    @staticmethod
    def forward(
        ctx: Any,
        x_ND: Tensor,
        block_P: Tensor,
        weight_P: Tensor,
        expert_P: Tensor,
        ends_E: Tensor,
        pair_P: Tensor,
        starts_R1: Tensor,
        block: int,
        up_EDF: Tensor,
        up_bias_EF: Tensor | None,
        down_EFD: Tensor,
        down_bias_ED: Tensor | None,
        dtype: torch.dtype,
        keep: bool,
    ) -> Tensor:
        ctx.block, ctx.dtypes = block, (x_ND.dtype, up_EDF.dtype)
        plan = block_P, weight_P.contiguous(), expert_P, ends_E, pair_P, starts_R1
        experts = compact((up_EDF, up_bias_EF, down_EFD, down_bias_ED), dtype)
        y_ND, x_QD, h_QF = _forward(x_ND.contiguous(), *plan, *experts, block, dtype, keep)
        ctx.save_for_backward(*plan, *experts, x_QD, h_QF)
        return y_ND

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_ND: Tensor) -> tuple[Tensor | None, ...]:
        *plan_and_experts, x_QD, h_QF = ctx.saved_tensors
        grad_ND = grad_ND.to(x_QD.dtype).contiguous()
        x, weight, *experts = _backward(grad_ND, *plan_and_experts, x_QD, h_QF, ctx.block, *ctx.dtypes)
        grads = present(experts, plan_and_experts[-4:])
        return x, None, weight, None, None, None, None, None, *grads, None, None


@torch.library.custom_op("moe_study::fused_ffn", mutates_args=())
def _forward(
    x_ND: Tensor,
    block_P: Tensor,
    weight_P: Tensor,
    expert_P: Tensor,
    ends_E: Tensor,
    pair_P: Tensor,
    starts_R1: Tensor,
    up_EDF: Tensor,
    up_bias_EF: Tensor | None,
    down_EFD: Tensor,
    down_bias_ED: Tensor | None,
    block: int,
    dtype: torch.dtype,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Outputs (N, D), in `dtype` as all that follows; and for the backward pass the tokens of all pairs (Q, D) and what
    `up` makes of them (Q, F), without `keep` no rows of either."""
    x_QD = spread(x_ND, pair_P, starts_R1, block, dtype)
    if not len(x_QD):  # torch's grouped product takes no fewer than one
        return torch.zeros_like(x_ND, dtype=dtype), x_QD, x_QD.new_empty(0, up_EDF.shape[2])
    h_QF = F.grouped_mm(x_QD, up_EDF, offs=ends_E)
    active_QF = bias_gelu(h_QF, up_bias_EF, expert_P, block)
    y_QD = F.grouped_mm(active_QF, down_EFD, offs=ends_E)
    y_ND = combine(
        y_QD, pair_P, starts_R1, block, dtype, weight_P=weight_P, bias_ED=down_bias_ED, expert_P=expert_P
    )
    return (y_ND, x_QD, h_QF) if keep else (y_ND, x_QD.new_empty(0, x_QD.shape[1]), h_QF.new_empty(0, h_QF.shape[1]))


@_forward.register_fake
def _(  # type: ignore[no-untyped-def]
    x_ND, block_P, weight_P, expert_P, ends_E, pair_P, starts_R1, up_EDF, up_bias_EF, down_EFD, down_bias_ED,
    block, dtype, keep,
):  # fmt: skip
    y_ND, rows = torch.empty_like(x_ND, dtype=dtype), block_P.shape[0] * block if keep else 0
    return y_ND, y_ND.new_empty(rows, x_ND.shape[1]), y_ND.new_empty(rows, up_EDF.shape[2])


@torch.library.custom_op("moe_study::fused_ffn_backward", mutates_args=())
def _backward(
    grad_ND: Tensor,
    block_P: Tensor,
    weight_P: Tensor,
    expert_P: Tensor,
    ends_E: Tensor,
    pair_P: Tensor,
    starts_R1: Tensor,
    up_EDF: Tensor,
    up_bias_EF: Tensor | None,
    down_EFD: Tensor,
    down_bias_ED: Tensor | None,
    x_QD: Tensor,
    h_QF: Tensor,
    block: int,
    x_dtype: torch.dtype,
    experts_dtype: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients by x, weight, up, up_bias, down and down_bias, the biases' without elements where there are none."""
    if not len(h_QF):
        up = room_for_gradients(up_EDF, up_bias_EF, experts_dtype)
        down = room_for_gradients(down_EFD, down_bias_ED, experts_dtype)
        for grad in (*up, *down):
            grad.zero_()
        return torch.zeros_like(grad_ND, dtype=x_dtype), torch.zeros_like(weight_P), *up, *down
    grad_QD = spread(grad_ND, pair_P, starts_R1, block, grad_ND.dtype)
    grad_h_QF = F.grouped_mm(grad_QD, down_EFD.mT, offs=ends_E)  # of gelu's output, until the next statement
    by_bias_NE = None
    grad_up_bias, grad_down_bias = (grad_ND.new_empty(0, dtype=experts_dtype) for _ in range(2))
    if down_bias_ED is not None:
        by_bias_NE = grad_ND @ down_bias_ED.to(grad_ND.dtype).T
        weight_NE = _weight_by_token(weight_P, block_P, expert_P, len(starts_R1) - 1, len(ends_E), block)
        grad_down_bias = (weight_NE.to(grad_ND.dtype).T @ grad_ND).to(experts_dtype)
    active_QF, grad_weight_P = hidden_gradient(
        grad_h_QF, h_QF, up_bias_EF, by_bias_NE, weight_P, block_P, expert_P, block
    )
    grad_down_EFD = F.grouped_mm(active_QF.mT, grad_QD, offs=ends_E).to(experts_dtype)
    del active_QF, grad_QD
    grad_up_EDF = F.grouped_mm(x_QD.mT, grad_h_QF, offs=ends_E).to(experts_dtype)
    if up_bias_EF is not None:
        grad_up_bias = column_sums(grad_h_QF, ends_E).to(experts_dtype, copy=True)
    grad_x_QD = F.grouped_mm(grad_h_QF, up_EDF.mT, offs=ends_E)
    grad_x_ND = combine(grad_x_QD, pair_P, starts_R1, block, x_dtype)
    return grad_x_ND, grad_weight_P, grad_up_EDF, grad_up_bias, grad_down_EFD, grad_down_bias


@_backward.register_fake
def _(  # type: ignore[no-untyped-def]
    grad_ND, block_P, weight_P, expert_P, ends_E, pair_P, starts_R1, up_EDF, up_bias_EF, down_EFD, down_bias_ED,
    x_QD, h_QF, block, x_dtype, experts_dtype,
):  # fmt: skip
    up = room_for_gradients(up_EDF, up_bias_EF, experts_dtype)
    down = room_for_gradients(down_EFD, down_bias_ED, experts_dtype)
    return torch.empty_like(grad_ND, dtype=x_dtype), torch.empty_like(weight_P), *up, *down


def _weight_by_token(
    weight_P: Tensor, block_P: Tensor, expert_P: Tensor, blocks: int, experts: int, block: int
) -> Tensor:
    """Each token's gate weight of each expert, 0 of those that it does not go to: (N, E)."""
    weight_RE = weight_P.new_zeros(blocks, experts)
    weight_RE.view(-1).scatter_add_(0, block_P * experts + expert_P, weight_P)
    return weight_RE.repeat_interleave(block, 0) if block > 1 else weight_RE
