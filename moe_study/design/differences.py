"""In which settings two configurations differ: a size that follows another setting is not counted beside it.

A model twice as wide has feed-forward networks twice as large, unless somebody says otherwise; a batch of half the
size takes twice as many steps for the same tokens. Settings are flat mappings by dotted name, in their one spelling
(identity.settings_of); what differs is a setting whose value differs, and not only because another one does.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

from moe_study.design.data_config import TokenizerConfig

Settings = Mapping[str, Any]


def differing(one: Settings, other: Settings, names: tuple[str, ...]) -> tuple[str, ...]:
    """Of `names`, the settings in which two configurations differ by themselves."""
    apart = [name for name in names if not _same(one.get(name), other.get(name))]
    return tuple(name for name in apart if not (name in FOLLOWS and FOLLOWS[name](one, other)))


def _same(value: Any, other: Any) -> bool:
    return bool(value == other) or (_is_nan(value) and _is_nan(other))


def _is_nan(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def has_dense_block(settings: Settings) -> bool:
    """Whether some block has a feed-forward network of model.ffn_size: one beside the mixtures."""
    return settings["routing.selection"] != "dense" and settings["routing.layers"] != "all"


def _equal_ratio(name: str, base: str) -> Callable[[Settings, Settings], bool]:
    """Whether `name` is the same part of `base` in both, as far as whole numbers can be."""

    def follows(one: Settings, other: Settings) -> bool:
        return bool(abs(one[name] * other[base] - other[name] * one[base]) < max(one[base], other[base]))

    return follows


def _ffn_size(one: Settings, other: Settings) -> bool:
    if not (has_dense_block(one) or has_dense_block(other)):
        return True  # no block has a network of that size
    return _equal_ratio("model.ffn_size", "model.width")(one, other)


def _expert_size(one: Settings, other: Settings) -> bool:
    bases = ["model.width"]
    if has_dense_block(one) or has_dense_block(other):
        bases.append("model.ffn_size")
    return any(_equal_ratio("routing.expert_size", base)(one, other) for base in bases)


def _vocab_size(one: Settings, other: Settings) -> bool:
    return bool(one["model.vocab_size"] - _tokens(one) == other["model.vocab_size"] - _tokens(other))


def _tokens(settings: Settings) -> int:
    size = settings["data.tokenizer.vocab_size"]
    tokenizer = TokenizerConfig(settings["data.tokenizer.kind"], None if _is_nan(size) else int(size))
    return tokenizer.size if tokenizer.is_sized else 0


def _init_std(one: Settings, other: Settings) -> bool:
    """Whether both keep to one rule: the deviation goes with the inverse root of the width."""
    scaled = [s["model.init_std"] * math.sqrt(s["model.width"]) for s in (one, other)]
    return math.isclose(*scaled)


def _steps(one: Settings, other: Settings) -> bool:
    """Whether both train on as many tokens, up to a step."""
    of_a_step = [s["run.batch_size"] * s["model.context"] for s in (one, other)]
    tokens = [s["run.steps"] * size for s, size in zip((one, other), of_a_step, strict=True)]
    return bool(abs(tokens[0] - tokens[1]) < max(of_a_step))


def _eval_tokens(one: Settings, other: Settings) -> bool:
    """Whether both are evaluated on as many tokens, up to a window."""
    tokens = [s["run.eval_tokens"] for s in (one, other)]
    return bool(abs(tokens[0] - tokens[1]) < max(s["model.context"] for s in (one, other)))


FOLLOWS: dict[str, Callable[[Settings, Settings], bool]] = {
    "model.ffn_size": _ffn_size,
    "model.vocab_size": _vocab_size,
    "model.init_std": _init_std,
    "routing.expert_size": _expert_size,
    "run.steps": _steps,
    "run.micro_batch": _equal_ratio("run.micro_batch", "run.batch_size"),
    "run.eval_tokens": _eval_tokens,
}
