"""Small models of every committed routing, trained for a moment so that all their state has moved."""

import dataclasses
from collections.abc import Iterator

import torch
from torch import Tensor

from moe_study.audit.shrink import shrink
from moe_study.design.config import RunConfig
from moe_study.model.gpt import GPT
from moe_study.sweeps.compose import Composer
from moe_study.sweeps.conf import project_root
from moe_study.training.models import build_model

ROUTINGS = sorted(path.stem for path in (project_root() / "conf" / "routing").glob("*.yaml"))
END = 0  # of text


def small_config(composer: Composer, routing: str, **model: object) -> RunConfig:
    """The committed routing as it is audited: every axis as it is, sizes small."""
    config = shrink(composer.run_config([f"routing={routing}"]))
    return dataclasses.replace(config, model=dataclasses.replace(config.model, init_std=0.3, **model))  # type: ignore[arg-type]


def small_model(config: RunConfig, steps: int = 2) -> GPT:
    """A model that some steps have changed, buffers included; in evaluation mode."""
    model = build_model(config, END)
    assert isinstance(model, GPT)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    model.train()
    for step in range(steps):
        model.begin_step(step)
        tokens_BT = texts(config, config.run.batch_size, seed=step)
        output = model(tokens_BT[:, :-1], tokens_BT[:, 1:], label_B=labels(len(tokens_BT)))
        assert output.loss is not None
        (output.loss + output.aux_loss).backward()
        optimizer.step()
        optimizer.zero_grad()
        model.end_step()
    return model.eval()


def texts(config: RunConfig, rows: int = 3, length: int | None = None, seed: int = 7) -> Tensor:
    shape = (rows, length or config.model.context)
    return torch.randint(1, config.vocab_size, shape, generator=torch.Generator().manual_seed(seed))


def labels(rows: int) -> Tensor:
    return torch.arange(rows) % 3


def lengths_of(config: RunConfig) -> Iterator[int]:
    """Of texts to compare on: one token, some, and all that fit."""
    yield from (1, config.model.context // 2, config.model.context)
