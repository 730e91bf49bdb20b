"""A configuration made small, with every routing axis kept: what the audit builds and probes.

A point is audited at a window of about two dozen tokens (a shorter one as it is) and a few narrow blocks, so that
hundreds of forward passes take a second. Lengths that the routing knows (segments, prefixes, chunks) shrink with the
window but stay longer than one token where they were, because a unit of one token has no later tokens to leak. What
follows from sizes is kept, and made easy to see: a capacity binds, an expert leaves tokens out, a second sequence is
there just where they can. The declared verdict of the small point is that of the large one.
"""

import math
from dataclasses import replace

from moe_study.design.causality import size_of
from moe_study.design.config import DataConfig, ModelConfig, RunConfig, RunSettings, TokenizerConfig
from moe_study.design.routing import (
    Balance,
    Capacity,
    ChoiceScope,
    Routing,
    Selection,
    Soft,
    SoftWeights,
    experts_of_layer,
    mixture_layers,
    picks_per_unit,
)
from moe_study.design.selections import capacity_binds, facts_of, most_picks
from moe_study.design.verdict import CAUSAL

WINDOW = 24  # tokens; a few more where a segment must leave a remainder
WIDTH = 16
HIDDEN = 12  # hidden units of an expert
MOST_EXPERTS = 8  # more only where K needs them
MOST_PICKS = 8
HIGH_THRESHOLD = 0.9  # sharp routers rarely take a second expert below
ROWS = (3, 4, 5, 6, 7, 8)  # sequences of a batch, trial by trial: what mixes them may depend on their number
GROUPS = (2, 3)  # groups of them, where there are any
MOST_GROUPED = 3  # sequences of a group
TOKENS_PER_ROW = 8  # each row of a batch has tokens of its own: two rows never tie exactly


def shrink(config: RunConfig) -> RunConfig:
    """The small configuration to audit in place of `config`, which must be valid."""
    routing, size = config.routing, size_of(config)
    blocks, kept = _blocks(config)
    window = _window(config)
    k, counts = _picks_and_experts(config, kept, window)
    small = replace(
        routing,
        layers=blocks or "all",
        num_experts=counts[0] if len(set(counts)) == 1 else counts,
        k=k,
        granularity=1,
        expert_size=HIDDEN,
        ffn_multiplier=1.0,
        segment_length=_length(routing.segment_length, config, window),
        prefix_length=_prefix(routing.prefix_length, config, window),
        threshold=_threshold(config, kept),
        threshold_budget=_budget(config, kept, counts),
        shared_experts=min(routing.shared_experts, 1),
        router_depth=min(routing.router_depth, 2),
        router_width=1.0,
        capacity=_capacity(config, kept, counts, k),
        balance=Balance(bias_rate=0.05 if routing.balance.bias_rate else 0.0),  # losses change no output
        soft=_soft(config, counts, window),
    )
    rows = max(_batch_sizes(small, alone=size.sequences == 1))
    return RunConfig(
        model=ModelConfig(
            layers=max(blocks, default=0) + 1,
            heads=min(config.model.heads, 2),
            width=WIDTH,
            context=window,
            ffn_size=HIDDEN,
            bias=config.model.bias,
            document_attention=config.model.document_attention,
            embeddings=config.model.embeddings,
            tied_head=config.model.tied_head,
        ),
        routing=small,
        data=DataConfig(tokenizer=TokenizerConfig("bpe", rows * TOKENS_PER_ROW + 1)),  # never meets any text
        run=RunSettings(steps=1, batch_size=rows, eval_batch=rows, eval_tokens=window),
    )


def batch_sizes(small: RunConfig) -> tuple[int, ...]:
    """Numbers of sequences to audit a small configuration with."""
    return _batch_sizes(small.routing, alone=small.run.eval_batch == 1)


def _batch_sizes(routing: Routing, alone: bool) -> tuple[int, ...]:
    if alone:  # no pass of the run has a second sequence
        return (1,)
    group = routing.soft.group_size
    return ROWS if group is None else tuple(group * groups for groups in GROUPS)


def _blocks(config: RunConfig) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Which of the small model's blocks are mixtures, and the N of the mixtures that they stand for.

    They are the first and the one of most experts: whatever reaches an output through fewer does so through more.
    """
    depth = config.model.layers
    mixtures = mixture_layers(config.routing, depth)
    if not mixtures:
        return (), ()
    most = max(mixtures[1:], key=lambda layer: experts_of_layer(config.routing, depth, layer), default=None)
    kept = mixtures[:1] if most is None else (mixtures[0], most)
    first = 1 if mixtures[0] > 0 else 0
    blocks = tuple(range(first, first + len(kept)))
    return blocks, tuple(experts_of_layer(config.routing, depth, layer) for layer in kept)


def _window(config: RunConfig) -> int:
    """The small window: a whole number of segments or chunks just where the large one is."""
    routing, context = config.routing, config.model.context
    if context <= WINDOW:
        return context
    size = routing.segment_length or routing.soft.chunk_length
    if size is None or size == 1 or size >= context:
        return WINDOW
    window = WINDOW
    while (window % _scaled(size, context) == 0) != (context % size == 0):
        window += 1
    return window


def _scaled(size: int, context: int) -> int:
    """A length inside the window, at least 2 where it was, and leaving a second unit where there was one."""
    if size == 1 or context <= WINDOW:
        return size
    return min(max(round(size * WINDOW / context), 2), WINDOW // 2)


def _length(size: int | None, config: RunConfig, window: int) -> int | None:
    if size is None:
        return None
    return window if size >= config.model.context else _scaled(size, config.model.context)


def _prefix(size: int | None, config: RunConfig, window: int) -> int | None:
    if size is None:
        return None
    return min(max(round(size * window / config.model.context), min(size, 2)), window - 1)


def _picks_and_experts(config: RunConfig, kept: tuple[int, ...], window: int) -> tuple[int, tuple[int, ...]]:
    """K, and N of each mixture: as they were up to caps, and every expert is taken just where it was."""
    routing = config.routing
    if not kept:
        return 1, (1,)
    if SoftWeights.IDENTITY in (routing.soft.dispatch, routing.soft.combine):
        return 1, (window // _identity_slots(routing, window),) * len(kept)
    if not facts_of(routing).takes_k:
        return 1, tuple(min(experts, MOST_EXPERTS) for experts in kept)
    chooses = routing.selection is Selection.EXPERT_CHOICE
    # Of few tokens an expert would take all at K near N; so that it shows who is left out, K is at most half of N.
    limits = [experts // 2 for experts in kept if chooses and not _takes_all(config, experts)]
    k = min(picks_per_unit(routing), MOST_PICKS, *limits)
    cap = max(MOST_EXPERTS, 2 * k)
    return k, tuple(k if _takes_all(config, experts) else max(min(experts, cap), k + 1) for experts in kept)


def _takes_all(config: RunConfig, experts: int) -> bool:
    """Whether every expert takes every token."""
    routing = config.routing
    if routing.selection is Selection.EXPERT_CHOICE and routing.choice_scope is not ChoiceScope.CUTOFF:
        return facts_of(routing).reads(routing, experts, size_of(config)) == CAUSAL
    return picks_per_unit(routing) >= experts


def _identity_slots(routing: Routing, window: int) -> int:
    """Slots per expert that fill the window exactly: identity weights need N * slots = window."""
    return math.gcd(routing.soft.slots_per_expert, window)


def _threshold(config: RunConfig, kept: tuple[int, ...]) -> float:
    """High enough to take a second expert often, where the large one can at all."""
    threshold = config.routing.threshold
    return threshold if not kept or most_picks(config.routing, max(kept)) == 1 else max(threshold, HIGH_THRESHOLD)


def _budget(config: RunConfig, kept: tuple[int, ...], counts: tuple[int, ...]) -> float | None:
    """The same share of all experts."""
    budget = config.routing.threshold_budget
    return None if budget is None else max(1.0, budget * counts[0] / kept[0])


def _capacity(config: RunConfig, kept: tuple[int, ...], counts: tuple[int, ...], k: int) -> Capacity:
    """A limit that binds where the large one can: at half of the window at the latest."""
    capacity = config.routing.capacity
    if capacity.factor is None:
        return capacity
    scale = max(counts) / (k if facts_of(config.routing).takes_k else 1)  # at this factor an expert takes all tokens
    binds = capacity_binds(config.routing, max(kept), size_of(config))
    return replace(capacity, factor=min(capacity.factor, scale / 2) if binds else scale, minimum=1)


def _soft(config: RunConfig, counts: tuple[int, ...], window: int) -> Soft:
    soft = config.routing.soft
    slots = min(soft.slots_per_expert, 4)
    if SoftWeights.IDENTITY in (soft.dispatch, soft.combine):
        slots = window // counts[0]
    group = None if soft.group_size is None else min(soft.group_size, MOST_GROUPED)
    return replace(
        soft, slots_per_expert=slots, chunk_length=_length(soft.chunk_length, config, window), group_size=group
    )
