"""The k largest scores of each decision, best first.

Of equal scores torch takes any; on a GPU, through a kernel of our own, the experts' order decides.

Shape suffixes: R decisions, E experts, K picks.
"""

import torch
from torch import Tensor

from moe_study.model.precision import HAS_TRITON

MOST_EXPERTS, MOST_PICKS = 1024, 16  # of the kernel, which looks through a decision's scores once for each pick


def top_k(scores_RE: Tensor, k: int) -> Tensor:
    """Experts (R, K) of the K largest scores."""
    in_kernel = scores_RE.shape[1] <= MOST_EXPERTS and k <= MOST_PICKS and scores_RE.dtype is torch.float32
    if scores_RE.is_cuda and in_kernel and HAS_TRITON:
        return _in_kernel(scores_RE, k)
    return scores_RE.topk(k, 1).indices


@torch.library.custom_op("moe_study::top_k", mutates_args=())
def _in_kernel(scores_RE: Tensor, k: int) -> Tensor:
    """An operator, so that torch.compile sees one thing."""
    from moe_study.model.moe.routing.top_k_kernel import top_k_in_kernel

    return top_k_in_kernel(scores_RE.contiguous(), k)


@_in_kernel.register_fake
def _(scores_RE: Tensor, k: int) -> Tensor:
    return scores_RE.new_empty(scores_RE.shape[0], k, dtype=torch.long)
