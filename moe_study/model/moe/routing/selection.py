"""Selection rules: which experts each decision takes.

Each rule is one class, called with the logits of all blocks and giving `RoutingDecision`; RULES is the list of them.

Shape suffixes: B sequences, J blocks of a sequence, R = B * J decisions, E experts, K candidates by rank.
"""

import numpy as np
import torch
from torch import Tensor, nn

from moe_study.design.routing import BY_PROBABILITY, ChoiceScope, Gate, Routing, Selection, picks_per_unit
from moe_study.design.selections import choice_slots
from moe_study.model.forward_pass import ONE_PROCESS, ForwardPass, Reducer
from moe_study.model.moe.routing.gate import RoutingDecision, gate_weights
from moe_study.model.moe.routing.top_k import top_k


class Rule(nn.Module):
    """What all rules share: the gate. A rule that carries state updates it in `end_step`."""

    def __init__(self, routing: Routing, experts: int) -> None:
        super().__init__()
        self.gate, self.renormalise = routing.gate, routing.renormalise
        limit = routing.capacity
        self.gives_probabilities = limit.factor is not None and limit.priority in BY_PROBABILITY

    def decide(self, logits_RE: Tensor, expert_RK: Tensor, keep_RK: Tensor | None = None) -> RoutingDecision:
        """The chosen experts with their gate weights."""
        weight_RK = gate_weights(self.gate, logits_RE, expert_RK, keep_RK, self.renormalise)
        probability_RK = None
        if self.gives_probabilities:
            probability_RK = gate_weights(Gate.SOFTMAX_THEN_PICK, logits_RE.detach(), expert_RK, None, False)
        return RoutingDecision(expert_RK, weight_RK, keep_RK, probability_RK)

    def scores(self, logits_RE: Tensor, bias_E: Tensor | None) -> Tensor:
        """What a decision ranks its experts by, detached."""
        return logits_RE.detach()

    def add_terms(self, logits_RE: Tensor, decision: RoutingDecision, forward_pass: ForwardPass) -> None:
        """Record what the rule itself adds to the loss of one forward pass."""

    def end_step(self, reducer: Reducer = ONE_PROCESS) -> None:
        """After the optimizer's step; `reducer` averages over ranks what each has seen."""


class TopK(Rule):
    """The K largest scores, greedily, in evaluation as in training."""

    def __init__(self, routing: Routing, experts: int) -> None:
        super().__init__(routing, experts)
        self.k = picks_per_unit(routing)

    def forward(self, logits_BJE: Tensor, bias_E: Tensor | None) -> RoutingDecision:
        logits_RE = logits_BJE.flatten(0, 1)
        return self.decide(logits_RE, top_k(self.scores(logits_RE, bias_E), self.k))

    def scores(self, logits_RE: Tensor, bias_E: Tensor | None) -> Tensor:
        """`bias_E` moves the choice and not the weights (loss-free balancing, 2408.15664, eq. 3)."""
        scores_RE = logits_RE.detach()
        if bias_E is None:
            return scores_RE
        return (scores_RE.sigmoid() if self.gate is Gate.SIGMOID else scores_RE.softmax(1)) + bias_E


class All(Rule):
    """Every expert."""

    def forward(self, logits_BJE: Tensor, bias_E: Tensor | None) -> RoutingDecision:
        logits_RE = logits_BJE.flatten(0, 1)
        expert_RK = torch.arange(logits_RE.shape[1], device=logits_RE.device).expand_as(logits_RE)
        return self.decide(logits_RE, expert_RK)


class Threshold(Rule):
    """Experts in descending order of probability until their sum reaches t (XMoE, 2403.18926, eq. 4-5).

    Rank r is taken if and only if the probabilities ranked before it sum to less than t; rank 1 always is.
    Equal probabilities are ranked by the experts' order.

    With a budget, t is a state that moves after every step towards `threshold_budget` picks a decision:
    t <- t + GAIN * log(budget / picks), an integral controller on the logarithm.
    """

    GAIN = 0.02
    moving_threshold: Tensor

    def __init__(self, routing: Routing, experts: int) -> None:
        super().__init__(routing, experts)
        self.threshold, self.budget = routing.threshold, routing.threshold_budget
        if self.budget is not None:
            self.register_buffer("moving_threshold", torch.tensor(routing.threshold))
        self._picked: list[Tensor] = []  # mean picks a decision, of each micro-batch of the step

    def forward(self, logits_BJE: Tensor, bias_E: Tensor | None) -> RoutingDecision:
        logits_RE = logits_BJE.flatten(0, 1)
        with torch.no_grad():
            p_RE, expert_RE = descending(logits_RE.softmax(1))
            before_RE = torch.zeros_like(p_RE)
            before_RE[:, 1:] = p_RE[:, :-1].cumsum(1)
            keep_RE = before_RE < (self.threshold if self.budget is None else self.moving_threshold)
            keep_RE[:, 0] = True
            if self.training and self.budget is not None:
                self._picked.append(keep_RE.sum(1, dtype=torch.float32).mean())
        return self.decide(logits_RE, expert_RE, keep_RE)

    def end_step(self, reducer: Reducer = ONE_PROCESS) -> None:
        if self.budget is not None and self._picked:
            picked = reducer.mean(torch.stack(self._picked).mean())
            self.moving_threshold += self.GAIN * (self.budget / picked).log()
            self.moving_threshold.clamp_(0, 1)
        self._picked.clear()


def descending(p_RE: Tensor) -> tuple[Tensor, Tensor]:
    """Probabilities from high to low and their experts; equal ones in the experts' order."""
    if p_RE.device.type != "cpu" or p_RE.dtype is not torch.float32 or torch.compiler.is_compiling():
        return p_RE.sort(dim=1, descending=True, stable=True)
    # numpy sorts integers with vector instructions, in a sixth of the time. Floats that are not negative have the
    # order of their bits; below them the expert breaks ties.
    key_RE = torch.arange(p_RE.shape[1]) - (p_RE.view(torch.int32).long() << 32)
    expert_RE = torch.from_numpy(np.sort(key_RE.numpy(), axis=1)) & 0xFFFFFFFF
    return p_RE.gather(1, expert_RE), expert_RE


class Positive(Rule):
    """Every expert of positive score, best first: any number of them, k on average (ReMoE, 2412.14711, section 3).

    What holds the average at k is a penalty on positive scores, of which an expert bears the more the more often it is
    taken (eq. 10-11), in the layer's mean over decisions. Its weight is one for all layers; each keeps it, and moves it
    after every step by FACTOR, up where units took more than k on average over all layers and down where they took
    fewer (eq. 7-8). A constant weight would let all scores shrink to nothing, since they have no scale of their own.
    """

    FIRST_WEIGHT, FACTOR = 1e-8, 1.2  # lambda_0 and alpha of section 3.3
    LARGEST_WEIGHT = 1e8  # finite, where scores do not yield
    penalty_weight: Tensor

    def __init__(self, routing: Routing, experts: int) -> None:
        super().__init__(routing, experts)
        self.k = picks_per_unit(routing)
        self.register_buffer("penalty_weight", torch.tensor(self.FIRST_WEIGHT))
        self._picked: list[list[Tensor]] = []  # of each micro-batch of the step: mean picks a decision, by layer

    def forward(self, logits_BJE: Tensor, bias_E: Tensor | None) -> RoutingDecision:
        logits_RE = logits_BJE.flatten(0, 1)
        with torch.no_grad():
            sorted_RE, expert_RE = logits_RE.sort(dim=1, descending=True, stable=True)
        return self.decide(logits_RE, expert_RE, sorted_RE > 0)

    def add_terms(self, logits_RE: Tensor, decision: RoutingDecision, forward_pass: ForwardPass) -> None:
        with torch.no_grad():
            decisions, experts = logits_RE.shape
            own_E = (logits_RE > 0).sum(0).to(logits_RE.dtype)
            counts = forward_pass.reducer.counts(torch.cat((own_E, own_E.new_tensor([decisions]))))
            picked_E = counts.micro_batch_E[:-1] / counts.micro_batch_E[-1]
            ratio_E = picked_E * experts / self.k
        forward_pass.add_aux("positive", (ratio_E * logits_RE.relu().mean(0)).sum(), self.penalty_weight)
        if self.training:
            forward_pass.picked.append(picked_E.sum())
            self._picked.append(forward_pass.picked)  # which later layers of this pass add to

    def end_step(self, reducer: Reducer = ONE_PROCESS) -> None:
        if self._picked:
            picked = reducer.mean(torch.stack([torch.stack(layers).mean() for layers in self._picked]).mean())
            self.penalty_weight *= self.FACTOR ** (picked - self.k).sign()
            self.penalty_weight.clamp_(max=self.LARGEST_WEIGHT)
        self._picked.clear()


class ExpertChoice(Rule):
    """Every expert takes the C tokens with its highest probabilities (2202.09368, section 3.2).

    C = ceil(k * tokens / N) over the tokens that it chooses from, so that a token has k experts on average.
    The softmax runs over experts. With choice_scope=cutoff an expert takes every token above a cutoff, a moving
    average of the batch's C-th highest probability that is updated after the step: no token of the batch at
    hand, earlier or later, changes the choice.
    """

    SLOWEST = 0.01  # weight of the newest batch in the moving average, once warmed up
    cutoff_E: Tensor
    updates: Tensor

    def __init__(self, routing: Routing, experts: int) -> None:
        super().__init__(routing, experts)
        self.scope, self.k, self.experts = routing.choice_scope, picks_per_unit(routing), experts
        if self.scope is ChoiceScope.CUTOFF:
            self.register_buffer("cutoff_E", torch.full((experts,), 1 / experts))
            self.register_buffer("updates", torch.zeros(()))
        self._observed: list[Tensor] = []  # C-th highest probability by expert, of each micro-batch of the step

    def forward(self, logits_BJE: Tensor, bias_E: Tensor | None) -> RoutingDecision:
        with torch.no_grad():
            p_BJE = logits_BJE.softmax(2)
            keep_RE = self._chosen(p_BJE).flatten(0, 1)
        logits_RE = logits_BJE.flatten(0, 1)
        expert_RE = torch.arange(self.experts, device=logits_RE.device).expand_as(logits_RE)
        return self.decide(logits_RE, expert_RE, keep_RE)

    def _chosen(self, p_BJE: Tensor) -> Tensor:
        if self.scope is ChoiceScope.SEQUENCE:
            return self._highest(p_BJE, 1)
        if self.scope is ChoiceScope.POSITION:
            return self._highest(p_BJE, 0)
        if self.scope is ChoiceScope.BATCH:
            return self._highest(p_BJE.flatten(0, 1), 0).view_as(p_BJE)
        if self.training:
            p_RE = p_BJE.flatten(0, 1)
            self._observed.append(p_RE.topk(choice_slots(self.k, self.experts, p_RE.shape[0]), 0).values[-1])
        return p_BJE > self.cutoff_E

    def _highest(self, p: Tensor, dim: int) -> Tensor:
        """Mask of the C highest along `dim`."""
        chosen = p.topk(choice_slots(self.k, self.experts, p.shape[dim]), dim).indices
        return torch.zeros_like(p, dtype=torch.bool).scatter_(dim, chosen, True)

    def end_step(self, reducer: Reducer = ONE_PROCESS) -> None:
        if self._observed:
            self.updates += 1
            rate = (1 / self.updates).clamp_min(self.SLOWEST)
            observed_E = reducer.mean(torch.stack(self._observed).mean(0))
            self.cutoff_E += rate * (observed_E - self.cutoff_E)
        self._observed.clear()


RULES: dict[Selection, type[Rule]] = {
    Selection.TOP_K: TopK,
    Selection.ALL: All,
    Selection.THRESHOLD: Threshold,
    Selection.POSITIVE: Positive,
    Selection.EXPERT_CHOICE: ExpertChoice,
}


def build_selection(routing: Routing, experts: int) -> Rule:
    """The rule of a point."""
    return RULES[routing.selection](routing, experts)
