"""Merged experts: the experts' weights are averaged, and one merged network serves all tokens of a unit.

SMEAR (Muqeeth et al., 2306.03745, section 3.1) merges by the mean of a whole sequence (unit=sequence,
context=unit_mean: later tokens reach earlier ones); Lory (Zhong et al., 2405.03133, section 3.1) by the mean of
the segment before (unit=segment, context=previous_segment), its first segment by its own mean behind a
stop-gradient (first_segment=own_mean: it leaks there) or strictly by a learned prior. unit=token with
context=running_mean is SMEAR's strict form: every position is served by the mean of what it may see.

Shape suffixes: B sequences, T positions, U units of a sequence, L tokens of a unit, R = B * U, D width, F hidden
units of an expert, E experts.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from moe_study.design.causality import decides_alone
from moe_study.design.config import ModelConfig
from moe_study.design.routing import Routing, Unit
from moe_study.model.forward_pass import ONE_PROCESS, ForwardPass, Reducer, RoutingStats, TokenRoutes
from moe_study.model.moe.base import MixtureOfExperts
from moe_study.model.moe.routing.balance import Balancer
from moe_study.model.moe.routing.context import make_router_input
from moe_study.model.moe.routing.gate import RoutingDecision, entropy, gate_weights
from moe_study.model.moe.routing.intervention import Decided, dense_weights
from moe_study.model.moe.routing.router import scoring_router
from moe_study.model.moe.routing.token_routes import entropies, routes_of_weights


def unit_lengths(routing: Routing, length: int) -> list[int]:
    """Tokens of each unit of a window, in order; the last one may be cut short."""
    if routing.unit is Unit.TOKEN:
        return [1] * length
    if routing.unit is Unit.SEGMENT:
        size = routing.segment_length
        assert size is not None  # validated
        return [min(size, length - start) for start in range(0, length, size)]
    prefix = routing.prefix_length
    return [length] if prefix is None or length <= prefix else [prefix, length - prefix]


@dataclass
class MergeWeights:
    """How much of each expert every unit's network holds; with scope=global all layers follow the first one's."""

    weight_BUE: Tensor  # carries the router's gradient
    lengths: list[int]  # tokens of each unit
    entropy: Tensor
    routes: TokenRoutes | None = None

    def by_token(self) -> Tensor:
        """Every token has the weights of its unit: (B, T, E)."""
        return self.weight_BUE.repeat_interleave(torch.tensor(self.lengths, device=self.weight_BUE.device), 1)


class MergeRouter(nn.Module):
    """Router and gate: a weight for every expert, unit by unit."""

    def __init__(self, model: ModelConfig, routing: Routing, layer: int, experts: int) -> None:
        super().__init__()
        self.routing, self.layer = routing, layer
        self.alone = decides_alone(routing)
        self.router = scoring_router(model.width, experts, routing)
        self.balancer = Balancer(experts, routing)

    def forward(self, x_BTD: Tensor, forward_pass: ForwardPass) -> MergeWeights:
        cache = None if self.alone else forward_pass.cache  # where a unit's decision needs what came before it
        read_BSD = x_BTD if cache is None else cache.past(self.layer).states.extend(x_BTD)
        logits_BUE = self.router(make_router_input(read_BSD, self.routing))
        logits_RE = logits_BUE.flatten(0, 1)
        every_RE = torch.arange(logits_RE.shape[1], device=x_BTD.device).expand_as(logits_RE)
        weight_RE = gate_weights(self.routing.gate, logits_RE, every_RE, None, self.routing.renormalise)
        decision = RoutingDecision(every_RE, weight_RE)
        self.balancer.add_terms(logits_RE, decision, forward_pass)
        if intervene := forward_pass.interventions.get(self.layer):
            experts = logits_RE.shape[1]
            weight_RE = dense_weights(intervene(Decided(decision, experts)), experts)
        mean_entropy = torch.full((), math.nan, device=x_BTD.device)
        if forward_pass.detail:
            mean_entropy = entropy(logits_RE.detach())
        lengths = unit_lengths(self.routing, read_BSD.shape[1])
        weights = MergeWeights(weight_RE.view_as(logits_BUE), lengths, mean_entropy)
        if cache is not None and not cache.is_new:
            weight_BTE = cache.of_new(weights.by_token())
            weights = MergeWeights(weight_BTE, [1] * x_BTD.shape[1], mean_entropy)
        if forward_pass.routes:
            weights.routes = _routes(weights, logits_BUE.detach())
        return weights

    def begin_step(self, step: int) -> None:
        self.router.begin_step(step)
        self.balancer.begin_step()

    def end_step(self, reducer: Reducer = ONE_PROCESS) -> None:
        self.balancer.end_step()


class MergeLayer(MixtureOfExperts):
    """A feed-forward layer of E experts that are merged by gate weights: y = FFN(x; sum_e w_e theta_e)."""

    def __init__(self, model: ModelConfig, routing: Routing, layer: int, vocab_size: int) -> None:
        super().__init__(model, routing, layer)
        self.gates = MergeRouter(model, routing, layer, self.num_experts) if self.decides else None
        self.add_experts(model, routing)

    def mix(self, x_BTD: Tensor, forward_pass: ForwardPass) -> tuple[Tensor, RoutingStats]:
        weights: MergeWeights = self.own_or_shared(self.gates, x_BTD, forward_pass)
        parts = []
        for tokens, units, length in equal_units(weights.lengths):
            x_BULD = x_BTD[:, tokens].unflatten(1, (-1, length))
            parts.append(self._outputs(x_BULD, weights.weight_BUE[:, units]).flatten(1, 2))
        return torch.cat(parts, 1), self._stats(weights, forward_pass)

    def _outputs(self, x_BULD: Tensor, weight_BUE: Tensor) -> Tensor:
        """Outputs (B, U, L, D) of units of equal length."""
        x_RLD, weight_RE = x_BULD.flatten(0, 1), weight_BUE.flatten(0, 1).to(x_BULD.dtype)
        linear = merged_linear if x_RLD.shape[1] > 1 else summed_linear
        h_RLF = F.gelu(linear(x_RLD, weight_RE, self.experts.up_EDF, self.experts.up_bias_EF))
        y_RLD = linear(h_RLF, weight_RE, self.experts.down_EFD, self.experts.down_bias_ED)
        return y_RLD.view(x_BULD.shape)

    @torch.no_grad()
    def _stats(self, weights: MergeWeights, forward_pass: ForwardPass) -> RoutingStats:
        """Every token runs one merged row. It is counted at the expert with the largest weight; how much of
        each expert was in it shows in `weight_BE`, the sums of gate weights over tokens."""
        lengths_U1 = torch.tensor(weights.lengths, device=weights.weight_BUE.device).unsqueeze(1)
        largest_BUE = F.one_hot(weights.weight_BUE.argmax(2), self.num_experts)
        kept_BE = (largest_BUE * lengths_U1).sum(1)
        weight_BE = (weights.weight_BUE.double() * lengths_U1).sum(1) if forward_pass.detail else None
        rows = forward_pass.tokens_BT.numel()
        return RoutingStats(
            layer=self.layer,
            kept_E=kept_BE.sum(0),
            kept_BE=kept_BE if forward_pass.detail else None,
            weight_BE=weight_BE,
            wanted=kept_BE.sum(),
            executed=kept_BE.sum(),
            entropy=weights.entropy,
            tokens=rows,
            routes=weights.routes,
        )


def _routes(weights: MergeWeights, logits_BUE: Tensor) -> TokenRoutes:
    """Every token of a unit has the unit's weights."""
    lengths_U = torch.tensor(weights.lengths, device=logits_BUE.device)
    weight_BTE = weights.by_token().detach()
    entropy_BU = entropies(logits_BUE.flatten(0, 1)).view(logits_BUE.shape[:2])
    return routes_of_weights(weight_BTE.flatten(0, 1), entropy_BU.repeat_interleave(lengths_U, 1).flatten())


def equal_units(lengths: list[int]) -> Iterator[tuple[slice, slice, int]]:
    """Runs of units of one length: their tokens, their indices, and that length."""
    token = unit = 0
    for length, run in groupby(lengths):
        units = len(list(run))
        yield slice(token, token + units * length), slice(unit, unit + units), length
        token, unit = token + units * length, unit + units


def merged_linear(x_RLI: Tensor, weight_RE: Tensor, stack_EIO: Tensor, bias_EO: Tensor | None) -> Tensor:
    """x times the average of the stacked weights, which is made once for each unit: (R, L, O)."""
    merged_RIO = (weight_RE @ stack_EIO.flatten(1)).view(-1, *stack_EIO.shape[1:])
    y_RLO = torch.bmm(x_RLI, merged_RIO)
    return y_RLO if bias_EO is None else y_RLO + (weight_RE @ bias_EO).unsqueeze(1)


def summed_linear(x_RLI: Tensor, weight_RE: Tensor, stack_EIO: Tensor, bias_EO: Tensor | None) -> Tensor:
    """The same for units of one token, as the sum over experts of (w_e x) times its weights.

    One product, no more work than averaging the weights alone, and nothing of size (R, I, O) is held.
    """
    scaled_RM = (weight_RE.unsqueeze(2) * x_RLI).flatten(1)  # L = 1; M = E * I
    y_RO = scaled_RM @ stack_EIO.flatten(0, 1)
    y_RO = y_RO if bias_EO is None else y_RO + weight_RE @ bias_EO
    return y_RO.unsqueeze(1)
