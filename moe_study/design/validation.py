"""Refuses configurations that have no meaning, each with one sentence that says what to change."""

import math
from collections.abc import Callable, Iterator

from moe_study.design.choices import CHOICES
from moe_study.design.config import IMAGE_RECIPES, Embeddings, RunConfig
from moe_study.design.data_options import check_data_config
from moe_study.design.plain import flatten, to_plain, value_at
from moe_study.design.routing import Context
from moe_study.design.routing_validation import routing_checks
from moe_study.errors import ConfigError

WITHOUT_EVERY = {  # of log: what 0 does
    "log_every": "records the last step only",
    "routing_every": "records shares of experts at the last step only",
    "gradients_every": "records no gradient norms",
    "checkpoint_every": "saves only at the end and on a signal",
}


def validate(config: RunConfig) -> None:
    """Raise ConfigError for the first thing that is wrong with `config`."""
    for problem in problems(config):
        raise ConfigError(problem)


def problems(config: RunConfig) -> Iterator[str]:
    """All that is wrong of the first kind that is, one sentence each; later checks rely on the earlier ones."""
    checks: list[Callable[[RunConfig], Iterator[str]]] = [_finite, _choices, _task, _data, _model, _run, _optimizer]
    checks += routing_checks(config.routing)
    for check in checks:
        found = list(check(config))
        yield from found
        if found:
            return


def _finite(config: RunConfig) -> Iterator[str]:
    for name, value in flatten(to_plain(config)).items():
        for number in value if isinstance(value, tuple) else [value]:
            if isinstance(number, float) and not math.isfinite(number):
                yield f"{name}={number} must be a finite number"


def _choices(config: RunConfig) -> Iterator[str]:
    for name, legal in CHOICES.items():
        if (value := value_at(config, name)) not in legal:
            yield f"{name}={value} is unknown; choose one of {', '.join(legal)}"


def _task(config: RunConfig) -> Iterator[str]:
    model, data = config.model, config.data
    if config.task == "language":
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


def _data(config: RunConfig) -> Iterator[str]:
    try:
        check_data_config(config.data)
    except ConfigError as error:
        yield str(error)


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
    if model.embeddings is not Embeddings.LEARNED or not model.tied_head:
        yield "model.embeddings and model.tied_head are of tokens, which task=images has none of; drop them"
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
    if model.init_std is not None and model.init_std <= 0:
        yield f"model.init_std={model.init_std} must be positive; null chooses it by model.width"
    if model.embeddings is not Embeddings.LEARNED and model.tied_head:
        yield (
            f"model.embeddings={model.embeddings} would leave a tied output head {model.embeddings}, too: "
            "set model.tied_head=false"
        )


def _run(config: RunConfig) -> Iterator[str]:
    run, log = config.run, config.log
    if (run.steps is None) == (run.tokens is None):
        yield "give exactly one of run.steps and run.tokens (set the other one to null)"
    for name in ("steps", "tokens", "batch_size", "micro_batch", "eval_tokens", "eval_batch"):
        value = getattr(run, name)
        if value is not None and value < 1:
            yield f"run.{name}={value} must be at least 1"
    for name in ("keep_checkpoints", "threads", "trace_every", "trace_tokens"):
        value = getattr(log, name)
        if value is not None and value < 1:
            yield f"log.{name}={value} must be at least 1"
    for name, zero in WITHOUT_EVERY.items():
        if (value := getattr(log, name)) < 0:
            yield f"log.{name}={value} must not be negative; 0 {zero}"
    if log.trace_every is not None and config.task == "images":
        yield f"log.trace_every={log.trace_every} keeps routes of text, and task=images has none; set it to null"
    if run.eval_every < 0:
        yield f"run.eval_every={run.eval_every} must not be negative; 0 evaluates at the end only"
    if run.micro_batch and run.batch_size % run.micro_batch:
        yield f"run.batch_size={run.batch_size} must be a multiple of run.micro_batch={run.micro_batch}"
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
