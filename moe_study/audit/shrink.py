"""A configuration made small, with every routing axis kept: what the audit builds and probes.

A point is audited at a window of about two dozen tokens and a few narrow blocks, so that hundreds of forward
passes take a second. Lengths that the routing knows (segments, prefixes, chunks) shrink with the window but
stay longer than one token where they were, because a unit of one token has no later tokens to leak. The
declared verdict of the small point is that of the large one.
"""

import math
from dataclasses import replace

from moe_study.design.config import DataConfig, ModelConfig, RunConfig, RunSettings, TokenizerConfig
from moe_study.design.routing import (
    Balance,
    Capacity,
    Routing,
    Selection,
    Soft,
    SoftWeights,
    experts_of_layer,
    mixture_layers,
    picks_per_unit,
)

WINDOW = 24  # tokens; a few more where a segment must leave a remainder
WIDTH = 16
HIDDEN = 12  # hidden units of an expert
MOST_EXPERTS = 8  # more only where K needs them
MOST_PICKS = 8
MIXTURES = 2  # blocks with a mixture, after one dense block where the original begins with one
ROWS = (3, 4, 5, 6, 7, 8)  # sequences of a batch, trial by trial: what mixes them may depend on their number
GROUPS = (2, 3)  # groups of them, where there are any
MOST_GROUPED = 3  # sequences of a group
TOKENS_PER_ROW = 8  # each row of a batch has tokens of its own: two rows never tie exactly


def shrink(config: RunConfig) -> RunConfig:
    """The small configuration to audit in place of `config`, which must be valid."""
    routing = config.routing
    depth, layers = _blocks(config)
    window = _window(config)
    counts = _expert_counts(config, window, len(layers))
    k = min(picks_per_unit(routing), MOST_PICKS, *counts)
    small = replace(
        routing,
        layers=layers or "all",
        num_experts=counts[0] if len(set(counts)) == 1 else counts,
        k=k,
        granularity=1,
        expert_size=HIDDEN,
        ffn_multiplier=1.0,
        segment_length=_length(routing.segment_length, config, window),
        prefix_length=_prefix(routing.prefix_length, config, window),
        threshold_budget=_budget(config, counts[0]),
        shared_experts=min(routing.shared_experts, 1),
        router_depth=min(routing.router_depth, 2),
        capacity=_capacity(config, counts, k, window),
        balance=Balance(bias_rate=0.05 if routing.balance.bias_rate else 0.0),  # losses change no output
        soft=_soft(config, counts, window),
    )
    rows = max(batch_sizes(small))
    return RunConfig(
        model=ModelConfig(
            layers=depth,
            heads=min(config.model.heads, 2),
            width=WIDTH,
            context=window,
            ffn_size=HIDDEN,
            bias=config.model.bias,
            document_attention=config.model.document_attention,
        ),
        routing=small,
        data=DataConfig(tokenizer=TokenizerConfig("bpe", rows * TOKENS_PER_ROW + 1)),
        run=RunSettings(steps=1, batch_size=rows, eval_batch=rows, eval_tokens=window),
    )


def batch_sizes(routing: Routing) -> tuple[int, ...]:
    """Numbers of sequences to audit a small routing with."""
    group = routing.soft.group_size
    return ROWS if group is None else tuple(group * groups for groups in GROUPS)


def _blocks(config: RunConfig) -> tuple[int, tuple[int, ...]]:
    """Number of blocks, and which of them are mixtures."""
    mixtures = mixture_layers(config.routing, config.model.layers)
    if not mixtures:
        return 1, ()
    kept = min(len(mixtures), MIXTURES)
    first = 1 if mixtures[0] > 0 else 0
    return first + kept, tuple(range(first, first + kept))


def _window(config: RunConfig) -> int:
    """The small window: a whole number of segments or chunks just where the large one is."""
    routing, context = config.routing, config.model.context
    size = routing.segment_length or routing.soft.chunk_length
    if size is None or size == 1 or size >= context:
        return WINDOW
    window = WINDOW
    while (window % _scaled(size, context) == 0) != (context % size == 0):
        window += 1
    return window


def _scaled(size: int, context: int) -> int:
    """A length inside the window, at least 2 where it was, and leaving a second unit where there was one."""
    if size == 1:
        return 1
    return min(max(round(size * WINDOW / context), 2), WINDOW // 2)


def _length(size: int | None, config: RunConfig, window: int) -> int | None:
    if size is None:
        return None
    return window if size >= config.model.context else _scaled(size, config.model.context)


def _prefix(size: int | None, config: RunConfig, window: int) -> int | None:
    if size is None:
        return None
    return min(max(round(size * window / config.model.context), min(size, 2)), window - 1)


def _expert_counts(config: RunConfig, window: int, layers: int) -> tuple[int, ...]:
    """N of each mixture: as it was up to a cap, and never fewer than the picks or slots need."""
    routing, depth = config.routing, config.model.layers
    if not layers:
        return (1,)
    kept = mixture_layers(routing, depth)[:layers]
    if SoftWeights.IDENTITY in (routing.soft.dispatch, routing.soft.combine):
        return (window // _identity_slots(routing, window),) * layers
    k = min(picks_per_unit(routing), MOST_PICKS) if routing.selection in _PICKING else 1
    cap = max(MOST_EXPERTS, 2 * k)
    return tuple(min(experts_of_layer(routing, depth, layer), cap) for layer in kept)


_PICKING = (Selection.TOP_K, Selection.EXPERT_CHOICE)


def _identity_slots(routing: Routing, window: int) -> int:
    """Slots per expert that fill the window exactly: identity weights need N * slots = window."""
    return math.gcd(routing.soft.slots_per_expert, window)


def _budget(config: RunConfig, experts: int) -> float | None:
    """The same share of all experts."""
    routing = config.routing
    if routing.threshold_budget is None:
        return None
    large = experts_of_layer(routing, config.model.layers, mixture_layers(routing, config.model.layers)[0])
    return max(1.0, routing.threshold_budget * experts / large)


def _capacity(config: RunConfig, counts: tuple[int, ...], k: int, window: int) -> Capacity:
    """A limit that binds where the large one can: at half of the window at the latest."""
    routing = config.routing
    capacity = routing.capacity
    if capacity.factor is None:
        return capacity
    depth = config.model.layers
    large = max(experts_of_layer(routing, depth, layer) for layer in mixture_layers(routing, depth))
    picks, small_picks = (picks_per_unit(routing), k) if routing.selection is Selection.TOP_K else (1, 1)
    share = capacity.factor * picks / large  # of all tokens, that one expert may take
    scale = max(counts) / small_picks
    factor = share * scale if share >= 1 else min(capacity.factor, scale / 2)
    return replace(capacity, factor=factor, minimum=1 if capacity.minimum < config.model.context else window)


def _soft(config: RunConfig, counts: tuple[int, ...], window: int) -> Soft:
    soft = config.routing.soft
    slots = min(soft.slots_per_expert, 4)
    if SoftWeights.IDENTITY in (soft.dispatch, soft.combine):
        slots = window // counts[0]
    group = None if soft.group_size is None else min(soft.group_size, MOST_GROUPED)
    return replace(
        soft, slots_per_expert=slots, chunk_length=_length(soft.chunk_length, config, window), group_size=group
    )
