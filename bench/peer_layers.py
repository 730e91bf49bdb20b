"""The peers' layers, each with the dense network of its own kind, built through the packages' own classes.

Nothing of a peer is copied in, and none is imported before a row asks for it. Dense twins come from the same package
where it has one; one that is written out says so. Hugging Face's are in bench/peer_transformers.py.

Shape suffixes: B sequences, T positions, D width, N = B * T tokens, K picks.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from bench.sides import Setting
from moe_study.design.routing import Gate, Routing, Selection, Soft

GATED_STEP = 32  # sizes that matrix products like


@dataclass(frozen=True)
class Shape:
    """Experts, experts per token, hidden units of an expert."""

    experts: int
    k: int
    size: int

    def __str__(self) -> str:
        return f"{self.experts}x{self.k}"

    @property
    def active(self) -> int:
        """Hidden units that a token meets, and so of the dense twin."""
        return self.k * self.size

    @property
    def gated(self) -> "Shape":
        """The same for gated experts, which have three matrices for our two: as many FLOPs, in whole 32s of units."""
        return replace(self, size=-(-self.size * 2 // (3 * GATED_STEP)) * GATED_STEP)


Builder = Callable[[Shape, Setting], nn.Module]


@dataclass(frozen=True)
class Peer:
    """Somebody's mixture layer. `pairs` are the (N, K) that it manages at a benchmark's size."""

    package: str
    block: str
    layer: Builder
    dense: Builder
    ours: Callable[[Shape], Routing]  # the same point in this project
    pairs: tuple[tuple[int, int], ...]
    bias: bool = True  # whether its experts have biases; ours then have them, too
    note: str = ""
    kept: Callable[[nn.Module, Tensor], float] | None = None  # experts per token; None: K, nothing is dropped

    def row(self, shape: Shape) -> str:
        return f"{self.package} {self.block} {shape}"


def top_k(gate: Gate, shape: Shape, shared: int = 0, renormalise: bool = False) -> Routing:
    """Our layer of that shape, `shared` of whose K experts serve every token. One pick has one gate with a gradient."""
    picks = shape.k - shared
    return Routing(
        num_experts=shape.experts,
        k=picks,
        expert_size=shape.size,
        gate=gate if picks > 1 else Gate.SOFTMAX_THEN_PICK,
        renormalise=renormalise and picks > 1,
        shared_experts=shared,
    )


# mixture-of-experts and st-moe-pytorch: einsum over one-hot tensors, with a capacity


def mixture_of_experts(capacity: float, shape: Shape, setting: Setting) -> nn.Module:
    package = importlib.import_module("mixture_of_experts")
    return package.MoE(
        dim=setting.width,
        num_experts=shape.experts,
        hidden_dim=shape.size,
        activation=nn.GELU,
        second_policy_train="all",
        capacity_factor_train=capacity_factor(capacity, shape),
    )


def mixture_of_experts_dense(shape: Shape, setting: Setting) -> nn.Module:
    module = importlib.import_module("mixture_of_experts.mixture_of_experts")
    return OneExpert(module.Experts(setting.width, 1, shape.active, nn.GELU))


class OneExpert(nn.Module):
    """Stacked experts, of which there is one, on every token."""

    def __init__(self, experts: nn.Module) -> None:
        super().__init__()
        self.experts = experts

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.experts(x_BTD.flatten(0, 1).unsqueeze(0)).view_as(x_BTD)


def st_moe(capacity: float, shape: Shape, setting: Setting) -> nn.Module:
    return importlib.import_module("st_moe_pytorch").MoE(
        dim=setting.width,
        num_experts=shape.experts,
        expert_hidden_mult=geglu_mult(shape.gated.size, setting),
        gating_top_n=shape.k,
        threshold_train=0.0,  # no pick is left out by chance
        capacity_factor_train=capacity_factor(capacity, shape),
    )


def st_moe_dense(shape: Shape, setting: Setting) -> nn.Module:
    module = importlib.import_module("st_moe_pytorch.st_moe_pytorch")
    return module.Expert(dim=setting.width, hidden_mult=geglu_mult(shape.gated.active, setting))


def geglu_mult(size: int, setting: Setting) -> float:
    """The multiple that st-moe-pytorch makes `size` hidden units of: it takes two thirds of it and rounds down."""
    return (size + 0.5) / setting.width * 1.5


def capacity_factor(capacity: float, shape: Shape) -> float:
    """What both packages call capacity factor: of one pick a token, where ours is of K."""
    return capacity * shape.k


def kept_by_dispatch(layer: nn.Module, x_BTD: Tensor) -> float:
    """Experts a token, by the dispatch tensor of the layer's gate: zero or one for token, expert and place."""
    dispatch = layer.gate(x_BTD)[0]  # type: ignore[operator]
    return float((dispatch > 0.5).sum()) / x_BTD[..., 0].numel()


def with_capacity(
    package: str, layer: Callable[..., nn.Module], dense: Builder, pairs: tuple[tuple[int, int], ...], bias: bool
) -> list[Peer]:
    """Rows of a package that has capacities: with 1.25 times the mean load, and with room for every pick."""
    ours = partial(top_k, Gate.PICK_THEN_SOFTMAX)
    some = "capacity 1.25 times the mean load of a sequence: what does not fit is dropped"
    every = "room for every token at every expert: nothing is dropped, and every expert is run on as many rows"
    return [
        Peer(package, "dropping", partial(layer, 1.25), dense, ours, pairs, bias, some, kept_by_dispatch),
        Peer(package, "dropless", partial(layer, 4.0), dense, ours, ((8, 2),), bias, every, kept_by_dispatch),
    ]


# soft-moe-pytorch

SLOTS = 256  # of a sequence, over all experts


def soft_moe(shape: Shape, setting: Setting) -> nn.Module:
    return importlib.import_module("soft_moe_pytorch").SoftMoE(
        dim=setting.width,
        num_experts=shape.experts,
        num_slots=SLOTS // shape.experts,
        expert_mult=shape.size / setting.width,
    )


def soft_moe_dense(shape: Shape, setting: Setting) -> nn.Module:
    module = importlib.import_module("soft_moe_pytorch.soft_moe")
    return module.FeedForward(setting.width, mult=shape.active / setting.width)


def our_soft(shape: Shape) -> Routing:
    return Routing(
        selection=Selection.SOFT,
        num_experts=shape.experts,
        expert_size=shape.size,
        soft=Soft(slots_per_expert=SLOTS // shape.experts),
    )


# MegaBlocks and ScatterMoE, by their documentation; both need a GPU


def megablocks(shape: Shape, setting: Setting) -> nn.Module:
    arguments = importlib.import_module("megablocks.layers.arguments").Arguments(
        hidden_size=setting.width,
        ffn_hidden_size=shape.size,
        moe_num_experts=shape.experts,
        moe_top_k=shape.k,
        moe_loss_weight=0.0,  # else it keeps a list of every pass
        bias=False,
        return_bias=False,
        fp16=False,
        bf16=setting.precision != "fp32",
        device=torch.device(setting.device),
    )
    return importlib.import_module("megablocks.layers.dmoe").dMoE(arguments)


class ScatterMoE(nn.Module):
    """ScatterMoE's experts behind the router of its documentation's example."""

    def __init__(self, shape: Shape, setting: Setting) -> None:
        super().__init__()
        mlp = importlib.import_module("scattermoe.mlp").MLP
        self.router = nn.Linear(setting.width, shape.experts, bias=False)
        self.experts = mlp(setting.width, shape.size, shape.experts, shape.k, activation=nn.GELU())
        self.k = shape.k

    def forward(self, x_BTD: Tensor) -> Tensor:
        x_ND = x_BTD.flatten(0, 1)
        weight_NK, expert_NK = self.router(x_ND).float().softmax(-1).topk(self.k)
        return self.experts(x_ND, weight_NK.to(x_ND.dtype), expert_NK).view_as(x_BTD)


def plain_dense(shape: Shape, setting: Setting) -> nn.Module:
    """A GELU network without biases."""
    up, down = nn.Linear(setting.width, shape.active, bias=False), nn.Linear(shape.active, setting.width, bias=False)
    return nn.Sequential(up, nn.GELU(approximate="tanh"), down)


EVERY_PAIR = ((8, 1), (8, 2), (64, 8), (512, 8))
SOFTMAX = partial(top_k, Gate.SOFTMAX_THEN_PICK)
CPU_PEERS = [
    *with_capacity("mixture-of-experts", mixture_of_experts, mixture_of_experts_dense, ((8, 2),), bias=False),
    *with_capacity("st-moe-pytorch", st_moe, st_moe_dense, ((8, 2), (64, 8)), bias=True),
    Peer("soft-moe-pytorch", "soft", soft_moe, soft_moe_dense, our_soft, ((8, 1), (64, 1))),
]
GPU_PEERS = [
    Peer("megablocks", "dmoe", megablocks, plain_dense, SOFTMAX, EVERY_PAIR, bias=False),
    Peer("scattermoe", "mlp", ScatterMoE, plain_dense, SOFTMAX, EVERY_PAIR, bias=False),
]
