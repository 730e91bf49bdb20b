"""Terms and rules that spread the load over experts; each is reported apart from the language-model loss.

Shape suffixes: R decisions, E experts, K candidates.
"""

import torch
from torch import Tensor, nn

from moe_study.design.routing import Choices, Routing
from moe_study.design.selections import counted_choices
from moe_study.model.forward_pass import Counts, ForwardPass, Reducer
from moe_study.model.moe.routing.gate import RoutingDecision


def pick_counts(decision: RoutingDecision, experts: int) -> Tensor:
    """How often each expert was picked, before any capacity: (E,), in the weights' type."""
    ones_RK = decision.mask().to(decision.weight_RK.dtype)
    counts_E = torch.zeros(experts, dtype=ones_RK.dtype, device=ones_RK.device)
    return counts_E.scatter_add(0, decision.expert_RK.flatten(), ones_RK.flatten())


def first_counts(first_R: Tensor, logits_RE: Tensor) -> Tensor:
    """How often each expert was the first choice: (E,), in the logits' type. The count of XMoE and of GShard."""
    ones_R = torch.ones_like(first_R, dtype=logits_RE.dtype)
    return ones_R.new_zeros(logits_RE.shape[1]).scatter_add(0, first_R, ones_R)


def switch_loss(logits_RE: Tensor, counts_E: Tensor) -> Tensor:
    """N * sum_e f_e P_e with f the share of counts and P the mean probability; 1 at uniform (2101.03961, eq. 4)."""
    share_E = counts_E / counts_E.sum()
    return logits_RE.shape[1] * (share_E * logits_RE.softmax(1).mean(0)).sum()


def z_loss(logits_RE: Tensor) -> Tensor:
    """Mean squared logsumexp of the logits (2202.08906, eq. 5)."""
    return logits_RE.logsumexp(1).square().mean()


class StepCounts:
    """Counts of one kind, over the micro-batches of a step and over ranks."""

    def __init__(self) -> None:
        self.step_E: Tensor | None = None  # since `begin`, over micro-batches

    def begin(self) -> None:
        self.step_E = None

    def add(self, counts_E: Tensor, reducer: Reducer, training: bool) -> Counts:
        """Of one more micro-batch; outside training it stands by itself, and the step is left alone."""
        counts, before_E = reducer.counts(counts_E), self.step_E
        if not training:
            return counts
        self.step_E = counts.all_E if before_E is None else before_E + counts.all_E
        running_E = counts.running_E if before_E is None else before_E + counts.running_E
        return Counts(counts.micro_batch_E, running_E, counts.all_E)


class Balancer(nn.Module):
    """A layer's balancing: adds loss terms to the pass, and moves the loss-free bias after each step.

    f_e counts each decision's first choice or all of them (`Balance.choices`), before any capacity; the bias always
    goes by all. With scope "batch", f_e counts the micro-batches of the step so far, this one included: the last
    micro-batch sees the whole batch's load. P_e is always the micro-batch's own. Ranks that train together add up what
    they count (forward_pass.Reducer); P_e enters linearly, so the mean over ranks of the term is that of one process.
    """

    bias_E: Tensor

    def __init__(self, experts: int, routing: Routing) -> None:
        super().__init__()
        self.settings = routing.balance
        self.choices = counted_choices(routing)
        self.whole_batch = routing.balance.scope == "batch"
        if self.settings.bias_rate:
            self.register_buffer("bias_E", torch.zeros(experts))
        self._load, self._picks = StepCounts(), StepCounts()  # f_e, and what the bias goes by

    @property
    def bias(self) -> Tensor | None:
        """What is added to the scores before picking."""
        return self.bias_E if self.settings.bias_rate else None

    def begin_step(self) -> None:
        self._load.begin()
        self._picks.begin()

    def add_terms(self, logits_RE: Tensor, decision: RoutingDecision, forward_pass: ForwardPass) -> None:
        """Record the loss terms of one forward pass, and count for the bias in training."""
        settings, reducer = self.settings, forward_pass.reducer
        if settings.z:
            forward_pass.add_aux("z", z_loss(logits_RE), settings.z)
        if settings.switch:
            with torch.no_grad():
                counts = self._load.add(self._counted(logits_RE, decision), reducer, self.training)
            f_E = counts.running_E if self.whole_batch and self.training else counts.micro_batch_E
            forward_pass.add_aux("switch", switch_loss(logits_RE, f_E), settings.switch)
        if settings.bias_rate and self.training:
            with torch.no_grad():
                self._picks.add(pick_counts(decision, logits_RE.shape[1]), reducer, self.training)

    def _counted(self, logits_RE: Tensor, decision: RoutingDecision) -> Tensor:
        """The load that f_e is the share of: (E,)."""
        if self.choices is Choices.ALL:
            return pick_counts(decision, logits_RE.shape[1])
        # A bias moves the choice: then the first is no longer that of the largest logit, but the best of the picks.
        first_R = logits_RE.argmax(1) if self.bias is None else decision.expert_RK[:, 0]
        return first_counts(first_R, logits_RE)

    def end_step(self) -> None:
        """b_e += u * sign(mean count - count_e), after the optimizer's step (2408.15664, algorithm 1)."""
        if self.settings.bias_rate and self._picks.step_E is not None:
            counts_E = self._picks.step_E
            self.bias_E += self.settings.bias_rate * (counts_E.mean() - counts_E).sign()
        self.begin_step()
