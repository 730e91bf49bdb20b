"""A Triton kernel that turns logits into the loss of each row and, in their place, the gradient by the logits.

Rows are read twice and written once, where torch's operators pass over them seven times. Needs Triton and a GPU (or
Triton's interpreter), and is imported only where it is wanted.

Suffixes: C rows, V vocabulary.
"""

# mypy: disable-error-code="no-untyped-def"

import torch
import triton
import triton.language as tl
from torch import Tensor

COLUMNS = 64 if triton.knobs.runtime.interpret else 4096  # read at a time; few in tests, so that rows take several


@triton.jit
def cross_entropy_kernel(logits_CV, targets_C, loss_C, vocabulary, WITH_GRAD: tl.constexpr, BV: tl.constexpr):
    """loss = -log p(target); with WITH_GRAD each logit becomes p - onehot(target)."""
    row = tl.program_id(0).to(tl.int64)
    target = tl.load(targets_C + row)
    row_V = logits_CV + row * vocabulary
    v = tl.arange(0, BV)
    # Each lane keeps the largest of its own columns and the sum below it, so that lanes meet once at the end.
    largest_V = tl.full((BV,), float("-inf"), tl.float32)
    sum_V = tl.zeros((BV,), tl.float32)
    chosen_V = tl.zeros((BV,), tl.float32)  # the target's logit, on its lane
    for first in range(0, vocabulary, BV):
        logit_V = tl.load(row_V + first + v, mask=first + v < vocabulary, other=float("-inf")).to(tl.float32)
        new_V = tl.maximum(largest_V, logit_V)
        # A lane that has seen no logit yet would subtract infinity from itself.
        shift_V = tl.where(new_V == float("-inf"), 0.0, new_V)
        sum_V = sum_V * tl.exp(largest_V - shift_V) + tl.exp(logit_V - shift_V)
        largest_V = new_V
        chosen_V += tl.where(first + v == target, logit_V, 0.0)
    largest = tl.max(largest_V, 0)
    normaliser = tl.sum(sum_V * tl.exp(largest_V - largest), 0)
    tl.store(loss_C + row, largest + tl.log(normaliser) - tl.sum(chosen_V, 0))
    if WITH_GRAD:
        for first in range(0, vocabulary, BV):
            mask = first + v < vocabulary
            logit_V = tl.load(row_V + first + v, mask=mask, other=float("-inf")).to(tl.float32)
            grad_V = tl.exp(logit_V - largest) / normaliser - tl.where(first + v == target, 1.0, 0.0)
            tl.store(row_V + first + v, grad_V.to(logits_CV.dtype.element_ty), mask=mask)


def loss_and_logit_gradient_(logits_CV: Tensor, targets_C: Tensor, with_grad: bool) -> Tensor:
    """Loss of each row (C) in float32; with `with_grad` the logits become its gradient by them."""
    (rows, vocabulary), loss_C = logits_CV.shape, logits_CV.new_empty(logits_CV.shape[0], dtype=torch.float32)
    if rows:
        columns = min(COLUMNS, triton.next_power_of_2(vocabulary))
        cross_entropy_kernel[(rows,)](
            logits_CV, targets_C, loss_C, vocabulary, WITH_GRAD=with_grad, BV=columns, num_warps=8
        )
    return loss_C
