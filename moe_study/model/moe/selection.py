"""Selection rules: which experts each decision takes.

Each rule is one class, called with the logits of all blocks and giving `Picks`; RULES is the list of them.

Shape suffixes: B sequences, J blocks of a sequence, R = B * J decisions, E experts, K candidates by rank.
"""

import torch
from torch import Tensor, nn

from moe_study.design.routing import Gate, Routing, Selection, picks_per_unit
from moe_study.model.moe.picks import Picks, gate_weights


class Rule(nn.Module):
    """What all rules share: the gate. A rule that carries state updates it in `end_step`."""

    def __init__(self, routing: Routing, experts: int) -> None:
        super().__init__()
        self.gate, self.renormalise = routing.gate, routing.renormalise

    def picks(self, logits_RE: Tensor, expert_RK: Tensor, keep_RK: Tensor | None = None) -> Picks:
        """The chosen experts with their gate weights."""
        weight_RK = gate_weights(self.gate, logits_RE, expert_RK, keep_RK, self.renormalise)
        with torch.no_grad():
            probability_RK = gate_weights(Gate.SOFTMAX_THEN_PICK, logits_RE, expert_RK, None, False)
        return Picks(expert_RK, weight_RK, keep_RK, probability_RK)

    def end_step(self) -> None:
        """After the optimizer's step."""


class TopK(Rule):
    """The K largest scores, greedily, in evaluation as in training."""

    def __init__(self, routing: Routing, experts: int) -> None:
        super().__init__(routing, experts)
        self.k = picks_per_unit(routing)

    def forward(self, logits_BJE: Tensor, bias_E: Tensor | None) -> Picks:
        """`bias_E` moves the choice and not the weights (loss-free balancing, 2408.15664, eq. 3)."""
        logits_RE = logits_BJE.flatten(0, 1)
        scores_RE = logits_RE.detach()
        if bias_E is not None:
            scores_RE = (scores_RE.sigmoid() if self.gate is Gate.SIGMOID else scores_RE.softmax(1)) + bias_E
        return self.picks(logits_RE, scores_RE.topk(self.k, 1).indices)


class All(Rule):
    """Every expert."""

    def forward(self, logits_BJE: Tensor, bias_E: Tensor | None) -> Picks:
        logits_RE = logits_BJE.flatten(0, 1)
        expert_RK = torch.arange(logits_RE.shape[1], device=logits_RE.device).expand_as(logits_RE)
        return self.picks(logits_RE, expert_RK)


RULES: dict[Selection, type[Rule]] = {
    Selection.TOP_K: TopK,
    Selection.ALL: All,
}


def build_selection(routing: Routing, experts: int) -> Rule:
    """The rule of a point."""
    return RULES[routing.selection](routing, experts)
