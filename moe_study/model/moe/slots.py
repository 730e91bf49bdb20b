"""Slots of soft mixtures: the logits of every token at every slot, and the averages that slots are.

Soft MoE (Puigcerver et al., 2308.00951, sections 2.1 and 2.3).

Shape suffixes: B sequences, T positions, D width, S slots; and, of a layout (`soft_layout.py`), G mixing groups of J
blocks of M tokens (I: blocks averaged over).
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from moe_study.design.routing import RouterState, Routing
from moe_study.model.initialisation import Initialiser

EPSILON = 1e-6  # added to norms, as in the paper's algorithm 2


class SlotScores(nn.Module):
    """Logits of every token at every slot, in float32 or wider.

    Normalised (section 2.3, algorithm 2): scale * cosine of token and slot parameters, the scale one learned
    number that starts at 1. Otherwise their plain product, as in Mixture of Tokens (2310.15961). A frozen
    router keeps phi and scale; a redrawn one gets new phi at every training step.
    """

    def __init__(self, width: int, slots: int, routing: Routing) -> None:
        super().__init__()
        self.state = routing.router_state
        self.phi_SD = nn.Parameter(torch.empty(slots, width))
        self.scale = nn.Parameter(torch.empty(())) if routing.soft.normalise else None
        self.requires_grad_(self.state is RouterState.LEARNED)
        self._init: tuple[Initialiser, str] | None = None

    def initialise(self, init: Initialiser, prefix: str) -> None:
        """Slot s starts equal whatever the number of slots: rows are drawn one after the other."""
        self._init = init, f"{prefix}.phi"
        init.normal_(self.phi_SD.data, f"{prefix}.phi")
        if self.scale is not None:
            nn.init.ones_(self.scale)

    def begin_step(self, step: int) -> None:
        if self.state is RouterState.REDRAWN and self._init is not None:
            init, stream = self._init
            init.normal_(self.phi_SD.data, f"{stream}/step {step}")

    def forward(self, x_BTD: Tensor) -> Tensor:
        """(B, T, S). The normalised x serves these logits only; what is averaged is plain x."""
        with torch.autocast(x_BTD.device.type, enabled=False):
            wide = torch.promote_types(self.phi_SD.dtype, torch.float32)
            x_BTD, phi_SD = x_BTD.to(wide), self.phi_SD.to(wide)
            if self.scale is None:
                return F.linear(x_BTD, phi_SD)
            return F.linear(_unit_norm(x_BTD), self.scale.to(wide) * _unit_norm(phi_SD))


class _UnitNorm(torch.autograd.Function):
    """y = x / (n + eps) of each row, n its norm; dx = (dy - y (y . dy) (n + eps) / n) / (n + eps)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        y = x / (norm + EPSILON)
        ctx.save_for_backward(y, norm)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        y, norm = ctx.saved_tensors
        raised = norm + EPSILON
        along = torch.linalg.vecdot(y, grad).unsqueeze(-1) * (raised / norm).masked_fill_(norm == 0, 0)
        return torch.addcmul(grad, y, along, value=-1).div_(raised)


def _unit_norm(x: Tensor) -> Tensor:
    y: Tensor = _UnitNorm.apply(x)  # type: ignore[no-untyped-call]
    return y


def block_slots(x_GJMD: Tensor, logits_GJMS: Tensor) -> Tensor:
    """Slots that average their own block's tokens (2308.00951, eq. 1-2): (G, J, S, D)."""
    weights_GJMS = logits_GJMS.softmax(2).to(x_GJMD.dtype)
    return torch.einsum("gjms,gjmd->gjsd", weights_GJMS, x_GJMD)


def running_slots(x_GJMD: Tensor, logits_GJMS: Tensor) -> Tensor:
    """Slots that average all tokens up to the end of each block: (G, J, S, D).

    The softmax over a prefix, put together exactly from those over its blocks: block i enters the average at
    block j with exp(m_i - log sum over i' <= j of exp m_i'), where m_i is the logsumexp of block i's logits.
    """
    slots_GISD = block_slots(x_GJMD, logits_GJMS)
    mass_GIS = logits_GJMS.logsumexp(2)
    total_GJS = mass_GIS.logcumsumexp(1)
    blocks_J = torch.arange(total_GJS.shape[1], device=x_GJMD.device)
    later_JI1 = (blocks_J > blocks_J.unsqueeze(1)).unsqueeze(2)
    log_share_GJIS = mass_GIS.unsqueeze(1) - total_GJS.unsqueeze(2)
    share_GJIS = log_share_GJIS.masked_fill(later_JI1, -math.inf).exp()
    return torch.einsum("gjis,gisd->gjsd", share_GJIS.to(x_GJMD.dtype), slots_GISD)
