"""AdamW and its learning-rate schedule."""

import math
from typing import Any

import torch

from moe_study.design.config import OptimizerConfig
from moe_study.model.transformer import Transformer


def build_optimizer(model: Transformer, config: OptimizerConfig, device: torch.device) -> torch.optim.AdamW:
    """AdamW over `model.decay_groups()`: matrices decay, biases and norms do not, frozen parameters are left out.

    Fused kernels where they exist for the device (on a CPU they take a fifth of foreach's time), else foreach.
    """
    decay, no_decay = model.decay_groups()
    groups = [
        {"params": decay, "weight_decay": config.weight_decay},
        {"params": no_decay, "weight_decay": 0.0},
    ]
    settings: dict[str, Any] = {"lr": config.lr, "betas": config.betas, "eps": config.eps}
    fused = device.type in ("cpu", "cuda")
    settings["fused" if fused else "foreach"] = True
    return torch.optim.AdamW([group for group in groups if group["params"]], **settings)


def learning_rate(step: int, total_steps: int, config: OptimizerConfig) -> float:
    """Rate for the update of `step` (from 0): linear warm-up to `lr`, then half a cosine down to `min_lr`.

    A pure function, so that a resumed run needs no scheduler state. The first update of the warm-up already
    has lr / warmup_steps, the first after it has lr, and the last of all has min_lr (SGDR, 1608.03983, eq. 5
    without restarts).
    """
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    last = total_steps - 1 - config.warmup_steps
    progress = min(1.0, (step - config.warmup_steps) / last) if last > 0 else 0.0
    return config.min_lr + 0.5 * (config.lr - config.min_lr) * (1.0 + math.cos(math.pi * progress))


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """The same rate for every group."""
    for group in optimizer.param_groups:
        group["lr"] = rate
