"""Soft mixtures: experts work on weighted averages of tokens, called slots, and tokens average their outputs.

Soft MoE (Puigcerver et al., 2308.00951, section 2.1): with logits L of every token at every slot,
    dispatch D = softmax of L over tokens,   slots = D^T X,   expert s // p works on slot s,
    combine  C = softmax of L over slots,    Y = C f(slots).
What a slot averages is the form; each is described at `SoftLayer`. No token is dropped and no expert idles, so there
is nothing to balance.

Shape suffixes: B sequences, T positions, D width, E experts, p slots per expert, S = E * p slots, sorted by
expert; and, of a form's layout, G mixing groups of J blocks of M tokens, whose tokens share their slots.
"""

import math
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from moe_study.design.config import ModelConfig
from moe_study.design.routing import Routing, SoftForm, SoftWeights
from moe_study.model.forward_pass import ForwardPass, RoutingStats, TokenRoutes
from moe_study.model.moe.base import MixtureOfExperts
from moe_study.model.moe.experts.dispatch import expert_ffn
from moe_study.model.moe.experts.dispatch_plan import make_dispatch_plan
from moe_study.model.moe.routing.gate import RoutingDecision, fixed_decision
from moe_study.model.moe.routing.intervention import Decided, Intervention, dense_weights
from moe_study.model.moe.routing.token_routes import routes_of_weights
from moe_study.model.moe.slots import SlotScores, block_slots, running_slots
from moe_study.model.moe.soft_layout import AcrossBatch, Blocks, layout, rows_by_sequence


class SoftLayer(MixtureOfExperts):
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
        super().__init__(model, routing, layer)
        self.routing, self.soft = routing, routing.soft
        self.slots = self.num_experts * self.soft.slots_per_expert
        scored = SoftWeights.SOFT in (self.soft.dispatch, self.soft.combine)
        self.scores = SlotScores(model.width, self.slots, routing) if scored else None
        self.add_experts(model, routing)

    def mix(self, x_BTD: Tensor, forward_pass: ForwardPass) -> tuple[Tensor, RoutingStats]:
        cache = forward_pass.cache
        if cache is None:
            return self._mix(x_BTD, forward_pass)
        y_BSD, stats = self._mix(cache.past(self.layer).states.extend(x_BTD), forward_pass)  # slots average the past
        return cache.of_new(y_BSD), stats

    def _mix(self, x_BTD: Tensor, forward_pass: ForwardPass) -> tuple[Tensor, RoutingStats]:
        view = layout(self.routing, x_BTD.shape[0], x_BTD.shape[1], self.training)
        lag = int(self.soft.form is SoftForm.CHUNK_LAGGED)  # blocks before there is anything to average
        x_GJMD = view.cut(x_BTD)
        dispatch_GJMS, combine_GJMS = self._logits(x_BTD, view)
        averaged = slice(0, x_GJMD.shape[1] - lag)
        slots_GJSD = self._slots(x_GJMD[:, averaged], dispatch_GJMS[:, averaged])
        intervene = forward_pass.interventions.get(self.layer)
        first = self._first(x_GJMD[:, :lag], intervene)
        first_GJMD, slots_GJSD, rows_E = self._run(x_GJMD[:, :lag], first, slots_GJSD, forward_pass.dispatch)
        weights_GJMS = self._combine(dispatch_GJMS[:, lag:], combine_GJMS[:, lag:], slots_GJSD.shape[2])
        if intervene is not None:
            weights_GJMS = self._changed(weights_GJMS, intervene)
        if self.soft.combine is SoftWeights.IDENTITY and intervene is None:
            y_GJMD = slots_GJSD[:, :, : x_GJMD.shape[2]]
        else:
            y_GJMD = torch.einsum("gjms,gjsd->gjmd", weights_GJMS.to(slots_GJSD.dtype), slots_GJSD)
        y_BTD = view.join(torch.cat((first_GJMD, y_GJMD), 1) if lag else y_GJMD)
        return y_BTD, self._stats(view, first, weights_GJMS, rows_E, forward_pass)

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

    def _first(self, first_GJMD: Tensor, intervene: Intervention | None) -> RoutingDecision:
        """Tokens that have no slots yet go through expert 0 as they are: (N, 1), without a row where there are none."""
        expert_N1 = torch.zeros(first_GJMD.shape[:3].numel(), 1, dtype=torch.long, device=first_GJMD.device)
        decision = fixed_decision(expert_N1, first_GJMD.dtype)
        return decision if intervene is None else intervene(Decided(decision, self.num_experts))

    def _changed(self, weights_GJMS: Tensor, intervene: Intervention) -> Tensor:
        """The weights after an intervention; what it sends to another expert goes to the like slot of that one."""
        weight_RS, each = weights_GJMS.flatten(0, 2), self.soft.slots_per_expert
        slot_S = torch.arange(weight_RS.shape[1], device=weight_RS.device)
        decision = RoutingDecision((slot_S // each).expand_as(weight_RS), weight_RS)
        decision = intervene(Decided(decision, self.num_experts))
        to_slots = replace(decision, expert_RK=decision.expert_RK * each + slot_S % each)
        return dense_weights(to_slots, self.slots)[:, : len(slot_S)].view_as(weights_GJMS)

    def _run(
        self, first_GJMD: Tensor, first: RoutingDecision, slots_GJSD: Tensor, choice: str
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Outputs for tokens that have no slots yet, and of each slot's expert; rows of each expert."""
        groups, blocks, slots, _ = slots_GJSD.shape  # a short input may fill fewer slots than there are
        slots_ND = slots_GJSD.flatten(0, 2)
        expert_N = (torch.arange(slots, device=slots_ND.device) // self.soft.slots_per_expert).repeat(groups * blocks)
        of_slots = fixed_decision(expert_N.unsqueeze(1), slots_ND.dtype)
        if first_GJMD.shape[1] == 0:
            y_ND, rows_E = self._experts(slots_ND, of_slots, choice)
            return first_GJMD, y_ND.view_as(slots_GJSD), rows_E
        first_ND = first_GJMD.flatten(0, 2)
        both = RoutingDecision(
            torch.cat((first.expert_RK, of_slots.expert_RK)),
            torch.cat((first.weight_RK, of_slots.weight_RK)),
            None if first.keep_RK is None else torch.cat((first.keep_RK, of_slots.mask())),
        )
        y_ND, rows_E = self._experts(torch.cat((first_ND, slots_ND)), both, choice)
        y_first_ND, y_slots_ND = y_ND.split((len(first_ND), len(slots_ND)))
        return y_first_ND.view_as(first_GJMD), y_slots_ND.view_as(slots_GJSD), rows_E

    def _experts(self, x_ND: Tensor, decision: RoutingDecision, choice: str) -> tuple[Tensor, Tensor]:
        """Each row's output of its one expert, and how many rows each expert has."""
        plan = make_dispatch_plan(decision, self.num_experts, block=1)
        return expert_ffn(x_ND, plan, self.experts, choice), plan.counts_E

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
        self,
        view: Blocks | AcrossBatch,
        first: RoutingDecision,
        weights_GJMS: Tensor,
        rows_E: Tensor,
        forward_pass: ForwardPass,
    ) -> RoutingStats:
        """Rows that experts ran (all are wanted, kept and executed), and what tokens took from each expert.

        Every expert runs as many rows as every other, whatever its use: specialisation shows in `weight_BE`,
        the sums of combine weights. Rows that sequences share are counted at one of them after the other.
        """
        kept_BE = weight_BE = routes = None
        mean_entropy = torch.full((), math.nan, device=rows_E.device)
        unscored = len(first.expert_RK) // weights_GJMS.shape[0]  # positions of each group before there are slots
        if forward_pass.detail or forward_pass.routes:
            weight_BTE = self._weights_by_expert(view, first, weights_GJMS)
        if forward_pass.routes:
            routes = self._routes(weight_BTE, unscored)
        if forward_pass.detail:
            kept_BE, weight_BE = rows_by_sequence(rows_E, view, *weight_BTE.shape[:2]), weight_BTE.sum(1)
            if self.soft.combine is SoftWeights.SOFT:
                mean_entropy = torch.special.entr(weight_BTE[:, unscored:]).sum(2).mean()
        return RoutingStats(
            layer=self.layer,
            kept_E=rows_E,
            kept_BE=kept_BE,
            weight_BE=weight_BE,
            wanted=rows_E.sum(),
            executed=rows_E.sum(),
            entropy=mean_entropy,
            tokens=forward_pass.tokens_BT.numel(),
            routes=routes,
        )

    def _routes(self, weight_BTE: Tensor, unscored: int) -> TokenRoutes:
        """Weights by expert; no entropy where a token's weights are not a distribution, or not the router's."""
        entropy_BT = torch.special.entr(weight_BTE).sum(2)
        entropy_BT[:, : unscored if self.soft.combine is SoftWeights.SOFT else None] = math.nan
        return routes_of_weights(weight_BTE.flatten(0, 1), entropy_BT.flatten())

    def _weights_by_expert(self, view: Blocks | AcrossBatch, first: RoutingDecision, weights_GJMS: Tensor) -> Tensor:
        """Combine weights of every token, summed over each expert's slots: (B, T, E)."""
        missing = self.slots - weights_GJMS.shape[3]
        weights_GJME = F.pad(weights_GJMS.double(), (0, missing)).unflatten(3, (self.num_experts, -1)).sum(4)
        first_RE = dense_weights(first, self.num_experts).double()
        groups, _, block, experts = weights_GJME.shape
        first_GJME = first_RE.view(groups, len(first_RE) // (groups * block), block, experts)
        return view.join(torch.cat((first_GJME, weights_GJME), 1))
