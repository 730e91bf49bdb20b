"""The mixture layer: read, score, pick, dispatch, and leave a record.

Shape suffixes: B sequences, T positions, J blocks of a sequence, D width, E experts, K candidates, R = B * J
decisions, N = B * T tokens.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from moe_study.design.config import ModelConfig
from moe_study.design.routing import (
    RouterKind,
    Routing,
    Scope,
    expert_hidden,
    experts_of_layer,
    mixture_layers,
)
from moe_study.model.forward_pass import ForwardPass, RoutingStats
from moe_study.model.mlp import MLP
from moe_study.model.moe.experts.dispatch import expert_ffn
from moe_study.model.moe.experts.dispatch_plan import Plan, plan_pairs
from moe_study.model.moe.experts.experts import Experts
from moe_study.model.moe.experts.rows import gather
from moe_study.model.moe.routing.balance import Balancer
from moe_study.model.moe.routing.capacity import CapacityLimit
from moe_study.model.moe.routing.context import Reading, read
from moe_study.model.moe.routing.gate import Picks, entropy, fixed_picks, shuffled
from moe_study.model.moe.routing.router import HashRouter, LabelRouter, ScoringRouter
from moe_study.model.moe.routing.selection import build_selection


@dataclass
class Decision:
    """Where the tokens of one pass go; with scope=global every layer follows the first one's."""

    plan: Plan
    wanted: Tensor  # pairs of tokens and experts before any capacity
    entropy: Tensor


class Decider(nn.Module):
    """Router, selection and balancing of one decision."""

    def __init__(self, model: ModelConfig, routing: Routing, experts: int, vocab_size: int) -> None:
        super().__init__()
        self.routing, self.experts = routing, experts
        self.router: nn.Module
        if routing.router is RouterKind.HASH:
            self.router = HashRouter(vocab_size, experts, routing)
        elif routing.router is RouterKind.LABEL:
            self.router = LabelRouter(experts, routing)
        else:
            self.router = ScoringRouter(model.width, experts, routing)
            self.select = build_selection(routing, experts)
            self.balancer = Balancer(experts, routing)
        self.limit = CapacityLimit(routing, experts, model.context) if routing.capacity.factor is not None else None

    def forward(self, x_BTD: Tensor, forward_pass: ForwardPass) -> Decision:
        reading = read(x_BTD, self.routing)
        mean_entropy = torch.full((), math.nan, device=x_BTD.device)
        if isinstance(self.router, ScoringRouter):
            logits_BJE = self._logits(reading)
            picks = self.select(logits_BJE, self.balancer.bias)
            logits_RE = logits_BJE.flatten(0, 1)
            self.balancer.add_terms(logits_RE, picks, forward_pass)
            if forward_pass.detail:
                mean_entropy = entropy(logits_RE.detach())
        else:
            picks = self._fixed(x_BTD, forward_pass)
        if self.routing.shuffle:
            picks = shuffled(picks, self.training)
        wanted = picks.mask().sum() * reading.block
        if self.limit is not None:
            picks = self.limit(picks, x_BTD.shape[0])
        return Decision(plan_pairs(picks, self.experts, reading.block), wanted, mean_entropy)

    def _logits(self, reading: Reading) -> Tensor:
        """Logits of every block, (B, J, E)."""
        logits_BUE = self.router(reading)
        if reading.unit_of_block_J is not None:
            logits_BUE = logits_BUE[:, reading.unit_of_block_J]
        return logits_BUE

    def _fixed(self, x_BTD: Tensor, forward_pass: ForwardPass) -> Picks:
        source = forward_pass.tokens_BT if isinstance(self.router, HashRouter) else forward_pass.label_B
        if source is None:
            raise ValueError("routing by label needs label_B")
        return fixed_picks(self.router(source), torch.promote_types(x_BTD.dtype, torch.float32))

    def begin_step(self, step: int) -> None:
        if isinstance(self.router, ScoringRouter):
            self.router.begin_step(step)
            self.balancer.begin_step()

    def end_step(self) -> None:
        if isinstance(self.router, ScoringRouter):
            self.balancer.end_step()
            self.select.end_step()


class MixtureLayer(nn.Module):
    """A feed-forward layer of N experts, of which each decision takes some.

    With scope=global only the first mixture layer decides; the gate weights of its decision scale every
    layer's experts, so that its router learns from all of them.
    """

    def __init__(self, model: ModelConfig, routing: Routing, layer: int, vocab_size: int) -> None:
        super().__init__()
        self.layer, self.is_global = layer, routing.scope is Scope.GLOBAL
        hidden = expert_hidden(routing, model.hidden)
        self.num_experts = experts_of_layer(routing, model.layers, layer)
        decides = not self.is_global or layer == mixture_layers(routing, model.layers)[0]
        self.decider = Decider(model, routing, self.num_experts, vocab_size) if decides else None
        self.experts = Experts(self.num_experts, model.width, hidden, model.bias)
        shared = routing.shared_experts * hidden
        self.shared: nn.Module | None = MLP(model.width, shared, model.bias, dropout=0.0) if shared else None
        self.dropout = nn.Dropout(model.dropout)

    def forward(self, x_BTD: Tensor, forward_pass: ForwardPass) -> Tensor:
        decision = self._decision(x_BTD, forward_pass)
        plan = decision.plan
        x_ND = x_BTD.reshape(-1, x_BTD.shape[-1])
        y_BTD = expert_ffn(x_ND, plan, self.experts).view_as(x_BTD)
        if self.shared is not None:
            y_BTD = y_BTD + self.shared(x_BTD)
        stats = _stats(self.layer, decision, forward_pass)
        if forward_pass.detail:
            stats.positive = self.experts.positive_rows(gather(x_ND, plan), plan.ends_E)
        forward_pass.stats.append(stats)
        return self.dropout(y_BTD)

    def _decision(self, x_BTD: Tensor, forward_pass: ForwardPass) -> Decision:
        if self.decider is None:
            return forward_pass.shared_decision
        decision = self.decider(x_BTD, forward_pass)
        if self.is_global:
            forward_pass.shared_decision = decision
        return decision

    def begin_step(self, step: int) -> None:
        if self.decider is not None:
            self.decider.begin_step(step)

    def end_step(self) -> None:
        if self.decider is not None:
            self.decider.end_step()


@torch.no_grad()
def _stats(layer: int, decision: Decision, forward_pass: ForwardPass) -> RoutingStats:
    plan = decision.plan
    kept_E = plan.counts_E * plan.block
    kept_BE = weight_BE = None
    if forward_pass.detail:
        sequences, experts = forward_pass.tokens_BT.shape[0], plan.counts_E.shape[0]
        cell_P = plan.block_P * sequences // plan.blocks * experts + plan.expert_P
        empty_C = torch.zeros(sequences * experts, device=cell_P.device, dtype=torch.float64)
        pairs_C = empty_C.scatter_add(0, cell_P, torch.full(cell_P.shape, plan.block).to(empty_C))
        weights_C = empty_C.scatter_add(0, cell_P, plan.weight_P.to(empty_C) * plan.block)
        kept_BE, weight_BE = pairs_C.long().view(sequences, experts), weights_C.view(sequences, experts)
    return RoutingStats(
        layer=layer,
        kept_E=kept_E,
        kept_BE=kept_BE,
        weight_BE=weight_BE,
        wanted=decision.wanted,
        executed=kept_E.sum(),
        entropy=decision.entropy,
        tokens=plan.tokens,
    )
