"""A run's configuration as frozen dataclasses, read from Hydra's output once, at the entry point.

Everything below the entry point sees these types only. What makes two configurations the same run stands in
identity.py.
"""

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from moe_study.design import identity
from moe_study.design.data_config import IMAGE_RECIPES, DataConfig, TokenizerConfig
from moe_study.design.plain import from_plain
from moe_study.design.routing import Routing

__all__ = [
    "IMAGE_RECIPES",
    "DataConfig",
    "Embeddings",
    "LogConfig",
    "ModelConfig",
    "OptimizerConfig",
    "RunConfig",
    "RunSettings",
    "TokenizerConfig",
    "read_record",
]

class Embeddings(StrEnum):
    """What becomes of the vectors that the model reads tokens as; positions are always learned.

    2402.13089 freezes or redraws routers alone: what they read goes on learning, and can learn to be routed well by a
    router that does not. With frozen embeddings a token's vector keeps its place for good, and only what attention
    and the blocks add to it can move it. Redrawn is the floor: no token keeps its vector from one step to the next, so
    what is left to learn is how frequent tokens are and how they repeat.

    Both need a head of their own (`tied_head=false`), since a tied one would be frozen or redrawn, too, and the
    model could not learn its answers, whatever its router does. (Tied and redrawn is another question: a lexinvariant
    language model, 2305.16349, reads tokens by how they repeat.)
    """

    LEARNED = "learned"
    FROZEN = "frozen"  # as they were drawn: no gradient, no weight decay
    REDRAWN = "redrawn"  # drawn anew at every training step; evaluation reads those of the last step begun


GPT2_WIDTH, GPT2_STD = 768, 0.02  # of the smallest GPT-2 (Radford et al. 2019)


@dataclass(frozen=True)
class ModelConfig:
    """GPT-2 (Radford et al. 2019) in nanoGPT's shape."""

    layers: int = 3
    heads: int = 3
    width: int = 96
    context: int = 128  # positions T
    ffn_size: int | None = None  # hidden units of the dense feed-forward network; None: 4 * width
    dropout: float = 0.0
    bias: bool = True
    document_attention: bool = False  # True: attention and positions never cross a document boundary
    vocab_size: int | None = None  # None: the tokenizer's; larger pads the embedding
    patch: int | None = None  # task=images: pixels along the edge of a patch, of which `context` make an image
    init_std: float | None = None  # standard deviation of initial weights; None: by width, see weight_std
    embeddings: Embeddings = Embeddings.LEARNED  # of tokens
    tied_head: bool = True  # the output head is the token embedding; false: weights of its own, drawn as equals

    @property
    def hidden(self) -> int:
        """Hidden units of the dense feed-forward network."""
        return self.ffn_size if self.ffn_size is not None else 4 * self.width

    @property
    def weight_std(self) -> float:
        """Standard deviation of initial weights.

        By width it is 0.02 * sqrt(768 / width): the inverse root of a layer's inputs (LeCun et al. 1998, "Efficient
        BackProp", section 4.6), which makes activations, logits and router scores start equally large at every
        width, with the factor that gives GPT-2's 0.02 at its width of 768.
        """
        return self.init_std if self.init_std is not None else GPT2_STD * math.sqrt(GPT2_WIDTH / self.width)


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW with a cosine schedule after a linear warm-up."""

    lr: float = 1e-3
    min_lr: float = 1e-4
    warmup_steps: int = 100
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    weight_decay: float = 0.1
    grad_clip: float = 1.0  # 0: off


@dataclass(frozen=True)
class RunSettings:
    seed: int = 0  # initialisation and data order
    steps: int | None = None  # optimizer steps, or ...
    tokens: int | None = None  # ... a token budget; exactly one of the two is given
    batch_size: int = 16  # sequences a step
    micro_batch: int | None = None  # sequences a forward pass; None: batch_size
    precision: str = "fp32"  # fp32 | tf32 (NVIDIA GPUs: float32, multiplied with 10 bits of fraction) | bf16
    device: str = "cpu"  # cpu | cuda | auto
    compile: bool = False
    dispatch: str = "auto"  # auto | fused | grouped | triton: which implementation of model/moe/dispatch.py
    eval_every: int = 0  # steps; 0: only at the end
    eval_tokens: int = 65536  # size of the fixed validation set
    eval_batch: int = 32  # sequences


@dataclass(frozen=True)
class LogConfig:
    """What does not change a result, and so is not part of the key."""

    runs_dir: str = "runs"
    log_every: int = 10  # steps
    routing_every: int = 50  # steps between records of expert shares
    gradients_every: int = 50  # steps between records of gradient norms by part of the model; 0: none
    checkpoint_every: int = 200  # steps; 0: only on a signal
    keep_checkpoints: int = 2
    trace_every: int | None = None  # steps between traces of a probe's routes, the first at step 0; None: none is kept
    trace_tokens: int = 8192  # size of that probe, a fixed slice of the validation set
    threads: int | None = None  # CPU threads; None: what job.threads_per_run says, 1 where a run is on a CPU
    wandb: str = "off"  # off | offline | online
    wandb_project: str = "moe_study"
    progress: bool = True
    sweep: str | None = None  # name of the sweep that this run was first planned by


@dataclass(frozen=True)
class RunConfig:
    task: str = "language"  # language: predict the next token | images: tell the class of an image
    model: ModelConfig = field(default_factory=ModelConfig)
    routing: Routing = field(default_factory=Routing)
    data: DataConfig = field(default_factory=DataConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    run: RunSettings = field(default_factory=RunSettings)
    log: LogConfig = field(default_factory=LogConfig)

    @property
    def vocab_size(self) -> int:
        """Rows of the embedding; of images the number of classes."""
        if self.task == "images":
            return self.data.image.classes
        return self.model.vocab_size or self.data.tokenizer.size

    @property
    def total_steps(self) -> int:
        """Optimizer steps; a token budget is rounded up to whole steps."""
        if self.run.steps is not None:
            return self.run.steps
        assert self.run.tokens is not None  # validated
        return -(-self.run.tokens // self.tokens_per_step)

    @property
    def tokens_per_step(self) -> int:
        return self.run.batch_size * self.model.context

    @functools.cached_property
    def key(self) -> str:
        """The run's identity: 16 hexadecimal digits over everything that can change its result (identity.py)."""
        return identity.key_of(self)


def read_record(plain: Mapping[str, Any]) -> RunConfig:
    """The configuration that a run's config.yaml holds; of an older run, with the values that it was trained with.

    ConfigError for what this version does not know, and for a setting that is missing though it is older than any run.
    """
    config: RunConfig = from_plain(RunConfig, identity.completed(plain, RunConfig()))
    return config
