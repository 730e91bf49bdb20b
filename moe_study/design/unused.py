"""Which settings a configuration can use: one row for each setting that some configurations cannot.

What a configuration cannot use is set to its default before anything is made of it (normal.py) and is not part of its
identity. A new setting gets a row here, or a name in ALWAYS; a test asks for it.

Not everything that cannot be used is accepted. A setting that always has a value (k, num_experts, threshold) cannot be
left out, so it is ignored where it has no part; so are the settings of selection=soft by all others. A setting that is
off unless asked for (null, 0, false) is refused by validation where a mixture cannot have it, since something else
would be trained than was asked for. A dense model has no routing at all, so that it can stand in any product with its
axes: it ignores all of them.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from moe_study.design.routing import (
    FIXED_ROUTERS,
    Context,
    RouterKind,
    Routing,
    Selection,
    SoftForm,
    SoftWeights,
    Unit,
    experts_of_layer,
    mixture_layers,
)
from moe_study.design.selections import PICKING, TAKING_K, facts_of, most_picks, one_of


class Use(NamedTuple):
    """When a setting has an effect, asked of a RunConfig, and what it needs, in words."""

    can: Callable[[Any], bool]
    needs: str


ALWAYS = frozenset({
    "task",
    "model.layers", "model.heads", "model.width", "model.context", "model.ffn_size", "model.dropout", "model.bias",
    "model.init_std",
    "routing.selection", "routing.expert_size",
    "data.name", "data.recipe", "data.options", "data.validation_fraction", "data.root",
    "optimizer.lr", "optimizer.min_lr", "optimizer.warmup_steps", "optimizer.betas", "optimizer.eps",
    "optimizer.weight_decay", "optimizer.grad_clip",
    "run.seed", "run.steps", "run.tokens", "run.batch_size", "run.micro_batch", "run.precision", "run.device",
    "run.compile", "run.eval_every", "run.eval_tokens", "run.eval_batch",
})  # fmt: skip


def _of(*selections: Selection) -> Callable[[Any], bool]:
    return lambda c: c.routing.selection in selections


def _in_mixtures(condition: Callable[[Routing], bool]) -> Callable[[Any], bool]:
    return lambda c: c.routing.selection is not Selection.DENSE and condition(c.routing)


def _routes(routing: Routing) -> bool:
    """Each decision picks or weighs experts by itself, which soft slots do not."""
    return routing.selection is not Selection.SOFT


def _scores(routing: Routing) -> bool:
    return _routes(routing) and routing.router not in FIXED_ROUTERS


def _has_slot_scores(routing: Routing) -> bool:
    return routing.selection is Selection.SOFT and SoftWeights.SOFT in (routing.soft.dispatch, routing.soft.combine)


def _has_capacity(routing: Routing) -> bool:
    return (
        routing.selection in PICKING
        and routing.unit is Unit.TOKEN
        and routing.capacity.factor is not None
    )


def _balances_over_micro_batches(config: Any) -> bool:
    parts = config.run.micro_batch is not None and config.run.micro_batch < config.run.batch_size
    return _in_mixtures(_scores)(config) and config.routing.balance.switch > 0 and parts


def _balances_several_choices(config: Any) -> bool:
    """A token can be at more than one expert, in some layer: of one choice, the first is all."""
    routing, depth = config.routing, config.model.layers
    if not _in_mixtures(_scores)(config) or not routing.balance.switch > 0:
        return False
    counts = [experts_of_layer(routing, depth, layer) for layer in mixture_layers(routing, depth)]
    is_chosen = routing.selection is Selection.EXPERT_CHOICE
    return any((experts if is_chosen else most_picks(routing, experts)) > 1 for experts in counts)


MIXTURE = Use(_in_mixtures(lambda r: True), "a mixture")
ROUTED = Use(_in_mixtures(_routes), "a mixture that is not soft")
SCORED = Use(_in_mixtures(_scores), "a router with scores")
CAPACITY = Use(_in_mixtures(_has_capacity), "routing.capacity.factor")
SOFT = Use(_of(Selection.SOFT), "routing.selection=soft")
TEXT = Use(lambda c: c.task != "images", "task=language")

USED: dict[str, Use] = {
    "model.document_attention": TEXT,
    "model.vocab_size": TEXT,
    "model.embeddings": TEXT,
    "model.tied_head": TEXT,
    "model.patch": Use(lambda c: c.task == "images", "task=images"),
    "data.tokenizer.kind": TEXT,
    "data.tokenizer.vocab_size": Use(
        lambda c: c.task != "images" and c.data.tokenizer.kind == "bpe", "data.tokenizer.kind=bpe"
    ),
    "routing.unit": MIXTURE,
    "routing.segment_length": Use(_in_mixtures(lambda r: r.unit is Unit.SEGMENT), "routing.unit=segment"),
    "routing.context": MIXTURE,
    "routing.prefix_length": Use(_in_mixtures(lambda r: r.context is Context.PREFIX), "routing.context=prefix"),
    "routing.first_segment": Use(
        _in_mixtures(lambda r: r.context is Context.PREVIOUS_SEGMENT), "routing.context=previous_segment"
    ),
    "routing.label": Use(_in_mixtures(lambda r: r.router is RouterKind.LABEL), "routing.router=label"),
    "routing.scope": Use(
        lambda c: ROUTED.can(c) and len(mixture_layers(c.routing, c.model.layers)) > 1, "more than one mixture layer"
    ),
    "routing.router": MIXTURE,
    "routing.router_depth": Use(_in_mixtures(lambda r: r.router is RouterKind.MLP), "routing.router=mlp"),
    "routing.router_width": Use(_in_mixtures(lambda r: r.router is RouterKind.MLP), "routing.router=mlp"),
    "routing.router_state": Use(_in_mixtures(lambda r: _scores(r) or _has_slot_scores(r)), "a router with scores"),
    "routing.router_noise": SCORED,
    "routing.shuffle": Use(_of(*PICKING), f"routing.selection={one_of(PICKING)}"),
    "routing.num_experts": MIXTURE,
    "routing.k": Use(_of(*TAKING_K), f"routing.selection={one_of(TAKING_K)}"),
    "routing.threshold": Use(_of(Selection.THRESHOLD), "routing.selection=threshold"),
    "routing.threshold_budget": Use(_of(Selection.THRESHOLD), "routing.selection=threshold"),
    "routing.choice_scope": Use(_of(Selection.EXPERT_CHOICE), "routing.selection=expert_choice"),
    "routing.gate": SCORED,
    "routing.renormalise": SCORED,
    "routing.ffn_multiplier": Use(lambda c: c.routing.expert_size is None, "routing.expert_size=null"),
    "routing.granularity": MIXTURE,
    "routing.shared_experts": MIXTURE,
    "routing.layers": MIXTURE,
    "routing.capacity.factor": Use(
        _in_mixtures(lambda r: r.unit is Unit.TOKEN and r.selection in PICKING),
        f"routing.selection={one_of(PICKING)}",
    ),
    "routing.capacity.priority": CAPACITY,
    "routing.capacity.group": CAPACITY,
    "routing.capacity.minimum": CAPACITY,
    "routing.balance.switch": SCORED,
    "routing.balance.z": SCORED,
    "routing.balance.bias_rate": Use(
        _in_mixtures(lambda r: _scores(r) and facts_of(r).counts_picks), "routing.selection=top_k"
    ),
    "routing.balance.scope": Use(
        _balances_over_micro_batches, "routing.balance.switch above 0 and a run.micro_batch below run.batch_size"
    ),
    "routing.balance.choices": Use(
        _balances_several_choices, "routing.balance.switch above 0 and more than one expert per token"
    ),
    "routing.soft.form": SOFT,
    "routing.soft.slots_per_expert": SOFT,
    "routing.soft.chunk_length": Use(
        lambda c: SOFT.can(c) and c.routing.soft.form in (SoftForm.CHUNK, SoftForm.CHUNK_LAGGED),
        "routing.soft.form=chunk or chunk_lagged",
    ),
    "routing.soft.group_size": Use(
        lambda c: SOFT.can(c) and c.routing.soft.form is SoftForm.ACROSS_BATCH, "routing.soft.form=across_batch"
    ),
    "routing.soft.dispatch": SOFT,
    "routing.soft.combine": SOFT,
    "routing.soft.normalise": Use(_in_mixtures(_has_slot_scores), "routing.soft.dispatch=soft or combine=soft"),
    "run.dispatch": Use(_in_mixtures(lambda r: r.selection is not Selection.MERGE), "experts that are not merged"),
}


def is_used(config: Any, name: str) -> bool:
    """Whether the setting `name` (dotted) has a part in what the valid `config` trains."""
    return name not in USED or USED[name].can(config)


def unused(config: Any) -> list[str]:
    """The settings that have no part in what the valid `config` trains."""
    return [name for name in USED if not is_used(config, name)]


def explain_unused(config: Any, names: Iterable[str]) -> str | None:
    """Those of `names` that have no part in what `config` trains, and why, in one line; None when all have."""
    by_reason: dict[str, list[str]] = {}
    for name in names:
        if not is_used(config, name):
            by_reason.setdefault(_reason(config, name), []).append(name)
    return "; ".join(_sentence(names, reason) for reason, names in by_reason.items()) or None


def _reason(config: Any, name: str) -> str:
    of_mixtures = name.startswith("routing.") and name != "routing.ffn_multiplier"
    if config.routing.selection is Selection.DENSE and of_mixtures:
        return " on a dense model"
    return f" without {USED[name].needs}"


def _sentence(names: Sequence[str], reason: str) -> str:
    listed = " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
    return f"{listed} {'have' if len(names) > 1 else 'has'} no effect{reason}"
