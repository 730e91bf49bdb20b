"""Cross-entropy of the language model's head, in bounded memory.

The head is most of a small model's memory and much of its time: 16 x 128 rows of 50,304 logits are 412 MB,
and as much again for their gradient. Here the rows go through in chunks, and each chunk's gradient is taken
while its logits are at hand, so that few logits exist at a time and nothing is computed twice.

Shape suffixes: N rows (= B * T), C rows of one chunk, D model width, V vocabulary.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from moe_study.model.precision import HAS_TRITON, product_dtype

IGNORED = -1  # target that the loss leaves out
CPU_LOGITS = 1 << 25  # logits at a time: 134 MB, and as much for their gradient
DEVICE_LOGITS = 1 << 29  # the same on an accelerator: 1 GB in bfloat16


def cross_entropy(x_ND: Tensor, head_VD: Tensor, targets_N: Tensor, chunk: int | None = None) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy in nats over targets other than -1, and the detached loss of each row (0 there).

    Logits are x_ND @ head_VD.T in autocast's precision, and everything after them is in float32 (float64 for
    float64 input). Not a number when every target is ignored. `chunk`: rows at a time; by default
    `chunk_rows` decides.
    """
    chunk = chunk or chunk_rows(x_ND.shape[0], head_VD.shape[0], x_ND.device.type)
    if chunk is None:
        return cross_entropy_of_logits(F.linear(x_ND, head_VD), targets_N)
    return _ChunkedCrossEntropy.apply(x_ND, head_VD, targets_N, chunk, torch.is_grad_enabled())  # type: ignore


def cross_entropy_of_logits(logits_NV: Tensor, targets_N: Tensor) -> tuple[Tensor, Tensor]:
    """The same, from logits that exist already."""
    logits_NV = logits_NV.to(_accumulator(logits_NV.dtype))
    loss_N = F.cross_entropy(logits_NV, targets_N, ignore_index=IGNORED, reduction="none")
    return loss_N.sum() / (targets_N != IGNORED).sum(), loss_N.detach()


def chunk_rows(rows: int, vocabulary: int, device: str) -> int | None:
    """Rows whose logits are made at a time; None: all, by torch's own functions.

    On the CPU this is about memory: in time, chunks of these sizes take 0.95 to 1.01 of torch's own functions on one
    thread (2,048 to 50,304 symbols, widths 96 and 384). On other devices chunks bound the memory, and rows that fit
    one go through torch's own functions.
    """
    if device == "cpu":
        limit = min(2048, max(512, CPU_LOGITS // vocabulary))
    else:
        limit = max(1, DEVICE_LOGITS // vocabulary)
        if rows <= limit:
            return None
    return -(-rows // -(-rows // limit)) if rows else limit  # chunks of equal size


def _accumulator(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Loss and gradients in one pass over the chunks; the backward pass only scales what is there."""

    @staticmethod
    def forward(
        ctx: Any, x_ND: Tensor, head_VD: Tensor, targets_N: Tensor, chunk: int, with_grad: bool
    ) -> tuple[Tensor, Tensor]:
        compute = product_dtype(x_ND)
        wants_x, wants_head = (with_grad and wanted for wanted in ctx.needs_input_grad[:2])
        with torch.autocast(x_ND.device.type, enabled=False):
            chunks = _opaque_chunks if torch.compiler.is_compiling() else _chunks
            loss_N, grad_x_ND, grad_head_VD = chunks(
                x_ND.to(compute), head_VD.to(compute), targets_N, chunk, wants_x, wants_head
            )
        count = (targets_N != IGNORED).sum()
        ctx.save_for_backward(grad_x_ND, grad_head_VD, count)
        ctx.wants, ctx.dtypes = (wants_x, wants_head), (x_ND.dtype, head_VD.dtype)
        ctx.mark_non_differentiable(loss_N)
        return loss_N.sum() / count, loss_N

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_loss: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        *grads, count = ctx.saved_tensors
        scaled = [
            (grad * (grad_loss / count)).to(dtype) if wanted else None
            for grad, dtype, wanted in zip(grads, ctx.dtypes, ctx.wants, strict=True)
        ]
        return *scaled, None, None, None


def _chunks(
    x_ND: Tensor, head_VD: Tensor, targets_N: Tensor, chunk: int, wants_x: bool, wants_head: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Loss of each row, and the gradients of their sum by x and by the head; without rows where not wanted."""
    rows = x_ND.shape[0]
    precise = _accumulator(x_ND.dtype)
    loss_of = _by_kernel if x_ND.is_cuda and precise is torch.float32 and HAS_TRITON else _by_operators
    loss_N = x_ND.new_empty(rows, dtype=precise)
    grad_x_ND = torch.empty_like(x_ND[: rows if wants_x else 0])
    grad_head_VD = torch.zeros_like(head_VD[: head_VD.shape[0] if wants_head else 0], dtype=precise)
    for start in range(0, rows, chunk):
        part = slice(start, start + chunk)
        x_CD, kept_C1 = x_ND[part], (targets_N[part] != IGNORED).unsqueeze(1)
        loss_C, grad_CV = loss_of(x_CD @ head_VD.mT, targets_N[part].clamp(min=0), precise, wants_x or wants_head)
        loss_N[part] = loss_C * kept_C1.squeeze(1)
        # Ignored rows are left out where rows have D entries, not V.
        if wants_x:
            grad_x_ND[part] = grad_CV.to(x_ND.dtype) @ head_VD * kept_C1
        if wants_head:
            _add_product(grad_head_VD, grad_CV.to(x_ND.dtype).mT, x_CD * kept_C1)
    return loss_N, grad_x_ND, grad_head_VD


@torch.library.custom_op("moe_study::cross_entropy_chunks", mutates_args=())
def _opaque_chunks(
    x_ND: Tensor, head_VD: Tensor, targets_N: Tensor, chunk: int, wants_x: bool, wants_head: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """`_chunks` as torch.compile sees it: one operator, not as many copies of its operators as there are chunks.

    On an H100 what inductor (torch 2.11) made of these read where it must not.
    """
    return _chunks(x_ND, head_VD, targets_N, chunk, wants_x, wants_head)


@_opaque_chunks.register_fake
def _(x_ND, head_VD, targets_N, chunk, wants_x, wants_head):  # type: ignore[no-untyped-def]
    precise = _accumulator(x_ND.dtype)
    rows, symbols = x_ND.shape[0] if wants_x else 0, head_VD.shape[0] if wants_head else 0
    return (
        x_ND.new_empty(x_ND.shape[0], dtype=precise),
        x_ND.new_empty(rows, x_ND.shape[1]),
        head_VD.new_empty(symbols, head_VD.shape[1], dtype=precise),
    )


def _add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    """total += a @ b, without a temporary where all are of one precision."""
    if total.dtype == a.dtype:
        total.addmm_(a, b)
    else:
        total += a @ b


def _by_kernel(logits_CV: Tensor, targets_C: Tensor, precise: torch.dtype, with_grad: bool) -> tuple[Tensor, Tensor]:
    """`_by_operators` by a kernel of our own, the gradient in the precision of the logits and in their place."""
    from moe_study.model.loss_kernels import loss_and_logit_gradient_

    return loss_and_logit_gradient_(logits_CV, targets_C, with_grad), logits_CV


def _by_operators(logits_CV: Tensor, targets_C: Tensor, precise: torch.dtype, with_grad: bool) -> tuple[Tensor, Tensor]:
    """-log p(target), and p - onehot(target).

    One pass of exponentials gives both: since the largest probability is exp(largest logit) over the normaliser,
    and never small, the normaliser's logarithm follows from it without loss of accuracy.
    """
    targets_C1 = targets_C.unsqueeze(1)
    p_CV = logits_CV.softmax(-1, dtype=precise)
    log_normaliser_C1 = logits_CV.amax(-1, keepdim=True).to(precise) - p_CV.amax(-1, keepdim=True).log()
    loss_C1 = log_normaliser_C1 - logits_CV.gather(1, targets_C1)
    return loss_C1.squeeze(1), p_CV.scatter_add_(1, targets_C1, -torch.ones_like(loss_C1))
