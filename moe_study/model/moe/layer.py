"""The discrete mixture layer: each decision takes some of the experts.

The forward pass: the router's input is gathered (`routing/context.py`), scored (`router.py`), experts are selected
(`selection.py`) and weighted (`gate.py`), limited by a capacity (`capacity.py`), sorted into a dispatch plan
(`experts/dispatch_plan.py`) and run (`experts/dispatch.py`).

Shape suffixes: B sequences, T positions, J blocks of a sequence, D width, E experts, R = B * J decisions, P pairs of
blocks and experts, N = B * T tokens, C cells of sequence and expert.
"""

import math
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from moe_study.design.causality import decides_alone
from moe_study.design.config import ModelConfig
from moe_study.design.routing import RouterKind, Routing
from moe_study.model.cache import Cache
from moe_study.model.forward_pass import ONE_PROCESS, ForwardPass, Reducer, RoutingStats, TokenRoutes
from moe_study.model.moe.base import MixtureOfExperts
from moe_study.model.moe.experts.dispatch import expert_ffn
from moe_study.model.moe.experts.dispatch_plan import DispatchPlan, make_dispatch_plan
from moe_study.model.moe.experts.rows import gather
from moe_study.model.moe.routing.balance import Balancer
from moe_study.model.moe.routing.capacity import CapacityLimit
from moe_study.model.moe.routing.context import RouterInput, make_router_input
from moe_study.model.moe.routing.gate import RoutingDecision, entropy, fixed_decision, shuffled
from moe_study.model.moe.routing.intervention import Decided
from moe_study.model.moe.routing.router import HashRouter, LabelRouter, ScoringRouter, scoring_router
from moe_study.model.moe.routing.selection import build_selection
from moe_study.model.moe.routing.token_routes import routes_of_decision


@dataclass
class Dispatch:
    """Where the tokens of one pass go; with scope=global every layer follows the first one's."""

    plan: DispatchPlan
    wanted: Tensor  # pairs of tokens and experts before any capacity
    entropy: Tensor
    routes: TokenRoutes | None = None


class DiscreteRouter(nn.Module):
    """Router, selection, balancing and capacity of one decision."""

    def __init__(self, model: ModelConfig, routing: Routing, layer: int, experts: int, vocab_size: int) -> None:
        super().__init__()
        self.routing, self.layer, self.experts = routing, layer, experts
        self.alone = decides_alone(routing)
        self.router: nn.Module
        if routing.router is RouterKind.HASH:
            self.router = HashRouter(vocab_size, experts, routing)
        elif routing.router is RouterKind.LABEL:
            self.router = LabelRouter(experts, routing)
        else:
            self.router = scoring_router(model.width, experts, routing)
            self.select = build_selection(routing, experts)
            self.balancer = Balancer(experts, routing)
        self.limit = CapacityLimit(routing, experts, model.context) if routing.capacity.factor is not None else None

    def forward(self, x_BTD: Tensor, forward_pass: ForwardPass) -> Dispatch:
        cache = None if self.alone else forward_pass.cache  # where a token's decision needs what came before it
        read_BSD = x_BTD if cache is None else cache.past(self.layer).states.extend(x_BTD)
        router_input = make_router_input(read_BSD, self.routing)
        mean_entropy = torch.full((), math.nan, device=x_BTD.device)
        scored = None
        if isinstance(self.router, ScoringRouter):
            logits_BJE = self._logits(router_input)
            decision = self.select(logits_BJE, self.balancer.bias)
            logits_RE = logits_BJE.flatten(0, 1)
            self.balancer.add_terms(logits_RE, decision, forward_pass)
            self.select.add_terms(logits_RE, decision, forward_pass)
            scored = logits_RE.detach(), decision
            if forward_pass.detail:
                mean_entropy = entropy(logits_RE.detach())
        else:
            tokens_BS = forward_pass.tokens_BT if cache is None else cache.tokens_BS
            decision = self._fixed(x_BTD.dtype, tokens_BS, forward_pass.label_B)
        if intervene := forward_pass.interventions.get(self.layer):
            decision = intervene(self._decided(decision, scored))
        if self.routing.shuffle:
            decision = shuffled(decision, self.training)
        wanted, block = decision, router_input.block
        if self.limit is not None:
            decision = self.limit(decision, x_BTD.shape[0])
        if cache is not None and not cache.is_new:
            wanted, decision = (_of_new_tokens(of_all, block, cache) for of_all in (wanted, decision))
            block = 1
        plan = make_dispatch_plan(decision, self.experts, block)
        routes = routes_of_decision(scored, wanted, decision, block) if forward_pass.routes else None
        return Dispatch(plan, wanted.mask().sum() * block, mean_entropy, routes)

    def _logits(self, router_input: RouterInput) -> Tensor:
        """Logits of every block, (B, J, E)."""
        logits_BUE = self.router(router_input)
        if router_input.unit_of_block_J is not None:
            logits_BUE = logits_BUE[:, router_input.unit_of_block_J]
        return logits_BUE

    def _decided(self, decision: RoutingDecision, scored: tuple[Tensor, RoutingDecision] | None) -> Decided:
        """What an intervention is shown; a fixed router has no scores to decide otherwise by."""
        if scored is None:
            return Decided(decision, self.experts)
        logits_RE, _ = scored
        scores_RE = self.select.scores(logits_RE, self.balancer.bias)
        return Decided(decision, self.experts, scores_RE, partial(self.select.decide, logits_RE))

    def _fixed(self, dtype: torch.dtype, tokens_BT: Tensor, label_B: Tensor | None) -> RoutingDecision:
        source = tokens_BT if isinstance(self.router, HashRouter) else label_B
        if source is None:
            raise ValueError("routing by label needs label_B")
        return fixed_decision(self.router(source), torch.promote_types(dtype, torch.float32))

    def begin_step(self, step: int) -> None:
        if isinstance(self.router, ScoringRouter):
            self.router.begin_step(step)
            self.balancer.begin_step()

    def end_step(self, reducer: Reducer = ONE_PROCESS) -> None:
        if isinstance(self.router, ScoringRouter):
            self.balancer.end_step()
            self.select.end_step(reducer)


def _of_new_tokens(decision: RoutingDecision, block: int, cache: Cache) -> RoutingDecision:
    """Of decisions for all blocks so far, one for each token of the present pass."""
    sequences = len(cache.position_BT)

    def chosen(value_RK: Tensor) -> Tensor:
        value_BSK = value_RK.repeat_interleave(block, 0).unflatten(0, (sequences, -1))
        return cache.of_new(value_BSK).flatten(0, 1)

    return decision.each(chosen)


class MixtureLayer(MixtureOfExperts):
    """A feed-forward layer of N experts, of which each decision takes some.

    With scope=global only the first mixture layer decides; the gate weights of its decision scale every
    layer's experts, so that its router learns from all of them.
    """

    def __init__(self, model: ModelConfig, routing: Routing, layer: int, vocab_size: int) -> None:
        super().__init__(model, routing, layer)
        self.decider = DiscreteRouter(model, routing, layer, self.num_experts, vocab_size) if self.decides else None
        self.add_experts(model, routing)

    def mix(self, x_BTD: Tensor, forward_pass: ForwardPass) -> tuple[Tensor, RoutingStats]:
        dispatch: Dispatch = self.own_or_shared(self.decider, x_BTD, forward_pass)
        x_ND = x_BTD.reshape(-1, x_BTD.shape[-1])
        y_ND = expert_ffn(x_ND, dispatch.plan, self.experts, forward_pass.dispatch)
        stats = _stats(self.layer, dispatch, forward_pass)
        if forward_pass.detail:
            stats.positive = self.experts.positive_rows(gather(x_ND, dispatch.plan), dispatch.plan.ends_E)
        return y_ND.view_as(x_BTD), stats


@torch.no_grad()
def _stats(layer: int, dispatch: Dispatch, forward_pass: ForwardPass) -> RoutingStats:
    plan = dispatch.plan
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
        wanted=dispatch.wanted,
        executed=kept_E.sum(),
        entropy=dispatch.entropy,
        tokens=plan.tokens,
        routes=dispatch.routes,
    )
