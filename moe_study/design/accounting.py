"""Parameters and FLOPs of a configuration, without building it.

FLOPs are those of the forward pass for one token of a full window: two for each multiply-add of a matrix
product; softmax, LayerNorm, activations and biases are left out. Attention is counted in full, without
halving for the causal mask, as PyTorch's own counter does. The backward pass costs twice the forward one.

"Active" counts each expert row that a token causes as one expert's parameters, so a soft layer with fewer
slots than tokens has fewer active parameters than its dense twin.

Both are nominal, from the configuration alone, or, given the rows that were measured, what was executed: a capacity
drops rows, expert choice and its cutoff take as many as they take.
"""

from collections.abc import Mapping
from itertools import pairwise

from moe_study.design.config import ModelConfig, RunConfig
from moe_study.design.routing import (
    FIXED_ROUTERS,
    Context,
    RouterKind,
    Routing,
    Selection,
    SoftForm,
    SoftWeights,
    Unit,
    cosine_dimensions,
    decides,
    expert_hidden,
    experts_of_layer,
    has_prior,
    mixture_layers,
    router_sizes,
)
from moe_study.design.selections import facts_of


def num_params(config: RunConfig) -> int:
    """Trainable and frozen parameters; an embedding that is also the head counts once."""
    return _shared_params(config) + int(sum(_ffn_params(config, layer, None) for layer in range(config.model.layers)))


Rows = float | Mapping[int, float] | None  # measured expert rows per token: in every mixture block, or by block


def num_active_params(config: RunConfig, rows_per_token: Rows = None) -> int:
    """Parameters at one token's service; `rows_per_token` replaces the nominal number of experts.

    Embeddings count in full, as is usual, although a token reads one row of them that is not also the head.
    """
    return _shared_params(config) + round(
        sum(_ffn_params(config, layer, _rows(config, layer, rows_per_token)) for layer in range(config.model.layers))
    )


def flops_per_token(config: RunConfig, rows_per_token: Rows = None) -> float:
    """Forward FLOPs per token; `rows_per_token` replaces the nominal number of expert rows per token."""
    model = config.model
    attention = 8 * model.width**2 + 4 * model.context * model.width
    outer = 2.0 * model.width * config.vocab_size  # the head
    if model.patch is not None:  # the head reads one mean an image, and every patch is embedded by a product
        outer = outer / model.context + 2 * model.patch**2 * model.width
    return model.layers * attention + outer + ffn_flops_per_token(config, rows_per_token)


def ffn_flops_per_token(config: RunConfig, rows_per_token: Rows = None) -> float:
    """The part of flops_per_token that runs in the blocks' feed-forward networks: experts, routers, merging."""
    return sum(_ffn_flops(config, layer, rows_per_token) for layer in range(config.model.layers))


def expert_flops_per_token(config: RunConfig, rows_per_token: Rows = None) -> float:
    """The part of ffn_flops_per_token that runs in the experts of mixtures; 0 for a dense model, which has none.

    Routers, the averaging of tokens or weights, and plain networks in blocks between mixtures are not in it.
    """
    layers = mixture_layers(config.routing, config.model.layers)
    return sum(_expert_flops(config, layer, rows_per_token) for layer in layers)


def nominal_rows_per_token(config: RunConfig, layer: int) -> float:
    """Expert rows per token at mixture block `layer`, before any capacity limit.

    For a threshold this is the budget where one is set, and otherwise an upper bound: the true figure is measured.
    """
    routing, model = config.routing, config.model
    return facts_of(routing).rows(routing, experts_of_layer(routing, model.layers, layer), model.context)


def _chunk(routing: Routing) -> int:
    assert routing.soft.chunk_length is not None  # validated
    return routing.soft.chunk_length


def _shared_params(config: RunConfig) -> int:
    """Everything outside the feed-forward networks."""
    model = config.model
    d, bias = model.width, int(model.bias)
    norm = d * (1 + bias)
    attention = 4 * d * d + 4 * d * bias
    embedding = config.vocab_size * d * (1 if model.tied_head else 2)  # and the head
    if model.patch is not None:
        embedding += config.vocab_size * bias + model.patch**2 * d + d * bias  # a head of its own, and patches
    return embedding + model.context * d + model.layers * (2 * norm + attention) + norm


def expert_params(model: ModelConfig, hidden: int) -> int:
    """Parameters of one feed-forward network with `hidden` units."""
    return 2 * model.width * hidden + int(model.bias) * (hidden + model.width)


def _rows(config: RunConfig, layer: int, rows_per_token: Rows) -> float:
    if layer not in mixture_layers(config.routing, config.model.layers):
        return 1.0
    if isinstance(rows_per_token, Mapping):
        return rows_per_token[layer]
    return nominal_rows_per_token(config, layer) if rows_per_token is None else rows_per_token


def _ffn_params(config: RunConfig, layer: int, rows: float | None) -> float:
    """Parameters of block `layer`'s feed-forward part with `rows` experts counted (None: all of them)."""
    model, routing = config.model, config.routing
    if layer not in mixture_layers(routing, model.layers):
        dense = expert_hidden(routing, model.hidden) if routing.selection is Selection.DENSE else model.hidden
        return expert_params(model, dense)
    n = experts_of_layer(routing, model.layers, layer)
    hidden = expert_hidden(routing, model.hidden)
    counted = n if rows is None else rows
    shared = expert_params(model, routing.shared_experts * hidden) if routing.shared_experts else 0
    return counted * expert_params(model, hidden) + shared + router_params(config, layer)


def router_params(config: RunConfig, layer: int) -> int:
    """Parameters of the router at mixture block `layer`; none where it follows another layer's decision."""
    model, routing = config.model, config.routing
    n = experts_of_layer(routing, model.layers, layer)
    if not decides(routing, model.layers, layer):
        return 0
    if routing.selection is Selection.SOFT:
        identity = routing.soft.dispatch is not SoftWeights.SOFT and routing.soft.combine is not SoftWeights.SOFT
        return 0 if identity else model.width * n * routing.soft.slots_per_expert + int(routing.soft.normalise)
    temperature = int(routing.router is RouterKind.COSINE)
    return _router_weights(model, routing, n) + temperature + (n if has_prior(routing) else 0)


def _router_weights(model: ModelConfig, routing: Routing, n: int) -> int:
    """Weights of a router's products."""
    if routing.router in FIXED_ROUTERS:
        return 0
    if routing.router is RouterKind.COSINE:
        return cosine_dimensions(n) * (model.width + n)
    return sum(inputs * outputs for inputs, outputs in pairwise(router_sizes(routing, model.width, n)))


def _ffn_flops(config: RunConfig, layer: int, rows_per_token: Rows) -> float:
    model, routing = config.model, config.routing
    if layer not in mixture_layers(routing, model.layers):
        dense = expert_hidden(routing, model.hidden) if routing.selection is Selection.DENSE else model.hidden
        return 4 * model.width * dense
    return _expert_flops(config, layer, rows_per_token) + _routing_flops(config, layer)


def _expert_flops(config: RunConfig, layer: int, rows_per_token: Rows) -> float:
    """Of the mixture at block `layer`: each expert row that a token causes, and the shared experts."""
    model, routing = config.model, config.routing
    rows = _rows(config, layer, rows_per_token) + routing.shared_experts
    if routing.selection is Selection.MERGE and routing.unit is Unit.TOKEN:
        rows -= 1  # one token's merged network runs as a sum over experts, counted with the merging
    return rows * 4 * model.width * expert_hidden(routing, model.hidden)


def _routing_flops(config: RunConfig, layer: int) -> float:
    """Router products, and the averaging of tokens or weights in soft and merged layers."""
    model, routing = config.model, config.routing
    n = experts_of_layer(routing, model.layers, layer)
    if routing.selection is Selection.SOFT:
        return _soft_flops(model, routing, n)
    weights = _router_weights(model, routing, n) if decides(routing, model.layers, layer) else 0
    router = 2 * weights * _decisions_per_token(config)
    if routing.selection is not Selection.MERGE:
        return router
    merging = 2 * n * expert_params(model, expert_hidden(routing, model.hidden))
    return router + merging * _units_per_token(config)


def _soft_flops(model: ModelConfig, routing: Routing, n: int) -> float:
    """Logits, averaging of tokens into slots, and of slots' outputs; equal weights are averaged as others are."""
    soft, length = routing.soft, model.context
    product = 2 * model.width * n * soft.slots_per_expert  # one product of all tokens with all slots
    logits = product if SoftWeights.SOFT in (soft.dispatch, soft.combine) else 0
    combine = dispatch = float(product)
    if soft.form in (SoftForm.CHUNK, SoftForm.CHUNK_LAGGED):
        block = min(_chunk(routing), length)
        blocks = -(-length // block) - (soft.form is SoftForm.CHUNK_LAGGED)
        dispatch = combine = product * blocks * block / length  # the last chunk is filled up
        if soft.form is SoftForm.CHUNK_LAGGED:
            dispatch += product * blocks**2 / length  # chunks' averages are averaged
    elif soft.form is SoftForm.PREFIX:
        dispatch = product * length  # every token has slots of its own, averaged over all tokens and masked
    averages = ((dispatch, soft.dispatch), (combine, soft.combine))
    return logits + sum(flops for flops, weights in averages if weights is not SoftWeights.IDENTITY)


def _decisions_per_token(config: RunConfig) -> float:
    """How often the router is evaluated for each token."""
    routing = config.routing
    if routing.context is Context.PREFIX:
        return 1 / config.model.context
    return _units_per_token(config) - has_prior(routing) / config.model.context


def _units_per_token(config: RunConfig) -> float:
    routing, length = config.routing, config.model.context
    if routing.unit is Unit.TOKEN:
        return 1.0
    if routing.unit is Unit.SEQUENCE:
        return (2 if routing.context is Context.PREFIX else 1) / length
    assert routing.segment_length is not None  # validated
    return -(-length // routing.segment_length) / length
