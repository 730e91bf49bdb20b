"""The experts' feed-forward on sorted pairs as one differentiable function, on Triton kernels of our own.

    y[n] = sum over token n's pairs p of weight[p] * (gelu(x[n] @ up[e] + up_bias[e]) @ down[e] + down_bias[e])

with e the expert of p. Forward: a grouped product that gathers its rows, with bias and GELU behind it; a second one,
with bias and weight behind it; and each token's sum over its pairs. The first product's result is the only thing of
the pairs' size that is kept. Backward: one grouped product gives the hidden gradients, the gate weights' gradients
and the weighted activations; two products per expert the experts' gradients; a last one and the tokens' sums the
input's. No value is read by the host and nothing is added atomically: no synchronisation, and equal inputs give
equal bits.

Both passes are custom operators, opaque to torch.compile, which therefore does not break the graph. This module
needs Triton and is imported only where it is wanted. In Triton's interpreter (TRITON_INTERPRET=1 before Triton is
first imported) it runs on the CPU, slowly: how the kernels are tested without a GPU.

Shape suffixes: R blocks, P pairs of a block and an expert, N = R * block tokens, Q = P * block rows of expert input,
D width, F hidden units, E experts, R1 = R + 1.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from moe_study.model.moe.experts.dispatch_plan import DispatchPlan
from moe_study.model.moe.experts.experts import Experts
from moe_study.model.moe.experts.fused_kernels import combine
from moe_study.model.moe.experts.operands import compact, present, room_for_gradients, weights_of
from moe_study.model.moe.experts.triton_launch import RowTiles, weight_gradient
from moe_study.model.precision import product_dtype

DTYPES = (torch.bfloat16, torch.float16, torch.float32)


def triton_ffn(x_ND: Tensor, plan: DispatchPlan, experts: Experts) -> Tensor:
    """See `dispatch.expert_ffn`.

    Products are of bfloat16, float16 or float32 values (ValueError for others), summed in float32; float32 values are
    rounded to TF32 only where torch.get_float32_matmul_precision() says so. Gradients come in the precision of what
    they belong to.
    """
    dtype = product_dtype(x_ND)
    if dtype not in DTYPES:
        raise ValueError(f"the Triton kernels take bfloat16, float16 or float32, not {dtype}")
    indices = plan.block_P, plan.weight_P.float(), plan.ends_E, plan.pair_P, plan.starts_R1
    return _ExpertFFN.apply(x_ND, *indices, plan.block, *weights_of(experts), dtype, torch.is_grad_enabled())  # type: ignore


class _ExpertFFN(torch.autograd.Function):
    """Weights are cast in here, so that their gradients leave in full precision without a second pass."""

    @staticmethod
    def forward(
        ctx: Any,
        x_ND: Tensor,
        block_P: Tensor,
        weight_P: Tensor,
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
        x_ND = x_ND.to(dtype).contiguous()
        plan = block_P, weight_P.contiguous(), ends_E, pair_P, starts_R1
        experts = compact((up_EDF, up_bias_EF, down_EFD, down_bias_ED), dtype)
        y_ND, h_QF = _forward(x_ND, *plan, *experts, block, keep)
        ctx.save_for_backward(x_ND, *plan, *experts, h_QF)
        return y_ND

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_ND: Tensor) -> tuple[Tensor | None, ...]:
        x_ND, *plan_and_experts, h_QF = ctx.saved_tensors
        grad_ND = grad_ND.to(x_ND.dtype).contiguous()
        x, weight, *experts = _backward(grad_ND, x_ND, *plan_and_experts, h_QF, ctx.block, *ctx.dtypes)
        grads = present(experts, plan_and_experts[-4:])
        return x, None, weight, None, None, None, None, *grads, None, None


@torch.library.custom_op("moe_study::expert_ffn", mutates_args=())
def _forward(
    x_ND: Tensor,
    block_P: Tensor,
    weight_P: Tensor,
    ends_E: Tensor,
    pair_P: Tensor,
    starts_R1: Tensor,
    up_EDF: Tensor,
    up_bias_EF: Tensor | None,
    down_EFD: Tensor,
    down_bias_ED: Tensor | None,
    block: int,
    keep: bool,
) -> tuple[Tensor, Tensor]:
    """Outputs (N, D), and what GELU was applied to (Q, F), for the backward pass; without `keep` no rows of it."""
    (_, width, hidden), rows = up_EDF.shape, block_P.shape[0] * block
    tiles = RowTiles(ends_E, rows, block)
    active_QF = x_ND.new_empty(rows, hidden)
    h_QF = torch.empty_like(active_QF) if keep else None
    tiles.product(x_ND, up_EDF, active_QF, block_P=block_P, bias_EO=up_bias_EF, before_QO=h_QF, gelu=True)
    y_QD = x_ND.new_empty(rows, width)
    tiles.product(active_QF, down_EFD, y_QD, bias_EO=down_bias_ED, weight_P=weight_P)
    y_ND = combine(y_QD, pair_P, starts_R1, block, x_ND.dtype)
    return y_ND, x_ND.new_empty(0, hidden) if h_QF is None else h_QF


@_forward.register_fake
def _(  # type: ignore[no-untyped-def]
    x_ND, block_P, weight_P, ends_E, pair_P, starts_R1, up_EDF, up_bias_EF, down_EFD, down_bias_ED, block, keep
):  # fmt: skip
    return torch.empty_like(x_ND), x_ND.new_empty(block_P.shape[0] * block if keep else 0, up_EDF.shape[2])


@torch.library.custom_op("moe_study::expert_ffn_backward", mutates_args=())
def _backward(
    grad_ND: Tensor,
    x_ND: Tensor,
    block_P: Tensor,
    weight_P: Tensor,
    ends_E: Tensor,
    pair_P: Tensor,
    starts_R1: Tensor,
    up_EDF: Tensor,
    up_bias_EF: Tensor | None,
    down_EFD: Tensor,
    down_bias_ED: Tensor | None,
    h_QF: Tensor,
    block: int,
    x_dtype: torch.dtype,
    experts_dtype: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients by x, weight, up, up_bias, down and down_bias, the biases' without elements where there are none."""
    tiles = RowTiles(ends_E, h_QF.shape[0], block)
    active_QF, grad_h_QF, grad_weight_P = tiles.hidden_gradient(
        grad_ND, block_P, down_EFD, down_bias_ED, weight_P, h_QF
    )
    down, down_bias = room_for_gradients(down_EFD, down_bias_ED, experts_dtype)
    weight_gradient(active_QF, grad_ND, ends_E, down, down_bias, block, b_block_P=block_P, weight_P=weight_P)
    del active_QF
    up, up_bias = room_for_gradients(up_EDF, up_bias_EF, experts_dtype)
    weight_gradient(x_ND, grad_h_QF, ends_E, up, up_bias, block, a_block_P=block_P)
    grad_x_QD = x_ND.new_empty(h_QF.shape[0], x_ND.shape[1])
    tiles.product(grad_h_QF, up_EDF.mT, grad_x_QD)
    grad_x_ND = combine(grad_x_QD, pair_P, starts_R1, block, x_dtype)
    return grad_x_ND, grad_weight_P, up, up_bias, down, down_bias


@_backward.register_fake
def _(  # type: ignore[no-untyped-def]
    grad_ND, x_ND, block_P, weight_P, ends_E, pair_P, starts_R1, up_EDF, up_bias_EF, down_EFD, down_bias_ED,
    h_QF, block, x_dtype, experts_dtype,
):  # fmt: skip
    up = room_for_gradients(up_EDF, up_bias_EF, experts_dtype)
    down = room_for_gradients(down_EFD, down_bias_ED, experts_dtype)
    return torch.empty_like(x_ND, dtype=x_dtype), torch.empty_like(weight_P), *up, *down
