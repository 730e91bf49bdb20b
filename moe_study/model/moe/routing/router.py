"""Routers: scores for every unit, or a fixed choice from a token's id or a sequence's label.

Scores are computed in float32 whatever the compute precision (float64 stays), because near-ties decide. That holds
for TF32 too, see `exact`; so do their gradients.
Initialisation: that of GPT-2's other weights (`model/initialisation.py`), for the learned prior too.

Shape suffixes: B sequences, T positions, U units, D width, E experts, K picks, V vocabulary, R decisions.
"""

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from moe_study.design.routing import (
    RouterKind,
    RouterState,
    Routing,
    cosine_dimensions,
    has_prior,
    picks_per_unit,
    router_sizes,
)
from moe_study.model.initialisation import Initialiser, init_normal_
from moe_study.model.moe.routing.context import RouterInput
from moe_study.model.moe.routing.exact import exact_linear


class ScoringRouter(nn.Module):
    """Linear, or an MLP with `router_depth` hidden layers of `router_width` model widths; no biases.

    Others derive from it. A frozen router keeps its initial weights. A redrawn one gets new weights at every training
    step, from a stream keyed by the step; evaluation uses those of the last step begun.
    """

    def __init__(self, width: int, experts: int, routing: Routing) -> None:
        super().__init__()
        self.state = routing.router_state
        self.noise = routing.router_noise
        sizes = pairwise(self.sizes(width, experts, routing))
        self.weights = nn.ParameterList(torch.empty(outputs, inputs) for inputs, outputs in sizes)
        self.prior_E = nn.Parameter(torch.empty(experts)) if has_prior(routing) else None
        self.requires_grad_(self.state is RouterState.LEARNED)
        self._init: tuple[Initialiser, str] | None = None

    @staticmethod
    def sizes(width: int, experts: int, routing: Routing) -> list[int]:
        """Inputs, hidden layers and outputs of the products with `weights`."""
        return router_sizes(routing, width, experts)

    def initialise(self, init: Initialiser, prefix: str) -> None:
        self._init = init, prefix
        self._draw(init, prefix)

    def begin_step(self, step: int) -> None:
        if self.state is RouterState.REDRAWN and self._init is not None:
            init, prefix = self._init
            self._draw(init, f"{prefix}/step {step}")

    def _draw(self, init: Initialiser, stream: str) -> None:
        for name, parameter in self.named_parameters():
            init.normal_(parameter.data, f"{stream}.{name}")

    def forward(self, router_input: RouterInput) -> Tensor:
        """Logits (B, U, E) in float32 or wider, the prior's unit first where there is one."""
        states_BUD = router_input.states_BUD
        assert states_BUD is not None
        with torch.autocast(states_BUD.device.type, enabled=False):
            logits_BUE = self._score(states_BUD)
            if router_input.prior:
                assert self.prior_E is not None
                prior_B1E = self.prior_E.to(logits_BUE).expand(states_BUD.shape[0], 1, -1)
                logits_BUE = torch.cat((prior_B1E, logits_BUE), 1)
            if self.training and self.noise:
                logits_BUE = logits_BUE + self.noise * torch.randn_like(logits_BUE)
        return logits_BUE

    def _score(self, states_BUD: Tensor) -> Tensor:
        wide = torch.promote_types(self.weights[0].dtype, torch.float32)
        h_BUD = states_BUD.to(wide)
        *hidden, last = self.weights
        for weight in hidden:
            h_BUD = F.gelu(exact_linear(h_BUD, weight.to(wide)))
        return exact_linear(h_BUD, last.to(wide))


class CosineRouter(ScoringRouter):
    """Cosines of a projected token state with the experts' embeddings, over a temperature (X-MoE, 2204.09179).

    The state is projected to `cosine_dimensions` by weights[0]; weights[1] holds the embeddings. The temperature is
    learned and starts at TEMPERATURE; it is learned as its logarithm, so that it stays positive. A frozen router
    keeps it, a redrawn one starts from it at every step.
    """

    TEMPERATURE = 0.07
    SMALLEST_NORM = 1e-6

    def __init__(self, width: int, experts: int, routing: Routing) -> None:
        super().__init__(width, experts, routing)
        self.log_temperature = nn.Parameter(torch.empty(()), requires_grad=self.state is RouterState.LEARNED)

    @staticmethod
    def sizes(width: int, experts: int, routing: Routing) -> list[int]:
        return [width, cosine_dimensions(experts), experts]

    def _draw(self, init: Initialiser, stream: str) -> None:
        super()._draw(init, stream)
        nn.init.constant_(self.log_temperature, math.log(self.TEMPERATURE))

    def _score(self, states_BUD: Tensor) -> Tensor:
        wide = torch.promote_types(self.weights[0].dtype, torch.float32)
        projection, embeddings = (weight.to(wide) for weight in self.weights)
        projected = F.normalize(exact_linear(states_BUD.to(wide), projection), dim=-1, eps=self.SMALLEST_NORM)
        directions = F.normalize(embeddings, dim=-1, eps=self.SMALLEST_NORM)
        return exact_linear(projected, directions) * (-self.log_temperature.to(wide)).exp()


def scoring_router(width: int, experts: int, routing: Routing) -> ScoringRouter:
    """The router of a point that has scores."""
    kind = CosineRouter if routing.router is RouterKind.COSINE else ScoringRouter
    return kind(width, experts, routing)


class HashRouter(nn.Module):
    """A fixed random table from token id to K distinct experts (Hash Layers, 2106.04426, section 3)."""

    table_VK: Tensor

    def __init__(self, vocab_size: int, experts: int, routing: Routing) -> None:
        super().__init__()
        self.experts = experts
        k = picks_per_unit(routing)
        self.register_buffer("table_VK", torch.zeros(vocab_size, k, dtype=torch.long), persistent=False)

    def initialise(self, init: Initialiser, prefix: str) -> None:
        scores_VE = torch.empty(self.table_VK.shape[0], self.experts)
        init_normal_(scores_VE, 1.0, f"{prefix}.table", init.seed)
        self.table_VK.copy_(scores_VE.argsort(1)[:, : self.table_VK.shape[1]])

    def forward(self, tokens_BT: Tensor) -> Tensor:
        """Experts (R, K) with R = B * T."""
        return self.table_VK[tokens_BT.flatten()]


class LabelRouter(nn.Module):
    """Label i goes to experts iK, ..., iK + K - 1 (mod N): the study paper's hard-coded language routing."""

    def __init__(self, experts: int, routing: Routing) -> None:
        super().__init__()
        self.experts = experts
        self.k = picks_per_unit(routing)

    def forward(self, label_B: Tensor) -> Tensor:
        """Experts (R, K) with R = B."""
        first_B1 = label_B.unsqueeze(1) * self.k
        return (first_B1 + torch.arange(self.k, device=label_B.device)) % self.experts
