"""Refuses configurations that have no meaning, each with one sentence that says what to change."""

import math
from collections.abc import Callable, Iterator
from typing import Any

from moe_study.design.config import IMAGE_RECIPES, RunConfig
from moe_study.design.plain import to_plain
from moe_study.design.routing import (
    BY_PROBABILITY,
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
)
from moe_study.errors import ConfigError

UNIT_CONTEXTS = {
    Unit.TOKEN: (Context.OWN, Context.RUNNING_MEAN),
    Unit.SEGMENT: (Context.UNIT_MEAN, Context.PREVIOUS_SEGMENT, Context.FIRST_TOKEN),
    Unit.SEQUENCE: (Context.UNIT_MEAN, Context.PREFIX, Context.FIRST_TOKEN, Context.LABEL),
}


def validate(config: RunConfig) -> None:
    """Raise ConfigError for the first thing that is wrong with `config`."""
    for problem in problems(config):
        raise ConfigError(problem)


def problems(config: RunConfig) -> Iterator[str]:
    """All that is wrong of the first kind that is, one sentence each; later checks rely on the earlier ones."""
    checks: list[Callable[[RunConfig], Iterator[str]]] = [_finite, _task, _model, _run, _optimizer]
    if config.routing.selection is not Selection.DENSE:
        checks += [_sizes, _layers, _unit, _router, _picks, _gate, _capacity, _balance, _forms]
    else:
        checks += [_dense]
    for check in checks:
        found = list(check(config))
        yield from found
        if found:
            return


def _finite(config: RunConfig) -> Iterator[str]:
    for name, value in _leaves(to_plain(config)):
        if isinstance(value, float) and not math.isfinite(value):
            yield f"{name}={value} must be a finite number"


def _leaves(plain: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in plain.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            for item in value if isinstance(value, list) else [value]:
                yield prefix + name, item


def _task(config: RunConfig) -> Iterator[str]:
    model, data = config.model, config.data
    if config.task not in ("language", "images"):
        yield f"task={config.task} is unknown; choose language or images"
    elif config.task == "language":
        if model.patch is not None:
            yield f"model.patch={model.patch} cuts images up: it needs task=images"
        if data.recipe in IMAGE_RECIPES:
            yield f"data.recipe={data.recipe} holds images: it needs task=images"
        elif config.vocab_size < data.tokenizer.size:
            yield (
                f"model.vocab_size={config.vocab_size} is smaller than the tokenizer's {data.tokenizer.size}; "
                "leave it at null or make it larger"
            )
    else:
        yield from _images(config)


def _images(config: RunConfig) -> Iterator[str]:
    model, data, routing = config.model, config.data, config.routing
    if data.recipe not in IMAGE_RECIPES:
        yield f"task=images needs images, and data.recipe={data.recipe} holds text: use data=digits"
        return
    side = data.image.side
    if model.patch is None or model.patch < 1 or side % model.patch:
        yield f"task=images needs a model.patch that divides the {side} pixels of an edge, not {model.patch}"
    elif model.context != (side // model.patch) ** 2:
        yield f"model.context must be the {(side // model.patch) ** 2} patches of an image, not {model.context}"
    for name in ("vocab_size", "document_attention"):
        if getattr(model, name):
            yield f"model.{name} has no meaning for task=images; drop it"
    if routing.context is Context.LABEL:
        yield "routing.context=label would tell the router the class that the model shall find"


def _model(config: RunConfig) -> Iterator[str]:
    model = config.model
    for name in ("layers", "heads", "width", "context", "ffn_size"):
        value = getattr(model, name)
        if value is not None and value < 1:
            yield f"model.{name}={value} must be at least 1"
    if model.heads >= 1 and model.width % model.heads:
        yield f"model.width={model.width} must be a multiple of model.heads={model.heads}"
    if not 0 <= model.dropout < 1:
        yield f"model.dropout={model.dropout} must lie in [0, 1)"


def _run(config: RunConfig) -> Iterator[str]:
    run, log = config.run, config.log
    if (run.steps is None) == (run.tokens is None):
        yield "give exactly one of run.steps and run.tokens (set the other one to null)"
    for name in ("steps", "tokens", "batch_size", "micro_batch", "eval_tokens", "eval_batch"):
        value = getattr(run, name)
        if value is not None and value < 1:
            yield f"run.{name}={value} must be at least 1"
    for name in ("keep_checkpoints", "threads"):
        value = getattr(log, name)
        if value is not None and value < 1:
            yield f"log.{name}={value} must be at least 1"
    if run.eval_every < 0:
        yield f"run.eval_every={run.eval_every} must not be negative; 0 evaluates at the end only"
    if run.micro_batch and run.batch_size % run.micro_batch:
        yield f"run.batch_size={run.batch_size} must be a multiple of run.micro_batch={run.micro_batch}"
    for section, name, choices in (
        (run, "precision", ("fp32", "tf32", "bf16")),
        (run, "dispatch", ("auto", "grouped", "triton")),
        (run, "device", ("cpu", "cuda", "auto")),
        (log, "wandb", ("off", "offline", "online")),
    ):
        if getattr(section, name) not in choices:
            where = "run" if section is run else "log"
            yield f"{where}.{name}={getattr(section, name)} is unknown; choose one of {', '.join(choices)}"
    if run.eval_tokens < config.model.context:
        yield f"run.eval_tokens={run.eval_tokens} must cover at least one window of {config.model.context} tokens"


def _optimizer(config: RunConfig) -> Iterator[str]:
    optimizer = config.optimizer
    if optimizer.lr <= 0 or not 0 <= optimizer.min_lr <= optimizer.lr:
        yield f"optimizer.lr={optimizer.lr} must be positive and optimizer.min_lr={optimizer.min_lr} in [0, lr]"
    if len(optimizer.betas) != 2 or not all(0 <= beta < 1 for beta in optimizer.betas):
        yield f"optimizer.betas={list(optimizer.betas)} must be two numbers in [0, 1)"
    for name in ("warmup_steps", "weight_decay", "grad_clip", "eps"):
        if getattr(optimizer, name) < 0:
            yield f"optimizer.{name}={getattr(optimizer, name)} must not be negative"


def _dense(config: RunConfig) -> Iterator[str]:
    routing = config.routing
    if expert_hidden(routing, config.model.hidden) < 1:
        yield "routing.ffn_multiplier or routing.expert_size must leave the network at least one hidden unit"
    defaults = Routing()
    for name in ("shared_experts", "shuffle", "granularity", "capacity", "balance", "scope"):
        if getattr(routing, name) != getattr(defaults, name):
            yield f"routing.{name} has no meaning for a dense model; drop it or choose another routing.selection"


def _sizes(config: RunConfig) -> Iterator[str]:
    routing = config.routing
    counts = (routing.num_experts,) if isinstance(routing.num_experts, int) else routing.num_experts
    if not counts or min(counts) < 1:
        yield f"routing.num_experts={routing.num_experts} must be at least 1"
    if routing.granularity < 1:
        yield f"routing.granularity={routing.granularity} must be at least 1"
        return
    whole = expert_hidden(routing, config.model.hidden) * routing.granularity
    asked = routing.expert_size if routing.expert_size is not None else round(
        routing.ffn_multiplier * config.model.hidden
    )
    if whole < 1 or whole != asked:
        yield f"routing.granularity={routing.granularity} must divide the expert's {asked} hidden units"
    if routing.shared_experts < 0:
        yield f"routing.shared_experts={routing.shared_experts} must not be negative"


def _layers(config: RunConfig) -> Iterator[str]:
    routing, depth = config.routing, config.model.layers
    if isinstance(routing.layers, str) and routing.layers not in ("all", "every_second"):
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
    if routing.selection is Selection.SOFT:
        return  # checked with its forms
    if routing.context not in UNIT_CONTEXTS[routing.unit]:
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
    if routing.first_segment not in ("prior", "own_mean"):
        yield f"routing.first_segment={routing.first_segment} must be prior or own_mean"
    elif routing.first_segment != "prior" and routing.context is not Context.PREVIOUS_SEGMENT:
        yield "routing.first_segment goes with routing.context=previous_segment"


def _router(config: RunConfig) -> Iterator[str]:
    routing = config.routing
    scored = routing.router in (RouterKind.LINEAR, RouterKind.MLP)
    if (routing.router is RouterKind.LABEL) != (routing.context is Context.LABEL):
        yield "routing.router=label and routing.context=label go together: give both or neither"
    if routing.label not in ("language", "topic"):
        yield f"routing.label={routing.label} must be language or topic"
    if routing.router is RouterKind.HASH and (routing.unit, routing.context) != (Unit.TOKEN, Context.OWN):
        yield "routing.router=hash reads the token id: use routing.unit=token and routing.context=own"
    if routing.router_depth < 1:
        yield f"routing.router_depth={routing.router_depth} must be at least 1; use routing.router=linear for none"
    if not scored and routing.selection is not Selection.TOP_K:
        yield f"routing.router={routing.router} gives no scores: use routing.selection=top_k or router=linear"
    if not scored and routing.router_state is not RouterState.LEARNED:
        yield f"routing.router={routing.router} has no weights: leave routing.router_state at learned"
    if routing.router_noise < 0 or (routing.router_noise > 0 and not scored):
        yield "routing.router_noise must be 0 or positive, and needs a router with scores (linear or mlp)"
    if not scored and any((routing.balance.switch, routing.balance.z, routing.balance.bias_rate)):
        yield f"routing.router={routing.router} learns nothing: set every routing.balance weight to 0"


def _picks(config: RunConfig) -> Iterator[str]:
    routing, layers = config.routing, mixture_layers(config.routing, config.model.layers)
    if routing.selection in (Selection.TOP_K, Selection.EXPERT_CHOICE):
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
    if routing.shuffle and routing.selection not in (Selection.TOP_K, Selection.THRESHOLD):
        yield "routing.shuffle permutes picks: it needs routing.selection=top_k or threshold"


def _gate(config: RunConfig) -> Iterator[str]:
    routing = config.routing
    after_pick = routing.gate in (Gate.PICK_THEN_SOFTMAX, Gate.DOUBLE_SOFTMAX)
    if routing.selection in (Selection.EXPERT_CHOICE, Selection.MERGE) and after_pick:
        yield f"routing.gate={routing.gate} needs a token's own picks: use softmax_then_pick or sigmoid"
    one_pick = (routing.selection is Selection.TOP_K and picks_per_unit(routing) == 1) or (
        routing.selection is Selection.THRESHOLD and routing.threshold == 0 and routing.threshold_budget is None
    )
    always_one = one_pick and (after_pick or routing.renormalise)
    if always_one and routing.router_state is RouterState.LEARNED and routing.router in (
        RouterKind.LINEAR,
        RouterKind.MLP,
    ):
        yield (
            "with one pick this gate is always 1, so a learned router would get no gradient; use "
            "routing.gate=softmax_then_pick without renormalise, or freeze the router"
        )


def _capacity(config: RunConfig) -> Iterator[str]:
    routing, capacity = config.routing, config.routing.capacity
    if capacity.factor is None:
        return
    if capacity.factor <= 0 or capacity.minimum < 1:
        yield "routing.capacity.factor must be positive and routing.capacity.minimum at least 1"
    if routing.selection not in (Selection.TOP_K, Selection.THRESHOLD) or routing.unit is not Unit.TOKEN:
        yield "routing.capacity counts tokens that pick: it needs routing.unit=token with top_k or threshold"
    if capacity.priority in BY_PROBABILITY and routing.router in (
        RouterKind.HASH,
        RouterKind.LABEL,
    ):
        yield f"routing.capacity.priority={capacity.priority} needs probabilities: use token_major"


def _balance(config: RunConfig) -> Iterator[str]:
    routing, balance = config.routing, config.routing.balance
    if balance.scope not in ("micro_batch", "batch"):
        yield f"routing.balance.scope={balance.scope} must be micro_batch or batch"
    if min(balance.switch, balance.z, balance.bias_rate) < 0:
        yield "routing.balance weights must not be negative"
    if routing.selection is Selection.SOFT and any((balance.switch, balance.z, balance.bias_rate)):
        yield "routing.selection=soft is balanced by construction: set every routing.balance weight to 0"
    if balance.bias_rate and routing.selection is not Selection.TOP_K:
        yield "routing.balance.bias_rate changes top-k picks: it needs routing.selection=top_k"


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
