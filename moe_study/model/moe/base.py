"""What all mixture layers share: stacked experts, shared experts, one decision for all layers, and a record.

Shape suffixes: B sequences, T positions, D width.
"""

from typing import Any

from torch import Tensor, nn

from moe_study.design.config import ModelConfig
from moe_study.design.routing import Routing, Scope, decides, expert_hidden, experts_of_layer
from moe_study.model.forward_pass import ONE_PROCESS, ForwardPass, Reducer, RoutingStats
from moe_study.model.mlp import MLP
from moe_study.model.moe.experts.experts import Experts


class MixtureOfExperts(nn.Module):
    """A feed-forward layer of `num_experts` experts, called as layer(x_BTD, forward_pass) -> y_BTD.

    A subclass sets up its router and then calls `add_experts`, so that parameters stand in the order of the forward
    pass; in `mix` it computes what its experts make of x, and what is recorded of that.

    Names of attributes that hold parameters (`decider`, `gates`, `scores`, `experts`) name the random streams of
    their initial values and the entries of saved models, so they stay as they are.
    """

    experts: Experts
    shared: nn.Module | None
    dropout: nn.Dropout

    def __init__(self, model: ModelConfig, routing: Routing, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.num_experts = experts_of_layer(routing, model.layers, layer)
        self.is_global = routing.scope is Scope.GLOBAL
        self.decides = decides(routing, model.layers, layer)

    def add_experts(self, model: ModelConfig, routing: Routing) -> None:
        """The experts, those that every token takes, and dropout."""
        hidden = expert_hidden(routing, model.hidden)
        self.experts = Experts(self.num_experts, model.width, hidden, model.bias)
        shared = routing.shared_experts * hidden
        self.shared = MLP(model.width, shared, model.bias, dropout=0.0) if shared else None
        self.dropout = nn.Dropout(model.dropout)

    def forward(self, x_BTD: Tensor, forward_pass: ForwardPass) -> Tensor:
        y_BTD, stats = self.mix(x_BTD, forward_pass)
        if self.shared is not None:
            y_BTD = y_BTD + self.shared(x_BTD)
        forward_pass.stats.append(stats)
        return self.dropout(y_BTD)

    def mix(self, x_BTD: Tensor, forward_pass: ForwardPass) -> tuple[Tensor, RoutingStats]:
        """Output (B, T, D) of the routed experts, and the record of this pass."""
        raise NotImplementedError

    def own_or_shared(self, router: nn.Module | None, x_BTD: Tensor, forward_pass: ForwardPass) -> Any:
        """What `router` decides; with scope=global what the first mixture layer's did, which all others follow."""
        if router is None:
            return forward_pass.shared_decision
        decision = router(x_BTD, forward_pass)
        if self.is_global:
            forward_pass.shared_decision = decision
        return decision

    def begin_step(self, step: int) -> None:
        """Before the forward passes of training step `step`: routers that are drawn anew."""
        for child in self.children():
            if hook := getattr(child, "begin_step", None):
                hook(step)

    def end_step(self, reducer: Reducer = ONE_PROCESS) -> None:
        """After the optimizer's step: state that is updated outside the gradient."""
        for child in self.children():
            if hook := getattr(child, "end_step", None):
                hook(reducer)
