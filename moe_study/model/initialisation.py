"""GPT-2's initialisation at every width, with a random stream of its own for every tensor.

Each tensor is drawn from a stream keyed by (seed, name, expert), so its values depend on nothing else: two
runs of one seed that differ only in routing start with equal embeddings and attention ("paired seeds"),
expert e starts equal whatever the number of experts, and expert 0 starts equal to the dense network whose
place it takes.

Draws are made by numpy on the CPU in float32: the same on every device, independent of torch's global random
state (which they leave alone), and keyed by 128 bits where torch's CPU generator keeps 32 of its seed.

Scheme (Radford et al. 2019; nanoGPT): weights N(0, std), those that write into the residual stream
N(0, std / sqrt(2 * layers)), biases 0, LayerNorm 1; std is `ModelConfig.weight_std`, 0.02 at GPT-2's width of 768.
"""

import hashlib
import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor, nn

from moe_study.design.config import ModelConfig


class Linear(nn.Linear):
    """nn.Linear left empty until `initialise`. `residual`: its output is added to the residual stream."""

    def __init__(self, inputs: int, outputs: int, bias: bool, residual: bool = False) -> None:
        super().__init__(inputs, outputs, bias=bias)
        self.residual = residual

    def reset_parameters(self) -> None:
        """Nothing: the default draws would cost time and move torch's global random state."""


class Embedding(nn.Embedding):
    """nn.Embedding left empty until `initialise`."""

    def reset_parameters(self) -> None:
        """Nothing, as in `Linear`."""


def init_normal_(tensor: Tensor, std: float, name: str, seed: int, expert: int = 0) -> Tensor:
    """Fill `tensor` in place with N(0, std) from the stream of (seed, name, expert); on meta do nothing."""
    if tensor.is_meta:
        return tensor
    digest = hashlib.sha256(f"{seed}/{name}/{expert}".encode()).digest()
    generator = np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "big")))
    values = generator.standard_normal(tuple(tensor.shape), dtype=np.float32)
    with torch.no_grad():
        tensor.copy_(torch.from_numpy(values)).mul_(std)
    return tensor


def init_experts_(stack: Tensor, std: float, name: str, seed: int, transpose: bool = False) -> Tensor:
    """Fill stacked weights (E, ...) in place, every expert from its own stream, on torch's number of threads.

    `name` is the dense weight's, such as blocks.0.ffn.up.weight. With `transpose`, each slice holds the
    transposed weight of nn.Linear, (inputs, outputs).
    """
    weights = stack.detach()

    def fill(expert: int) -> None:
        init_normal_(weights[expert].mT if transpose else weights[expert], std, name, seed, expert)

    with ThreadPoolExecutor(torch.get_num_threads()) as threads:  # numpy lets go of the interpreter while it draws
        list(threads.map(fill, range(len(stack))))
    return stack


class Initialiser:
    """Draws a model's parameters; what modules get to fill themselves with."""

    def __init__(self, seed: int, model: ModelConfig) -> None:
        self.seed = seed
        self.std = model.weight_std
        self.residual_std = self.std / math.sqrt(2 * model.layers)

    def normal_(self, tensor: Tensor, name: str, residual: bool = False) -> Tensor:
        return init_normal_(tensor, self.residual_std if residual else self.std, name, self.seed)

    def experts_(self, stack: Tensor, name: str, residual: bool = False, transpose: bool = False) -> Tensor:
        std = self.residual_std if residual else self.std
        return init_experts_(stack, std, name, self.seed, transpose)

    def module(self, module: nn.Module, prefix: str) -> None:
        """Initialise a module and all below it.

        A module that defines `initialise(init: Initialiser, prefix: str)` fills every parameter below itself;
        linear, embedding and normalisation layers are known here; others are descended into.
        """
        custom = getattr(module, "initialise", None)
        if custom is not None:
            custom(self, prefix)
        elif isinstance(module, nn.Linear | nn.Embedding):
            self.normal_(module.weight, f"{prefix}.weight", getattr(module, "residual", False))
            if getattr(module, "bias", None) is not None:
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]
        elif isinstance(module, nn.LayerNorm):
            module.reset_parameters()
        else:
            for name, child in module.named_children():
                self.module(child, f"{prefix}.{name}" if prefix else name)


def initialise(model: nn.Module, config: ModelConfig, seed: int) -> None:
    """Fill every parameter of `model` as a function of its name, `config` and `seed`.

    Raises RuntimeError when a module left one of its parameters unfilled.
    """
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(torch.nan)
    init = Initialiser(seed, config)
    for name, child in model.named_children():
        init.module(child, name)
    for name, parameter in model.named_parameters():
        if not parameter.is_meta and parameter.isnan().any():
            raise RuntimeError(f"parameter {name} was left uninitialised by its module")
