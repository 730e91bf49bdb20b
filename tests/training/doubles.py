"""Tiny stand-ins for the model and the corpus, so that the tests of training depend on training alone."""

import contextlib
from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from moe_study.design.config import (
    DataConfig,
    LogConfig,
    ModelConfig,
    OptimizerConfig,
    RunConfig,
    RunSettings,
    TokenizerConfig,
)
from moe_study.design.routing import Routing
from moe_study.model.forward_pass import RoutingStats

VOCAB, WIDTH, EXPERTS, CONTEXT = 23, 8, 4, 12


@dataclass
class Output:
    loss: Tensor | None
    aux_loss: Tensor
    aux: dict[str, Tensor] = field(default_factory=dict)
    stats: list[RoutingStats] = field(default_factory=list)
    logits_BTV: Tensor | None = None
    token_loss_BT: Tensor | None = None
    correct_BT: Tensor | None = None


class TinyModel(nn.Module):
    """Embedding, one top-1 mixture layer with dropout and router noise, a head; bias outside the gradient."""

    def __init__(self, seed: int = 0, dropout: float = 0.2, noise: float = 0.5, aux_weight: float = 0.01):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        draw = lambda *shape: nn.Parameter(0.3 * torch.randn(shape, generator=generator))  # noqa: E731
        self.embedding, self.router = draw(VOCAB, WIDTH), draw(EXPERTS, WIDTH)
        self.w_EDD, self.bias_E = draw(EXPERTS, WIDTH, WIDTH), draw(EXPERTS)
        self.register_buffer("usage_E", torch.zeros(EXPERTS))
        self.register_buffer("redrawn_ED", torch.zeros(EXPERTS, WIDTH))
        self.dropout, self.noise, self.aux_weight = nn.Dropout(dropout), noise, aux_weight

    def begin_step(self, step: int) -> None:
        generator = torch.Generator().manual_seed(1000 + step)
        self.redrawn_ED.copy_(0.1 * torch.randn(EXPERTS, WIDTH, generator=generator))

    def end_step(self, reducer=None) -> None:
        self.usage_E.mul_(0.9)

    def decay_groups(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        parameters = [p for p in self.parameters() if p.requires_grad]
        return [p for p in parameters if p.ndim > 1], [p for p in parameters if p.ndim < 2]

    def forward(self, tokens_BT, targets_BT=None, *, label_B=None, detail=False, per_token=False, **_):
        x_BTD = self.dropout(F.embedding(tokens_BT, self.embedding)).cumsum(1)
        logits_BTE = x_BTD @ (self.router + self.redrawn_ED).T
        if self.training:
            logits_BTE = logits_BTE + self.noise * torch.randn_like(logits_BTE)
        gate_BTE = logits_BTE.softmax(-1)
        weight_BT, pick_BT = gate_BTE.max(-1)
        y_BTD = torch.einsum("btd,btde->bte", x_BTD, self.w_EDD[pick_BT]) * weight_BT.unsqueeze(-1)
        logits_BTV = (x_BTD + y_BTD + self.bias_E[pick_BT].unsqueeze(-1)) @ self.embedding.T
        kept_BTE = F.one_hot(pick_BT, EXPERTS)
        if self.training:
            self.usage_E += kept_BTE.sum((0, 1))
        aux = (gate_BTE.mean((0, 1)) ** 2).sum()
        loss_BT = F.cross_entropy(logits_BTV.transpose(1, 2), targets_BT, ignore_index=-1, reduction="none")
        valid = (targets_BT >= 0).sum()
        rows = torch.tensor(tokens_BT.numel())
        stats = RoutingStats(
            layer=0,
            kept_E=kept_BTE.sum((0, 1)),
            kept_BE=kept_BTE.sum(1) if detail else None,
            weight_BE=(kept_BTE * weight_BT.detach().unsqueeze(-1)).sum(1) if detail else None,
            wanted=rows,
            executed=rows,
            entropy=-(gate_BTE * gate_BTE.log()).sum(-1).mean().detach(),
            tokens=tokens_BT.numel(),
        )
        return Output(
            loss=loss_BT.sum() / valid,
            aux_loss=self.aux_weight * aux,
            aux={"switch": aux.detach()},
            stats=[stats],
            token_loss_BT=loss_BT.detach() if per_token else None,
        )


@dataclass(frozen=True)
class Batch:
    inputs_BT: np.ndarray
    targets_BT: np.ndarray
    language_B: np.ndarray
    topic_B: np.ndarray


class TinySampler:
    """Repeating patterns that can be learnt; a pure function of (seed, step)."""

    def __init__(self, batch_size: int, seed: int, ignore: float = 0.0):
        self.batch_size, self.seed, self.ignore = batch_size, seed, ignore

    def batch(self, step: int) -> Batch:
        rng = np.random.default_rng([self.seed, step])
        start_B1 = rng.integers(VOCAB, size=(self.batch_size, 1))
        stride_B1 = rng.integers(1, 4, size=(self.batch_size, 1))
        tokens_BT = (start_B1 + stride_B1 * np.arange(CONTEXT + 1)) % VOCAB
        targets_BT = tokens_BT[:, 1:].copy()
        targets_BT[rng.random(targets_BT.shape) < self.ignore] = -1
        return Batch(tokens_BT[:, :-1].copy(), targets_BT, stride_B1[:, 0] % 2, start_B1[:, 0] % 3)


@dataclass
class TinyCorpus:
    """What `open_corpus` gives back, as far as training reads it."""

    fingerprint: str = "f" * 64
    vocab_size: int = VOCAB
    end_of_text: int = 0
    languages: tuple[str, ...] = ("de", "en")
    topics: tuple[str, ...] = ("law", "news", "talk")
    train: SimpleNamespace = field(default_factory=lambda: SimpleNamespace(seed=0))
    validation: SimpleNamespace = field(default_factory=lambda: SimpleNamespace(seed=99))

    @property
    def token_bytes_V(self) -> np.ndarray:
        return np.arange(VOCAB) % 5


def tiny_validation(split, context: int, batch_size: int, max_tokens: int):
    """The same sequences whatever the batch size."""
    whole = TinySampler(max_tokens // context, split.seed).batch(0)
    for start in range(0, len(whole.inputs_BT), batch_size):
        yield Batch(*(getattr(whole, name)[start : start + batch_size] for name in Batch.__dataclass_fields__))


class TinyTask:
    """What `task_of` gives back."""

    def open(self, config: RunConfig) -> TinyCorpus:
        return TinyCorpus()

    def training(self, config: RunConfig, data: TinyCorpus) -> TinySampler:
        return TinySampler(config.run.batch_size, config.run.seed)

    def validation(self, config: RunConfig, data: TinyCorpus):
        return tiny_validation(data.validation, config.model.context, config.run.eval_batch, config.run.eval_tokens)


def tiny_config(tmp_path, *, dropout=0.2, log=None, optimizer=None, **run) -> RunConfig:
    """A run of a second; keyword arguments go to the section `run`."""
    settings = {"steps": 20, "batch_size": 6, "eval_every": 7, "eval_tokens": 20 * CONTEXT, "eval_batch": 8}
    every = {"log_every": 3, "routing_every": 5, "gradients_every": 5, "checkpoint_every": 4}
    quiet = {"runs_dir": str(tmp_path / "runs"), "threads": 1, "progress": False}
    return RunConfig(
        model=ModelConfig(layers=1, heads=1, width=WIDTH, context=CONTEXT, dropout=dropout),
        routing=Routing(num_experts=EXPERTS),
        data=DataConfig(name="tiny", recipe="tiny", tokenizer=TokenizerConfig("bpe", VOCAB)),
        optimizer=OptimizerConfig(**({"warmup_steps": 3, "lr": 1e-2, "min_lr": 1e-3} | (optimizer or {}))),
        run=RunSettings(**(settings | run)),
        log=LogConfig(**(every | quiet | (log or {}))),
    )


@contextlib.contextmanager
def doubles(model=TinyModel):
    """Inside, `train` runs on the stand-ins."""
    from moe_study.training import run

    before = {name: getattr(run, name) for name in ("task_of", "build_model")}
    run.task_of = lambda config: TinyTask()
    run.build_model = lambda config, end_of_text: model(config.run.seed, config.model.dropout)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(run, name, value)
