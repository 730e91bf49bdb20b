"""A trained dense network as a sum of experts: each takes some of the hidden units, none is changed.

With up weight W, down weight V and units cut into groups G_e, the dense network is
    V gelu(W x + b) + c  =  sum over e of V[:, G_e] gelu(W[G_e] x + b[G_e])  +  c,
so that every expert on gives the dense outputs, and the output bias c belongs to no expert.

The router is fitted, not trained: multinomial logistic regression from the layer's input to the share that
each expert's output has (by its length) in the sum, on a few batches of the training text. A threshold t then
means: experts until a share t of what the network is expected to put out. docs/LOG.md has the routers, and what
stands in for experts that are off, that were compared with it.

Shape suffixes: N rows (tokens), D width, H hidden units, E experts, F hidden units of an expert.
"""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from moe_study.design.config import RunConfig
from moe_study.design.routing import Routing, Selection, expert_hidden
from moe_study.model.gpt import GPT
from moe_study.model.mlp import MLP
from moe_study.model.moe.layer import MixtureLayer
from moe_study.model.moe.routing.router import ScoringRouter
from moe_study.posthoc.sparsify.lowering import Whole

FIT_ITERATIONS = 100
RIDGE = 1e-4  # weight of the squared router weights in its fit


class AffineRouter(ScoringRouter):
    """The linear router with a bias, which a fit on inputs that are not centred needs."""

    def __init__(self, weight_ED: Tensor, bias_E: Tensor, routing: Routing) -> None:
        super().__init__(weight_ED.shape[1], weight_ED.shape[0], routing)
        self.weights = nn.ParameterList([nn.Parameter(weight_ED)])
        self.bias_E = nn.Parameter(bias_E)

    def _score(self, states_BUD: Tensor) -> Tensor:
        logits_BUE = super()._score(states_BUD)
        return logits_BUE + self.bias_E.to(logits_BUE)


class Constant(nn.Module):
    """The dense network's output bias, added once for every token, whatever is picked."""

    def __init__(self, value_D: Tensor) -> None:
        super().__init__()
        self.value_D = nn.Parameter(value_D)

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.value_D.expand_as(x_BTD)


def as_split(config: RunConfig, experts: int) -> RunConfig:
    """The point of the design space that a dense run is after the split, every expert on."""
    hidden = expert_hidden(config.routing, config.model.hidden)
    routing = Routing(selection=Selection.ALL, num_experts=experts, expert_size=hidden // experts)
    return replace(config, routing=routing)


def split_ffn(dense: MLP, units_EF: np.ndarray, router: AffineRouter, config: RunConfig, layer: int) -> MixtureLayer:
    """The mixture layer that `dense` is when its hidden units are grouped by `units_EF`; `config` as split."""
    units = torch.from_numpy(units_EF).to(dense.up.weight.device)
    mixture = MixtureLayer(config.model, config.routing, layer, config.vocab_size).to(dense.up.weight)
    experts = mixture.experts
    with torch.no_grad():
        experts.up_EDF.copy_(dense.up.weight[units].mT)
        experts.down_EFD.copy_(dense.down.weight.T[units])
        if experts.up_bias_EF is not None:
            experts.up_bias_EF.copy_(dense.up.bias[units])
            experts.down_bias_ED = None
            mixture.shared = Constant(dense.down.bias.detach().clone())
    assert mixture.decider is not None
    mixture.decider.router = router
    mixture.decider.select = Whole(config.routing, len(units_EF))
    return mixture.eval()


def split_model(model: GPT, config: RunConfig, units_LEF: list[np.ndarray], inputs_LND: list[Tensor]) -> None:
    """Split every feed-forward network of `model` in place; `inputs_LND`: what each layer read on training text."""
    for layer, (dense, units_EF, x_ND) in enumerate(zip(dense_ffns(model), units_LEF, inputs_LND, strict=True)):
        router = AffineRouter(*fit_router(x_ND, output_shares(dense, units_EF, x_ND)), config.routing)
        model.blocks[layer].ffn = split_ffn(dense, units_EF, router.to(dense.up.weight), config, layer)


def dense_ffns(model: GPT) -> list[MLP]:
    """The feed-forward networks of a dense model."""
    return [block.ffn for block in model.blocks if isinstance(block.ffn, MLP)]


@torch.no_grad()
def read_inputs(model: GPT, batches: Iterable[Tensor]) -> list[Tensor]:
    """What each feed-forward network reads on batches of tokens (B, T): one (N, D) for each layer."""
    ffns = dense_ffns(model)
    seen: list[list[Tensor]] = [[] for _ in ffns]
    hooks = [
        ffn.register_forward_pre_hook(lambda _, inputs, kept=kept: kept.append(inputs[0].flatten(0, 1)))
        for ffn, kept in zip(ffns, seen, strict=True)
    ]
    for tokens_BT in batches:
        model(tokens_BT)
    for hook in hooks:
        hook.remove()
    return [torch.cat(kept) for kept in seen]


@torch.no_grad()
def output_shares(dense: MLP, units_EF: np.ndarray, x_ND: Tensor) -> Tensor:
    """Length of each expert's output over the sum of all lengths, (N, E)."""
    length_EN = []
    for units_F in torch.from_numpy(units_EF).to(x_ND.device):
        bias_F = None if dense.up.bias is None else dense.up.bias[units_F]
        h_NF = F.gelu(F.linear(x_ND, dense.up.weight[units_F], bias_F))
        length_EN.append(F.linear(h_NF, dense.down.weight[:, units_F]).norm(dim=1))
    length_NE = torch.stack(length_EN, 1)
    return length_NE / length_NE.sum(1, keepdim=True).clamp_min(torch.finfo(length_NE.dtype).tiny)


def fit_router(x_ND: Tensor, share_NE: Tensor) -> tuple[Tensor, Tensor]:
    """Weights (E, D) and biases (E,) whose softmax is nearest to the shares, by cross-entropy.

    A convex problem in float64, started at the mean share: the result is a function of the data alone.
    """
    x_ND, share_NE = x_ND.detach().double(), share_NE.detach().double()
    weight_ED = torch.zeros(share_NE.shape[1], x_ND.shape[1], dtype=x_ND.dtype, device=x_ND.device)
    bias_E = share_NE.mean(0).clamp_min(1e-9).log()
    parameters = [weight_ED.requires_grad_(), bias_E.requires_grad_()]
    optimizer = torch.optim.LBFGS(parameters, max_iter=FIT_ITERATIONS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(F.linear(x_ND, weight_ED, bias_E), share_NE) + RIDGE * weight_ED.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return weight_ED.detach(), bias_E.detach()
