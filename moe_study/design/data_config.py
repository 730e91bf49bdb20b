"""Which text or images a run learns from: the section `data` of a configuration."""

from dataclasses import dataclass, field
from typing import Any

from moe_study.errors import ConfigError


@dataclass(frozen=True)
class TokenizerConfig:
    kind: str = "bpe"  # gpt2 | bpe | bytes
    vocab_size: int | None = None  # bpe only, end-of-text included

    @property
    def is_sized(self) -> bool:
        """Whether the number of token ids is known: a BPE must be told it."""
        return self.kind in ("gpt2", "bytes") or self.vocab_size is not None

    @property
    def size(self) -> int:
        """Number of token ids, known without any data."""
        if self.kind == "gpt2":
            return 50257
        if self.kind == "bytes":
            return 257
        if self.kind == "bpe" and self.vocab_size is not None:
            return self.vocab_size
        raise ConfigError(
            f"data.tokenizer.kind={self.kind} needs data.tokenizer.vocab_size; kinds are gpt2, bpe and bytes"
        )

    @property
    def file_name(self) -> str | None:
        """The file that holds what was learnt, in a corpus's folder as in a run's; None: there is nothing to hold."""
        return {"gpt2": "gpt2.tiktoken", "bpe": "tokenizer.json"}.get(self.kind)


@dataclass(frozen=True)
class ImageShape:
    """What the images of a recipe look like: square, one grey value a pixel."""

    side: int  # pixels along an edge
    classes: int


IMAGE_RECIPES = {"digits": ImageShape(side=28, classes=10)}  # known without any data


@dataclass(frozen=True)
class DataConfig:
    name: str = "parliament_news"
    recipe: str = "parliament_news"
    options: dict[str, Any] = field(default_factory=dict)
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    validation_fraction: float = 0.05
    root: str = "data"

    @property
    def image(self) -> ImageShape:
        """Size and classes of the images; ConfigError where the recipe gives text."""
        if self.recipe not in IMAGE_RECIPES:
            raise ConfigError(f"data.recipe={self.recipe} holds no images; choose one of {', '.join(IMAGE_RECIPES)}")
        return IMAGE_RECIPES[self.recipe]
