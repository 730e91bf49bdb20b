"""What the benchmarks of layers time: feed-forward layers with an input, run forward and backward.

Shape suffixes: B sequences, T positions, D width, E experts.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from moe_study.design.config import GPT2_STD, ModelConfig
from moe_study.design.routing import Routing, Scope, expert_hidden
from moe_study.model.forward_pass import ForwardPass
from moe_study.model.initialisation import Initialiser
from moe_study.model.mlp import MLP
from moe_study.model.moe.build import build_ffn
from moe_study.training.device import autocast

VOCABULARY = 50257  # for routing by token id
DENSE_HIDDEN = 1024  # four times the width
PURE_BF16 = "pure_bf16"  # weights and input in bfloat16; "bf16" is autocast, as the training loop computes
PRECISIONS = ("fp32", "bf16", PURE_BF16)


@dataclass(frozen=True)
class Setting:
    """The size that a layer is timed at, and where."""

    width: int = 256
    dense_hidden: int = DENSE_HIDDEN  # and of an expert whose size is not given
    sequences: int = 32
    length: int = 256
    bias: bool = True
    device: str = "cpu"
    precision: str = "fp32"  # one of PRECISIONS

    @property
    def tokens(self) -> int:
        return self.sequences * self.length

    def model(self, layers: int) -> ModelConfig:
        return ModelConfig(
            layers, heads=1, width=self.width, context=self.length, ffn_size=self.dense_hidden, bias=self.bias
        )


class Side:
    """A module with its input: a call runs it forward and backward, gradients of input and weights included."""

    def __init__(self, module: nn.Module, x_BTD: Tensor, precision: str = "fp32") -> None:
        dtype = torch.bfloat16 if precision == PURE_BF16 else torch.float32
        self.module, self.x_BTD = module.to(x_BTD.device, dtype), x_BTD.to(dtype)
        self.autocast = "bf16" if precision == "bf16" else "fp32"
        self.grad_BTD = torch.randn(x_BTD.shape, generator=torch.Generator().manual_seed(1)).to(self.x_BTD)

    def __call__(self) -> None:
        x_BTD = self.x_BTD.detach().requires_grad_()
        self.module.zero_grad(set_to_none=True)
        with autocast(x_BTD.device, self.autocast):
            y_BTD = self.module(x_BTD)
        self.grad_BTD = self.grad_BTD.to(y_BTD.dtype)  # the first time only
        y_BTD.backward(self.grad_BTD)


class Layers(nn.Module):
    """Feed-forward layers one after the other, in one forward pass, so that scope=global has others to decide for."""

    def __init__(self, layers: list[nn.Module], tokens_BT: Tensor) -> None:
        super().__init__()
        self.layers, self.tokens_BT = nn.ModuleList(layers), tokens_BT
        model = ModelConfig(layers=len(layers), init_std=GPT2_STD)  # so do all results that are kept
        for number, layer in enumerate(layers):
            Initialiser(0, model).module(layer, f"blocks.{number}.ffn")
        self.kept: Tensor | None = None  # pairs of tokens and experts in the last pass

    def forward(self, x_BTD: Tensor) -> Tensor:
        forward_pass = ForwardPass(self.tokens_BT)
        for layer in self.layers:
            x_BTD = layer(x_BTD, forward_pass)
        self.kept = forward_pass.stats[0].kept_E if forward_pass.stats else None
        return x_BTD


def random_input(setting: Setting) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(setting.sequences, setting.length, setting.width, generator=generator).to(setting.device)


def mixture(routing: Routing, setting: Setting) -> Side:
    """The mixture layer of `routing`, or its `layers_of`."""
    count = layers_of(routing)
    model = setting.model(count)
    layers = [build_ffn(model, routing, number, VOCABULARY) for number in range(count)]
    shape = (setting.sequences, setting.length)
    tokens_BT = torch.randint(VOCABULARY, shape, generator=torch.Generator().manual_seed(2)).to(setting.device)
    return Side(Layers(layers, tokens_BT), random_input(setting), setting.precision)


def layers_of(routing: Routing) -> int:
    """Layers that are timed together: two where one decides for both."""
    return 2 if routing.scope is Scope.GLOBAL else 1


def dense(hidden: int, setting: Setting, layers: int = 1) -> Side:
    """The dense layer of `hidden` units, or several."""
    networks: list[nn.Module] = [MLP(setting.width, hidden, setting.bias, dropout=0.0) for _ in range(layers)]
    tokens_BT = torch.zeros(setting.sequences, setting.length, dtype=torch.long, device=setting.device)
    return Side(Layers(networks, tokens_BT), random_input(setting), setting.precision)


def twin_hidden(routing: Routing, setting: Setting) -> int:
    """Hidden units of the dense twin: as many as a token's experts have together."""
    return (routing.k + routing.shared_experts) * expert_hidden(routing, setting.dense_hidden)


def kept_per_expert(side: Side) -> Tensor:
    """Tokens that each expert of the (first) layer takes, (E,)."""
    with torch.no_grad():
        side.module(side.x_BTD)
    return kept_in_last_pass(side)


def kept_in_last_pass(side: Side) -> Tensor:
    """The same of the pass that was run last, so that what was timed need not be run again."""
    assert isinstance(side.module, Layers) and side.module.kept is not None
    return side.module.kept
