"""`audit(config)`: the causality of a configuration, measured on small sharpened models of it.

Shape suffixes: B sequences, T positions.
"""

import functools
import math
import operator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from moe_study.audit.cache import AuditCache
from moe_study.audit.measure import Draw, Function, Measured, measure
from moe_study.audit.shrink import TOKENS_PER_ROW, batch_sizes, shrink
from moe_study.design.causality import depends_on_length, size_of, verdict_of
from moe_study.design.config import RunConfig
from moe_study.design.verdict import Verdict
from moe_study.model.gpt import GPT
from moe_study.model.moe.routing.router import CosineRouter, ScoringRouter
from moe_study.model.moe.slots import SlotScores

TRIALS = 32  # models, of which a leak shows in a third or more
SHARPNESS = (2.0, 6.0, 20.0)  # standard deviations of the router's logits, in turn
RUN_TRIALS = 16  # the same for a run's result: half a second
WARM_UPS = 3  # training steps without an optimizer, for state that moves outside the gradient


@dataclass(frozen=True)
class Audit:
    """A point's declared causality beside the measured one."""

    declared: Verdict
    measured: Measured
    by_length: bool = False  # declared: the number of tokens counts, though no later one is read

    @property
    def agrees(self) -> bool:
        """Same verdict; and a shorter window is the beginning of a longer one, unless the type says otherwise."""
        return self.declared == self.measured.verdict and not self.depends_on_length

    @property
    def depends_on_length(self) -> bool:
        """Whether a shorter window was treated in another way, and neither a leak nor the type explains it."""
        return self.measured.truncation.leaks and not (self.declared.leaks or self.by_length)


def audit(config: RunConfig, trials: int = TRIALS, kept: AuditCache | None = None) -> Audit:
    """Measure a valid configuration, at a small size (`shrink`), in float64 and evaluation mode.

    Many points of a sweep are one point when small: what was measured is remembered in this process, and in `kept`.
    """
    small = shrink(config)
    cell = small.key, trials
    measured = _measured.get(cell)
    if measured is None and kept is not None:
        measured = kept.read(*cell)
    if measured is None:
        measured = functools.reduce(operator.or_, (trial(small, number) for number in range(trials)))
        if kept is not None:
            kept.write(*cell, measured)
    _measured[cell] = measured
    return Audit(verdict_of(config), measured, depends_on_length(config.routing, *size_of(config)))


_measured: dict[tuple[str, int], Measured] = {}


def trial(small: RunConfig, number: int) -> Measured:
    """One trial of an audit: one sharpened model, one batch and its replacements, all drawn by `number`."""
    model = sharp_model(small, number)
    sizes = batch_sizes(small)
    draw = Draw(
        sizes[number % len(sizes)],
        small.model.context,
        TOKENS_PER_ROW,
        seed=number,
        end_of_text=small.vocab_size - 1 if small.model.document_attention else None,
    )
    with torch.random.fork_rng(devices=[]):  # the caller's stream stays where it is
        torch.manual_seed(number)
        warm_up(model, draw)
    return measure(logits(model), draw)


def logits(model: GPT) -> Function:
    def function(tokens_BT: Tensor, label_B: Tensor) -> Tensor:
        output = model(tokens_BT, label_B=label_B)
        assert output.logits_BTV is not None
        return output.logits_BTV

    return function


def sharp_model(config: RunConfig, seed: int) -> GPT:
    """The model in float64 and evaluation mode, with weights that make decisions sharp and tokens differ."""
    model = GPT(config.model, config.routing, config.vocab_size, seed=seed, end_of_text=config.vocab_size - 1)
    model = model.double().eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(_values(name, parameter, generator))
        for module in model.modules():
            _sharpen(module, SHARPNESS[seed % len(SHARPNESS)])
    return model


def _sharpen(module: nn.Module, size: float) -> None:
    """Make a router's logits about `size` large."""
    for parameter in _logit_sizes(module):
        parameter.mul_(size)
    if isinstance(module, CosineRouter):
        module.log_temperature.fill_(-math.log(size))


def _logit_sizes(module: nn.Module) -> list[nn.Parameter]:
    """The parameters that a router's logits are proportional to."""
    if isinstance(module, ScoringRouter):
        return [module.weights[-1], *([] if module.prior_E is None else [module.prior_E])]
    if isinstance(module, SlotScores):
        return [module.phi_SD if module.scale is None else module.scale]
    return []


def _values(name: str, parameter: nn.Parameter, generator: torch.Generator) -> Tensor:
    """Random values of the size that keeps every layer's output near 1; LayerNorm's weights stay near 1."""
    values = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    if parameter.ndim < 2:
        return 1 + 0.3 * values if name.endswith(("weight", "scale")) else values
    if "embedding" in name or "bias" in name.rpartition(".")[2]:
        return values
    fan_in = parameter.shape[-2] if parameter.ndim == 3 else parameter.shape[-1]
    return values / math.sqrt(fan_in)


@torch.no_grad()
def warm_up(model: GPT, draw: Draw) -> None:
    """Training passes that move what training moves outside the gradient: biases, cutoffs, redrawn routers."""
    model.train()
    for step in range(WARM_UPS):
        model.begin_step(step)
        model(draw.tokens(), label_B=draw.label())
        model.end_step()
    model.eval()
