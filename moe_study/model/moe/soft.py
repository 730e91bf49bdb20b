"""Soft mixtures: experts work on weighted averages of tokens, called slots, and tokens average their outputs.

Soft MoE (Puigcerver et al., 2308.00951, section 2.1): with logits L of every token at every slot,
    dispatch D = softmax of L over tokens,   slots = D^T X,   expert s // p works on slot s,
    combine  C = softmax of L over slots,    Y = C f(slots).
What a slot averages is the form; each is described at its function or class below. No token is dropped and no
expert idles, so there is nothing to balance.

Shape suffixes: B sequences, T positions, D width, E experts, p slots an expert, S = E * p slots, sorted by
expert; and, of a form's layout, G mixing groups of J blocks of M tokens, whose tokens share their slots (I:
blocks averaged over); X any last axis.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from moe_study.design.config import ModelConfig
from moe_study.design.routing import RouterState, Routing, SoftForm, SoftWeights, expert_hidden, experts_of_layer
from moe_study.errors import StudyError
from moe_study.model.forward_pass import ForwardPass, RoutingStats
from moe_study.model.initialisation import Initialiser
from moe_study.model.mlp import MLP
from moe_study.model.moe.experts.dispatch import expert_ffn
from moe_study.model.moe.experts.dispatch_plan import plan_pairs
from moe_study.model.moe.experts.experts import Experts
from moe_study.model.moe.routing.gate import fixed_picks

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


@dataclass(frozen=True)
class Blocks:
    """A window cut into blocks of M consecutive tokens: G = B sequences of J blocks, the last one filled up.

    M = T is the paper's layer over the whole sequence; M = 1 serves the prefix form.
    """

    length: int  # T
    block: int  # M

    def cut(self, x_BTX: Tensor, fill: float = 0.0) -> Tensor:
        """(G, J, M, X)."""
        missing = -self.length % self.block
        whole_BTX = F.pad(x_BTX, (0, 0, 0, missing), value=fill) if missing else x_BTX  # padding by nothing copies
        return whole_BTX.unflatten(1, (-1, self.block))

    def join(self, y_GJMX: Tensor) -> Tensor:
        """Back to (B, T, X)."""
        return y_GJMX.flatten(1, 2)[:, : self.length]


@dataclass(frozen=True)
class AcrossBatch:
    """Mixture of Tokens (2310.15961, section 3): the M tokens at one position of M sequences are a block.

    The last group may lack sequences, and is filled up.
    """

    sequences: int  # B
    group: int  # M

    def cut(self, x_BTX: Tensor, fill: float = 0.0) -> Tensor:
        """(G, J, M, X) with J = T."""
        missing = -self.sequences % self.group
        whole_BTX = F.pad(x_BTX, (0, 0, 0, 0, 0, missing), value=fill) if missing else x_BTX
        return whole_BTX.unflatten(0, (-1, self.group)).transpose(1, 2)

    def join(self, y_GJMX: Tensor) -> Tensor:
        """Back to (B, T, X)."""
        return y_GJMX.transpose(1, 2).flatten(0, 1)[: self.sequences]


def layout(routing: Routing, sequences: int, length: int, training: bool) -> Blocks | AcrossBatch:
    """Which tokens share their slots. StudyError in training when the sequences do not fill whole groups.

    In evaluation the sequences that are left over mix among themselves, so that any number can be evaluated.
    """
    soft = routing.soft
    if soft.form is SoftForm.ACROSS_BATCH:
        assert soft.group_size is not None  # validated
        if training and sequences % soft.group_size:
            raise StudyError(
                f"{sequences} sequences cannot be mixed in groups of routing.soft.group_size={soft.group_size}; "
                "use a batch size that is a multiple of it"
            )
        return AcrossBatch(sequences, soft.group_size)
    if soft.form is SoftForm.SEQUENCE:
        return Blocks(length, length)
    if soft.form is SoftForm.PREFIX:
        return Blocks(length, 1)
    assert soft.chunk_length is not None  # validated
    return Blocks(length, min(soft.chunk_length, length))


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


class SoftLayer(nn.Module):
    """A feed-forward layer of E experts with p slots each.

    Forms: SEQUENCE averages the whole sequence (the paper's; later tokens reach earlier ones), CHUNK each
    chunk (they still do, inside it). Causal relatives: PREFIX gives every token slots of its own, over the
    tokens up to it (exact, T * S expert rows a sequence: an oracle); CHUNK_LAGGED shares slots inside a chunk
    and averages only the tokens before it, and sends the first chunk's tokens through expert 0 as they are.
    ACROSS_BATCH mixes sequences instead of positions.

    Ablations (section 3.6 of the paper): UNIFORM averages with equal weights, IDENTITY makes token i slot i.
    combine=dispatch gives each token the weights it was averaged with, as Mixture of Tokens does.
    """

    def __init__(self, model: ModelConfig, routing: Routing, layer: int, vocab_size: int) -> None:
        super().__init__()
        self.layer, self.routing, self.soft = layer, routing, routing.soft
        self.num_experts = experts_of_layer(routing, model.layers, layer)
        self.slots = self.num_experts * self.soft.slots_per_expert
        hidden = expert_hidden(routing, model.hidden)
        scored = SoftWeights.SOFT in (self.soft.dispatch, self.soft.combine)
        self.scores = SlotScores(model.width, self.slots, routing) if scored else None
        self.experts = Experts(self.num_experts, model.width, hidden, model.bias)
        shared = routing.shared_experts * hidden
        self.shared = MLP(model.width, shared, model.bias, dropout=0.0) if shared else None
        self.dropout = nn.Dropout(model.dropout)

    def begin_step(self, step: int) -> None:
        if self.scores is not None:
            self.scores.begin_step(step)

    def forward(self, x_BTD: Tensor, forward_pass: ForwardPass) -> Tensor:
        view = layout(self.routing, x_BTD.shape[0], x_BTD.shape[1], self.training)
        lag = int(self.soft.form is SoftForm.CHUNK_LAGGED)  # blocks before there is anything to average
        x_GJMD = view.cut(x_BTD)
        dispatch_GJMS, combine_GJMS = self._logits(x_BTD, view)
        averaged = slice(0, x_GJMD.shape[1] - lag)
        slots_GJSD = self._slots(x_GJMD[:, averaged], dispatch_GJMS[:, averaged])
        first_GJMD, slots_GJSD, rows_E = self._run(x_GJMD[:, :lag], slots_GJSD)
        weights_GJMS = self._combine(dispatch_GJMS[:, lag:], combine_GJMS[:, lag:], slots_GJSD.shape[2])
        if self.soft.combine is SoftWeights.IDENTITY:
            y_GJMD = slots_GJSD[:, :, : x_GJMD.shape[2]]
        else:
            y_GJMD = torch.einsum("gjms,gjsd->gjmd", weights_GJMS.to(slots_GJSD.dtype), slots_GJSD)
        y_BTD = view.join(torch.cat((first_GJMD, y_GJMD), 1) if lag else y_GJMD)
        if self.shared is not None:
            y_BTD = y_BTD + self.shared(x_BTD)
        forward_pass.stats.append(self._stats(view, lag, weights_GJMS, rows_E, forward_pass))
        return self.dropout(y_BTD)

    def _logits(self, x_BTD: Tensor, view: Blocks | AcrossBatch) -> tuple[Tensor, Tensor]:
        """Logits for dispatch and for combine, (G, J, M, S); equal ones make a softmax uniform."""
        if self.scores is not None:
            logits_BTS = self.scores(x_BTD)
        else:
            wide = torch.promote_types(x_BTD.dtype, torch.float32)
            logits_BTS = torch.zeros(*x_BTD.shape[:2], self.slots, dtype=wide, device=x_BTD.device)
        dispatch_BTS = torch.zeros_like(logits_BTS) if self.soft.dispatch is SoftWeights.UNIFORM else logits_BTS
        combine_BTS = torch.zeros_like(logits_BTS) if self.soft.combine is SoftWeights.UNIFORM else logits_BTS
        # What fills up the last block must not be averaged. Its outputs are cut off, but have to be finite.
        return view.cut(dispatch_BTS, fill=-math.inf), view.cut(combine_BTS, fill=0.0)

    def _slots(self, x_GJMD: Tensor, logits_GJMS: Tensor) -> Tensor:
        if self.soft.dispatch is SoftWeights.IDENTITY:
            return x_GJMD
        if self.soft.form in (SoftForm.PREFIX, SoftForm.CHUNK_LAGGED):
            return running_slots(x_GJMD, logits_GJMS)
        return block_slots(x_GJMD, logits_GJMS)

    def _run(self, first_GJMD: Tensor, slots_GJSD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Outputs of expert 0 for tokens that have no slots yet, and of each slot's expert; rows of each expert."""
        groups, blocks, slots, _ = slots_GJSD.shape  # a short input may fill fewer slots than there are
        slots_ND = slots_GJSD.flatten(0, 2)
        expert_N = (torch.arange(slots, device=slots_ND.device) // self.soft.slots_per_expert).repeat(groups * blocks)
        if first_GJMD.shape[1] == 0:
            y_ND, rows_E = self._experts(slots_ND, expert_N)
            return first_GJMD, y_ND.view_as(slots_GJSD), rows_E
        first_ND = first_GJMD.flatten(0, 2)
        y_ND, rows_E = self._experts(torch.cat((first_ND, slots_ND)), F.pad(expert_N, (len(first_ND), 0)))
        y_first_ND, y_slots_ND = y_ND.split((len(first_ND), len(slots_ND)))
        return y_first_ND.view_as(first_GJMD), y_slots_ND.view_as(slots_GJSD), rows_E

    def _experts(self, x_ND: Tensor, expert_N: Tensor) -> tuple[Tensor, Tensor]:
        """Each row's output of its one expert, and how many rows each expert has."""
        plan = plan_pairs(fixed_picks(expert_N.unsqueeze(1), x_ND.dtype), self.num_experts, block=1)
        return expert_ffn(x_ND, plan, self.experts), plan.counts_E

    def _combine(self, dispatch_GJMS: Tensor, combine_GJMS: Tensor, slots: int) -> Tensor:
        """Weights with which each token takes the slots' outputs (2308.00951, eq. 3): (G, J, M, S)."""
        if self.soft.combine is SoftWeights.IDENTITY:
            token_is_slot_MS = torch.eye(combine_GJMS.shape[2], slots, device=combine_GJMS.device)
            return token_is_slot_MS.expand(*combine_GJMS.shape[:2], -1, -1)
        if self.soft.combine is SoftWeights.DISPATCH:
            return dispatch_GJMS.softmax(2)
        return combine_GJMS[..., :slots].softmax(3)

    @torch.no_grad()
    def _stats(
        self, view: Blocks | AcrossBatch, lag: int, weights_GJMS: Tensor, rows_E: Tensor, forward_pass: ForwardPass
    ) -> RoutingStats:
        """Rows that experts ran (all are wanted, kept and executed), and what tokens took from each expert.

        Every expert runs as many rows as every other, whatever its use: specialisation shows in `weight_BE`,
        the sums of combine weights. Rows that sequences share are counted at one of them after the other.
        """
        kept_BE = weight_BE = None
        mean_entropy = torch.full((), math.nan, device=rows_E.device)
        if forward_pass.detail:
            weight_BTE = self._weights_by_expert(view, lag, weights_GJMS)
            kept_BE, weight_BE = _rows_by_sequence(rows_E, view, *weight_BTE.shape[:2]), weight_BTE.sum(1)
            if self.soft.combine is SoftWeights.SOFT:
                mean_entropy = torch.special.entr(weight_BTE[:, lag * weights_GJMS.shape[2] :]).sum(2).mean()
        return RoutingStats(
            layer=self.layer,
            kept_E=rows_E,
            kept_BE=kept_BE,
            weight_BE=weight_BE,
            wanted=rows_E.sum(),
            executed=rows_E.sum(),
            entropy=mean_entropy,
            tokens=forward_pass.tokens_BT.numel(),
        )

    def _weights_by_expert(self, view: Blocks | AcrossBatch, lag: int, weights_GJMS: Tensor) -> Tensor:
        """Combine weights of every token, summed over each expert's slots: (B, T, E)."""
        missing = self.slots - weights_GJMS.shape[3]
        weights_GJME = F.pad(weights_GJMS.double(), (0, missing)).unflatten(3, (self.num_experts, -1)).sum(4)
        groups, _, block, experts = weights_GJME.shape
        first_GJME = weights_GJME.new_zeros(groups, lag, block, experts)
        first_GJME[..., 0] = 1
        return view.join(torch.cat((first_GJME, weights_GJME), 1))


def _rows_by_sequence(rows_E: Tensor, view: Blocks | AcrossBatch, sequences: int, length: int) -> Tensor:
    """Rows of each expert, (B, E); those of position t in a group of m are counted at its sequence t mod m."""
    if isinstance(view, Blocks):
        return (rows_E // sequences).expand(sequences, -1)
    sequence_B = torch.arange(sequences, device=rows_E.device)
    member_B = sequence_B % view.group
    members_B = (sequences - (sequence_B - member_B)).clamp(max=view.group)
    positions_B = (length - 1 - member_B).div(members_B, rounding_mode="floor") + 1
    rows_a_position_E = rows_E // (-(-sequences // view.group) * length)
    return positions_B.unsqueeze(1) * rows_a_position_E
