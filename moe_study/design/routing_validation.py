"""Refuses routings that have no meaning, each with one sentence that says what to change.

A setting that always has a value is ignored where a mixture has no part for it; one that is off unless asked for is
refused there (unused.py says why).
"""

from collections.abc import Callable, Iterator

from moe_study.design.config import RunConfig
from moe_study.design.normal import LAYER_WORDS
from moe_study.design.routing import (
    AFTER_PICK,
    BY_PROBABILITY,
    FIXED_ROUTERS,
    Choices,
    Context,
    Gate,
    RouterKind,
    RouterState,
    Routing,
    Scope,
    Selection,
    SoftForm,
    SoftWeights,
    Unit,
    expert_hidden,
    experts_of_layer,
    mixture_layers,
    picks_per_unit,
    whole_hidden,
)
from moe_study.design.selections import PICKING, facts_of, most_picks, one_of, spreads_all_choices

UNIT_CONTEXTS = {
    Unit.TOKEN: (Context.OWN, Context.RUNNING_MEAN),
    Unit.SEGMENT: (Context.UNIT_MEAN, Context.PREVIOUS_SEGMENT, Context.FIRST_TOKEN),
    Unit.SEQUENCE: (Context.UNIT_MEAN, Context.PREFIX, Context.FIRST_TOKEN, Context.LABEL),
}

Check = Callable[[RunConfig], Iterator[str]]


def routing_checks(routing: Routing) -> list[Check]:
    """The checks of a routing, in an order in which later ones may rely on what earlier ones refuse."""
    if routing.selection is Selection.DENSE:
        return [_dense]
    return [_sizes, _layers, _unit, _router, _picks, _gate, _capacity, _balance, _forms]


def _dense(config: RunConfig) -> Iterator[str]:
    if expert_hidden(config.routing, config.model.hidden) < 1:
        yield "routing.ffn_multiplier or routing.expert_size must leave the network at least one hidden unit"


def _sizes(config: RunConfig) -> Iterator[str]:
    routing = config.routing
    counts = (routing.num_experts,) if isinstance(routing.num_experts, int) else routing.num_experts
    if not counts or min(counts) < 1:
        yield f"routing.num_experts={routing.num_experts} must be at least 1"
    if routing.granularity < 1:
        yield f"routing.granularity={routing.granularity} must be at least 1"
        return
    whole = whole_hidden(routing, config.model.hidden)
    if whole < 1 or whole % routing.granularity:
        yield f"routing.granularity={routing.granularity} must divide the expert's {whole} hidden units"
    if routing.shared_experts < 0:
        yield f"routing.shared_experts={routing.shared_experts} must not be negative"


def _layers(config: RunConfig) -> Iterator[str]:
    routing, depth = config.routing, config.model.layers
    if isinstance(routing.layers, str) and routing.layers not in LAYER_WORDS:
        yield f"routing.layers={routing.layers} must be all, every_second or a list of block indices"
        return
    if not isinstance(routing.layers, str) and list(routing.layers) != sorted(set(routing.layers)):
        yield f"routing.layers={list(routing.layers)} must be in ascending order, each block once"
        return
    layers = mixture_layers(routing, depth)
    if not layers:
        yield f"routing.layers={routing.layers} leaves no mixture in {depth} blocks; use routing.selection=dense"
        return
    if layers[0] < 0 or layers[-1] >= depth:
        yield f"routing.layers={list(layers)} must name blocks from 0 to {depth - 1}"
        return
    if isinstance(routing.num_experts, int):
        return
    if len(routing.num_experts) != len(layers):
        yield (
            f"routing.num_experts lists {len(routing.num_experts)} numbers for {len(layers)} mixture layers; "
            "give one number, or one for each"
        )
    elif routing.scope is Scope.GLOBAL and len(set(routing.num_experts)) > 1:
        yield "routing.scope=global needs the same routing.num_experts in every layer"


def _unit(config: RunConfig) -> Iterator[str]:
    routing = config.routing
    if routing.selection is not Selection.SOFT and routing.context not in UNIT_CONTEXTS[routing.unit]:
        allowed = ", ".join(UNIT_CONTEXTS[routing.unit])
        yield f"routing.unit={routing.unit} cannot read routing.context={routing.context}; choose one of {allowed}"
    if (routing.unit is Unit.SEGMENT) != (routing.segment_length is not None):
        yield "routing.segment_length goes with routing.unit=segment: give both or neither"
    if routing.segment_length is not None and routing.segment_length < 1:
        yield f"routing.segment_length={routing.segment_length} must be at least 1"
    if (routing.context is Context.PREFIX) != (routing.prefix_length is not None):
        yield "routing.prefix_length goes with routing.context=prefix: give both or neither"
    if routing.prefix_length is not None and not 1 <= routing.prefix_length < config.model.context:
        yield f"routing.prefix_length={routing.prefix_length} must lie between 1 and model.context - 1"
    if routing.first_segment != "prior" and routing.context is not Context.PREVIOUS_SEGMENT:
        yield "routing.first_segment goes with routing.context=previous_segment"


def _router(config: RunConfig) -> Iterator[str]:
    routing = config.routing
    scored = routing.router not in FIXED_ROUTERS
    if (routing.router is RouterKind.LABEL) != (routing.context is Context.LABEL):
        yield "routing.router=label and routing.context=label go together: give both or neither"
    if routing.router is RouterKind.HASH and (routing.unit, routing.context) != (Unit.TOKEN, Context.OWN):
        yield "routing.router=hash reads the token id: use routing.unit=token and routing.context=own"
    if routing.router_depth < 1:
        yield f"routing.router_depth={routing.router_depth} must be at least 1; use routing.router=linear for none"
    units = routing.router_width * config.model.width
    if units < 1 or units % 1:
        yield (
            f"routing.router_width={routing.router_width:g} gives a hidden layer of {units:g} units in a model of"
            f" width {config.model.width}; it must be a whole number of at least 1"
        )
    if not scored and not facts_of(routing).fixed_routers:
        yield f"routing.router={routing.router} gives no scores: use routing.selection=top_k or router=linear"
    if not scored and routing.router_state is not RouterState.LEARNED:
        yield f"routing.router={routing.router} has no weights: leave routing.router_state at learned"
    if routing.router_noise < 0 or (routing.router_noise > 0 and not scored):
        yield "routing.router_noise must be 0 or positive, and needs a router with scores (linear, mlp or cosine)"
    if not scored and any((routing.balance.switch, routing.balance.z, routing.balance.bias_rate)):
        yield f"routing.router={routing.router} learns nothing: set every routing.balance weight to 0"


def _picks(config: RunConfig) -> Iterator[str]:
    routing, layers = config.routing, mixture_layers(config.routing, config.model.layers)
    if facts_of(routing).takes_k:
        if routing.k < 1:
            yield f"routing.k={routing.k} must be at least 1"
        for layer in layers:
            n = experts_of_layer(routing, config.model.layers, layer)
            if picks_per_unit(routing) > n:
                yield f"routing.k={picks_per_unit(routing)} experts cannot be picked from N={n}: lower k or raise N"
                break
    if routing.selection is Selection.THRESHOLD and not 0 <= routing.threshold <= 1:
        yield f"routing.threshold={routing.threshold} must lie in [0, 1]; for every expert use routing.selection=all"
    if routing.threshold_budget is not None:
        if routing.selection is not Selection.THRESHOLD:
            yield "routing.threshold_budget steers a threshold: it needs routing.selection=threshold"
        elif routing.threshold_budget < 1:
            yield f"routing.threshold_budget={routing.threshold_budget} must be at least 1 expert a token"
        else:
            n = min(experts_of_layer(routing, config.model.layers, i) for i in layers)
            if routing.threshold_budget > n:
                yield f"routing.threshold_budget={routing.threshold_budget} is more than the N={n} experts there are"
    if routing.selection is Selection.EXPERT_CHOICE and routing.unit is not Unit.TOKEN:
        yield "routing.selection=expert_choice picks tokens: use routing.unit=token"
    if routing.shuffle and not facts_of(routing).own_picks:
        yield f"routing.shuffle permutes picks: it needs routing.selection={one_of(PICKING)}"
    if facts_of(routing).any_number and routing.router_state is not RouterState.LEARNED:
        yield (
            f"routing.selection={routing.selection} is held to routing.k by what its router learns, and a"
            f" {routing.router_state} one learns nothing: leave routing.router_state at learned"
        )


def _gate(config: RunConfig) -> Iterator[str]:
    routing = config.routing
    after_pick = routing.gate in AFTER_PICK
    if after_pick and not facts_of(routing).gates_after_pick:
        others = one_of(gate for gate in Gate if gate not in AFTER_PICK and _goes_with(gate, routing.selection))
        yield f"routing.gate={routing.gate} needs a token's own picks, always at least one: use {others}"
    if not _goes_with(routing.gate, routing.selection):
        yield (
            "routing.gate=relu weighs experts of negative score by 0, and other rules than routing.selection=positive"
            " run them all the same: use that one, or another gate"
        )
    layers = mixture_layers(routing, config.model.layers)
    one_pick = facts_of(routing).own_picks and any(
        most_picks(routing, experts_of_layer(routing, config.model.layers, layer)) == 1 for layer in layers
    )
    always_one = one_pick and (after_pick or routing.renormalise)
    if always_one and routing.router_state is RouterState.LEARNED and routing.router not in FIXED_ROUTERS:
        yield (
            "with one pick this gate is always 1, so a learned router would get no gradient; use "
            "routing.gate=softmax_then_pick without renormalise, or freeze the router"
        )


def _goes_with(gate: Gate, selection: Selection) -> bool:
    """A weight of 0 is a choice, too: only the rule that makes that choice does without the work."""
    return gate is not Gate.RELU or selection is Selection.POSITIVE


def _capacity(config: RunConfig) -> Iterator[str]:
    routing, capacity = config.routing, config.routing.capacity
    if capacity.factor is None:
        return
    if capacity.factor <= 0 or capacity.minimum < 1:
        yield "routing.capacity.factor must be positive and routing.capacity.minimum at least 1"
    if not facts_of(routing).own_picks or routing.unit is not Unit.TOKEN:
        yield f"routing.capacity counts tokens that pick: it needs routing.unit=token with {one_of(PICKING)}"
    if capacity.priority in BY_PROBABILITY and routing.router in FIXED_ROUTERS:
        yield f"routing.capacity.priority={capacity.priority} needs probabilities: use token_major"


def _balance(config: RunConfig) -> Iterator[str]:
    routing, balance = config.routing, config.routing.balance
    if min(balance.switch, balance.z, balance.bias_rate) < 0:
        yield "routing.balance weights must not be negative"
    if routing.selection is Selection.SOFT and any((balance.switch, balance.z, balance.bias_rate)):
        yield "routing.selection=soft is balanced by construction: set every routing.balance weight to 0"
    if balance.bias_rate and not facts_of(routing).counts_picks:
        yield "routing.balance.bias_rate changes top-k picks: it needs routing.selection=top_k"
    if balance.choices is Choices.ALL and balance.switch and not spreads_all_choices(routing):
        yield (
            f"routing.balance.choices=all counts every expert alike under routing.selection={routing.selection},"
            " where the loss would be constant; use first, or null"
        )


def _forms(config: RunConfig) -> Iterator[str]:
    routing, soft = config.routing, config.routing.soft
    if routing.selection is not Selection.SOFT:
        return
    if (routing.unit, routing.context, routing.scope) != (Unit.TOKEN, Context.OWN, Scope.LAYER):
        yield "routing.selection=soft needs routing.unit=token, context=own and scope=layer"
    if routing.router is not RouterKind.LINEAR or routing.router_noise:
        yield "routing.selection=soft has its own slots: use routing.router=linear without noise"
    if soft.slots_per_expert < 1:
        yield f"routing.soft.slots_per_expert={soft.slots_per_expert} must be at least 1"
    chunked = soft.form in (SoftForm.CHUNK, SoftForm.CHUNK_LAGGED)
    if chunked != (soft.chunk_length is not None) or (soft.chunk_length is not None and soft.chunk_length < 1):
        yield "routing.soft.chunk_length (at least 1) goes with soft.form=chunk or chunk_lagged: give both or neither"
    grouped = soft.form is SoftForm.ACROSS_BATCH
    if grouped != (soft.group_size is not None) or (soft.group_size is not None and soft.group_size < 1):
        yield "routing.soft.group_size (at least 1) goes with soft.form=across_batch: give both or neither"
    if grouped and soft.group_size is not None and soft.group_size > 0:
        rows = config.run.micro_batch or config.run.batch_size
        for name, size in (("micro-batch", rows), ("eval_batch", config.run.eval_batch)):
            if size % soft.group_size:
                yield f"routing.soft.group_size={soft.group_size} must divide the {name} of {size} sequences"
    if soft.dispatch is SoftWeights.DISPATCH:
        yield "routing.soft.dispatch=dispatch has no meaning: choose soft, uniform or identity"
    if soft.combine is SoftWeights.DISPATCH and (
        soft.dispatch is not SoftWeights.SOFT or soft.form in (SoftForm.PREFIX, SoftForm.CHUNK_LAGGED)
    ):
        yield (
            "routing.soft.combine=dispatch gives tokens the weights they were averaged with: it needs "
            "soft.dispatch=soft and soft.form=sequence, chunk or across_batch"
        )
    if SoftWeights.IDENTITY in (soft.dispatch, soft.combine):
        yield from _identity_slots(config)


def _identity_slots(config: RunConfig) -> Iterator[str]:
    soft = config.routing.soft
    if soft.form is not SoftForm.SEQUENCE:
        yield "routing.soft.dispatch=identity and combine=identity need soft.form=sequence"
        return
    for layer in mixture_layers(config.routing, config.model.layers):
        n = experts_of_layer(config.routing, config.model.layers, layer)
        if n * soft.slots_per_expert != config.model.context:
            yield (
                f"identity slots need num_experts * slots_per_expert = model.context, "
                f"and {n} * {soft.slots_per_expert} is not {config.model.context}"
            )
            return
