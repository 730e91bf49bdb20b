"""Cross-entropy of the language model's head, without ever holding the logits of a whole batch.

The head is most of a small model's memory and much of its time: 16 x 128 rows of 50,304 logits are 412 MB,
and as much again for their gradient. Here the rows go through in chunks, and each chunk's gradient is taken
while its logits are at hand, so that nothing of size (N, V) exists and nothing is computed twice.

Shape suffixes: N rows (= B * T), C rows of one chunk, D model width, V vocabulary.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

IGNORED = -1  # target that is no part of the loss


def cross_entropy(x_ND: Tensor, head_VD: Tensor, targets_N: Tensor, chunk: int | None = None) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy in nats over targets other than -1, and the detached loss of each row (0 there).

    Logits are x_ND @ head_VD.T in autocast's precision, and everything after them is in float32 (float64 for
    float64 input). Not a number when every target is ignored. `chunk`: rows at a time; by default
    `chunk_rows` decides.
    """
    chunk = chunk or chunk_rows(len(x_ND), len(head_VD), x_ND.device.type)
    if chunk >= len(x_ND):
        return cross_entropy_of_logits(F.linear(x_ND, head_VD), targets_N)
    return _ChunkedCrossEntropy.apply(x_ND, head_VD, targets_N, chunk, torch.is_grad_enabled())  # type: ignore


def cross_entropy_of_logits(logits_NV: Tensor, targets_N: Tensor) -> tuple[Tensor, Tensor]:
    """The same, from logits that exist already."""
    logits_NV = logits_NV.to(_accumulator(logits_NV.dtype))
    loss_N = F.cross_entropy(logits_NV, targets_N, ignore_index=IGNORED, reduction="none")
    return loss_N.sum() / (targets_N != IGNORED).sum(), loss_N.detach()


def chunk_rows(rows: int, vocabulary: int, device: str) -> int:
    """Rows whose logits are made at a time; `rows` or more stands for all at once."""
    return max(256, (4 << 20) // vocabulary)


def _accumulator(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Loss and gradients in one pass over the chunks; the backward pass only scales what is there."""

    @staticmethod
    def forward(
        ctx: Any, x_ND: Tensor, head_VD: Tensor, targets_N: Tensor, chunk: int, with_grad: bool
    ) -> tuple[Tensor, Tensor]:
        device = x_ND.device.type
        compute = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x_ND.dtype
        wants_x, wants_head = (with_grad and wanted for wanted in ctx.needs_input_grad[:2])
        with torch.autocast(device, enabled=False):
            loss_N, grad_x_ND, grad_head_VD = _chunks(
                x_ND.to(compute), head_VD.to(compute), targets_N, chunk, wants_x, wants_head
            )
        count = (targets_N != IGNORED).sum()
        ctx.save_for_backward(grad_x_ND, grad_head_VD, count)
        ctx.dtypes = x_ND.dtype, head_VD.dtype
        ctx.mark_non_differentiable(loss_N)
        return loss_N.sum() / count, loss_N

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_loss: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        grad_x_ND, grad_head_VD, count = ctx.saved_tensors
        scale = grad_loss / count
        grads = [
            None if grad is None else (grad * scale).to(dtype)
            for grad, dtype in zip((grad_x_ND, grad_head_VD), ctx.dtypes, strict=True)
        ]
        return (*grads, None, None, None)


def _chunks(
    x_ND: Tensor, head_VD: Tensor, targets_N: Tensor, chunk: int, wants_x: bool, wants_head: bool
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Loss of each row, and the gradients of their sum."""
    precise = _accumulator(x_ND.dtype)
    loss_N = torch.empty(len(x_ND), dtype=precise, device=x_ND.device)
    grad_x_ND = torch.empty_like(x_ND) if wants_x else None
    grad_head_VD = torch.zeros_like(head_VD, dtype=precise) if wants_head else None
    for start in range(0, len(x_ND), chunk):
        rows = slice(start, start + chunk)
        x_CD, targets_C = x_ND[rows], targets_N[rows]
        log_p_CV = (x_CD @ head_VD.mT).log_softmax(-1, dtype=precise)
        loss_N[rows] = F.nll_loss(log_p_CV, targets_C, ignore_index=IGNORED, reduction="none")
        if not wants_x and not wants_head:
            continue
        grad_CV = _logit_gradient_(log_p_CV, targets_C).to(x_ND.dtype)
        if grad_x_ND is not None:
            torch.mm(grad_CV, head_VD, out=grad_x_ND[rows])
        if grad_head_VD is not None and grad_head_VD.dtype == grad_CV.dtype:
            grad_head_VD.addmm_(grad_CV.mT, x_CD)
        elif grad_head_VD is not None:
            grad_head_VD += grad_CV.mT @ x_CD
    return loss_N, grad_x_ND, grad_head_VD


def _logit_gradient_(log_p_CV: Tensor, targets_C: Tensor) -> Tensor:
    """p - onehot(target), and 0 in ignored rows; overwrites its input."""
    kept_C1 = (targets_C != IGNORED).to(log_p_CV.dtype).unsqueeze(1)
    grad_CV = log_p_CV.exp_()
    grad_CV.scatter_add_(1, targets_C.clamp(min=0).unsqueeze(1), -torch.ones_like(kept_C1))
    return grad_CV.mul_(kept_C1)
