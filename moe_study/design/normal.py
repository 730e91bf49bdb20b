"""One spelling for each setting of a configuration: what is trained, and what a run's folder holds.

Sizes that follow from others are numbers (`ffn_size: null` becomes 4 * width), a token budget becomes steps, a list
that says what a word says becomes the word, and what the configuration cannot use (unused.py) has its default.
"""

from collections.abc import Iterator
from typing import Any, TypeVar

from moe_study.design.plain import from_plain, to_plain, value_at, with_values
from moe_study.design.routing import Choices, Routing, Selection, mixture_layers, whole_hidden
from moe_study.design.selections import counted_choices, own_choices
from moe_study.design.unused import unused

Config = TypeVar("Config")
LAYER_WORDS = ("all", "every_second")


def normalised(config: Config) -> Config:
    """The RunConfig `config` in its one spelling; what is normal already comes back equal.

    A configuration that lacks a tokenizer's size or a budget has no meaning, and is left open there.
    """
    return normalised_typed(from_plain(type(config), to_plain(config)))  # 1 for a fraction becomes 1.0, a list a tuple


def normalised_typed(config: Config) -> Config:
    """The same of one that from_plain has made, whose values are of their types already."""
    resolved = with_values(config, dict(_resolved(config)))
    plain_defaults = type(config)()
    normal: Config = with_values(resolved, {name: value_at(plain_defaults, name) for name in unused(resolved)})
    return normal


def _resolved(config: Any) -> Iterator[tuple[str, Any]]:
    """The settings that can be left open or written in several ways, as they are meant."""
    model, routing, run = config.model, config.routing, config.run
    yield "model.ffn_size", model.hidden
    yield "model.init_std", model.weight_std
    if config.task != "images" and config.data.tokenizer.is_sized:
        yield "model.vocab_size", config.vocab_size
    yield "routing.expert_size", whole_hidden(routing, model.hidden)
    if routing.selection is not Selection.DENSE:
        yield "routing.layers", _layers(routing, model.layers)
        yield "routing.num_experts", _num_experts(routing)
        yield "routing.balance.choices", _choices(routing)
    if run.steps is not None or run.tokens is not None:
        yield "run.steps", config.total_steps
        yield "run.tokens", None
        yield "run.eval_every", run.eval_every if run.eval_every < config.total_steps else 0  # the end always is
    yield "run.micro_batch", run.micro_batch or run.batch_size
    yield "run.eval_tokens", run.eval_tokens // model.context * model.context  # whole windows


def _layers(routing: Routing, depth: int) -> str | tuple[int, ...]:
    """A word where it names the same blocks."""
    listed = mixture_layers(routing, depth)
    words = (word for word in LAYER_WORDS if mixture_layers(Routing(layers=word), depth) == listed)
    return next(words, listed)


def _num_experts(routing: Routing) -> int | tuple[int, ...]:
    """One number where it is the same in every layer."""
    counts = routing.num_experts
    return counts[0] if isinstance(counts, tuple) and len(set(counts)) == 1 else counts


def _choices(routing: Routing) -> Choices | None:
    """None where it says what the rule does by itself, so that rules differ in it only where they were asked to."""
    counted = counted_choices(routing)
    return None if counted is own_choices(routing) else counted
