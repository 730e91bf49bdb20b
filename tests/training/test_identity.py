"""Keys and what is trained: runs of one key train the same, and a key changes only with a setting that counts."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from moe_study.data.shards import Shard, Split
from moe_study.design.config import Embeddings, RunConfig
from moe_study.design.identity import identity, is_outside
from moe_study.design.plain import flatten, to_plain, value_at, with_values
from moe_study.design.routing import (
    Choices,
    ChoiceScope,
    Context,
    Gate,
    Group,
    Priority,
    RouterKind,
    RouterState,
    Scope,
    Selection,
    SoftForm,
    SoftWeights,
    Unit,
    mixture_layers,
    whole_hidden,
)
from moe_study.design.unused import USED, is_used
from moe_study.design.validation import problems
from moe_study.training.loop import Trainer
from moe_study.training.models import build_model
from moe_study.training.tasks import task_of
from tests.points import VOCABULARY, examples, points

STEPS = 2
quickly = settings(max_examples=examples(25), deadline=None)

# Legal values of the settings that some configurations cannot use; `model` is not resized, for speed.
VALUES: dict[str, list[Any]] = {
    "routing.unit": list(Unit),
    "routing.segment_length": [None, 1, 3],
    "routing.context": list(Context),
    "routing.prefix_length": [None, 1, 3],
    "routing.first_segment": ["prior", "own_mean"],
    "routing.label": ["language", "topic"],
    "routing.scope": list(Scope),
    "routing.router": list(RouterKind),
    "routing.router_depth": [1, 2],
    "routing.router_width": [1.0, 2.0],
    "routing.router_state": list(RouterState),
    "routing.router_noise": [0.0, 0.5],
    "routing.shuffle": [False, True],
    "routing.num_experts": [2, 3, (3, 2)],
    "routing.k": [1, 2],
    "routing.threshold": [0.3, 0.9],
    "routing.threshold_budget": [None, 1.5],
    "routing.choice_scope": list(ChoiceScope),
    "routing.gate": list(Gate),
    "routing.renormalise": [False, True],
    "routing.ffn_multiplier": [0.5, 1.0],
    "routing.granularity": [1, 2],
    "routing.shared_experts": [0, 1],
    "routing.layers": ["all", "every_second", (0,)],
    "routing.capacity.factor": [None, 0.5],
    "routing.capacity.priority": list(Priority),
    "routing.capacity.group": list(Group),
    "routing.capacity.minimum": [1, 3],
    "routing.balance.switch": [0.0, 0.1],
    "routing.balance.z": [0.0, 0.1],
    "routing.balance.bias_rate": [0.0, 0.01],
    "routing.balance.scope": ["micro_batch", "batch"],
    "routing.balance.choices": [None, *Choices],
    "routing.soft.form": list(SoftForm),
    "routing.soft.slots_per_expert": [1, 2],
    "routing.soft.chunk_length": [None, 3],
    "routing.soft.group_size": [None, 2],
    "routing.soft.dispatch": list(SoftWeights),
    "routing.soft.combine": list(SoftWeights),
    "routing.soft.normalise": [True, False],
    "run.dispatch": ["auto", "grouped"],
    "model.document_attention": [False, True],
    "model.vocab_size": [None, VOCABULARY, VOCABULARY + 3],
    "model.embeddings": list(Embeddings),
    "model.tied_head": [True, False],
    "model.patch": [None],
    "data.tokenizer.kind": ["bpe"],
    "data.tokenizer.vocab_size": [VOCABULARY],
}
ALWAYS_USED: dict[str, list[Any]] = {
    "model.ffn_size": [None, 12, 16],
    "model.dropout": [0.0, 0.1],
    "model.bias": [True, False],
    "routing.selection": list(Selection),
    "routing.expert_size": [None, 4, 6],
    "optimizer.lr": [1e-3, 1e-2],
    "optimizer.weight_decay": [0.1, 0.0],
    "optimizer.grad_clip": [1.0, 0.0],
    "run.seed": [0, 1],
    "run.batch_size": [2, 4],
    "run.micro_batch": [None, 1, 2],
    "run.eval_tokens": [65_536, 24],
    "data.root": ["data", "elsewhere"],
    "log.log_every": [10, 1],
}


def is_valid(config: RunConfig) -> bool:
    return not list(problems(config))


def corpus(context: int) -> Any:
    """Text enough for a few batches: two languages, two topics."""
    draw = np.random.default_rng(0)

    def split(name: str) -> Split:
        tokens = [draw.integers(VOCABULARY, size=6 * context + 1).astype("<u2") for _ in range(2)]
        shards = tuple(Shard(None, i, 1 - i, ids, 1, 1) for i, ids in enumerate(tokens))  # type: ignore[arg-type]
        return Split(name, shards, 0)

    return SimpleNamespace(train=split("train"), validation=split("validation"))


def trained(config: RunConfig) -> dict[str, Any]:
    """What a run of `config` reads and becomes: batches, initial weights, weights and losses after two steps."""
    data, task = corpus(config.model.context), task_of(config)
    sampler = task.training(config, data)
    model = build_model(config, end_of_text=0)
    found: dict[str, Any] = {f"initial {name}": value.clone() for name, value in model.state_dict().items()}
    trainer = Trainer(config, model, sampler, torch.device("cpu"))
    for step in range(STEPS):
        found[f"batch {step}"] = torch.from_numpy(np.ascontiguousarray(sampler.batch(step).inputs_BT))
        trainer.train_step()
    found |= {f"trained {name}": value for name, value in model.state_dict().items()}
    model.eval()
    with torch.no_grad():
        for number, batch in enumerate(task.validation(config, data)):
            labels = batch.topic_B if config.routing.label == "topic" else batch.language_B
            inputs, targets = torch.from_numpy(batch.inputs_BT), torch.from_numpy(batch.targets_BT)
            output = model(inputs, targets, label_B=torch.from_numpy(labels), per_token=True)
            found[f"validation {number}"] = output.token_loss_BT
    return found


def assert_the_same(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value.nan_to_num(7.0), other[name].nan_to_num(7.0)), name


@st.composite
def respelled(draw: st.DrawFn, config: RunConfig) -> RunConfig:
    """The same run written differently: settings that it cannot use at any value, sizes said in another way."""
    for name in USED:
        if not is_used(config, name) and name in VALUES:
            other = with_values(config, {name: draw(st.sampled_from(VALUES[name]))})
            config = other if is_valid(other) else config
    for change in (_sizes, _lists, _split, _budget):
        if draw(st.booleans()):
            other = with_values(config, change(config))
            config = other if is_valid(other) else config
    return config


def _sizes(config: RunConfig) -> dict[str, Any]:
    hidden = whole_hidden(config.routing, config.model.hidden)
    return {
        "model.ffn_size": config.model.hidden,
        "model.vocab_size": config.vocab_size,
        "run.micro_batch": config.run.micro_batch or config.run.batch_size,
        "routing.expert_size": hidden,
    }


def _lists(config: RunConfig) -> dict[str, Any]:
    layers, counts = mixture_layers(config.routing, config.model.layers), config.routing.num_experts
    listed = (counts,) * len(layers) if isinstance(counts, int) else counts
    return {"routing.layers": layers, "routing.num_experts": listed}


def _split(config: RunConfig) -> dict[str, Any]:
    """Experts that were split, as experts that were small from the beginning."""
    routing, parts = config.routing, config.routing.granularity
    counts = routing.num_experts
    if routing.selection is Selection.DENSE:
        return {}  # which ignores its granularity
    return {
        "routing.granularity": 1,
        "routing.num_experts": counts * parts if isinstance(counts, int) else tuple(n * parts for n in counts),
        "routing.k": routing.k * parts,
        "routing.expert_size": whole_hidden(routing, config.model.hidden) // parts,
    }


def _budget(config: RunConfig) -> dict[str, Any]:
    return {"run.steps": None, "run.tokens": config.total_steps * config.tokens_per_step - 1}


@quickly
@given(st.data())
def test_two_spellings_of_a_run_have_one_key_and_train_the_same_to_the_last_bit(data: st.DataObject) -> None:
    config = data.draw(points().filter(is_valid))
    other = data.draw(respelled(config))
    assert other.key == config.key
    assert_the_same(trained(config), trained(other))


@quickly
@given(st.data())
def test_where_one_setting_changes_the_key_changes_or_nothing_does(data: st.DataObject) -> None:
    config = data.draw(points().filter(is_valid))
    name = data.draw(st.sampled_from(sorted(VALUES | ALWAYS_USED)))
    other = with_values(config, {name: data.draw(st.sampled_from((VALUES | ALWAYS_USED)[name]))})
    if not is_valid(other):
        return
    if config.key == other.key:
        assert_the_same(trained(config), trained(other))
    else:
        assert value_at(config, name) != value_at(other, name) and not is_outside(name)
        assert is_used(config, name) or is_used(other, name)
        assert identity(config) != identity(other)


def test_every_setting_that_some_runs_cannot_use_is_drawn() -> None:
    assert set(USED) <= set(VALUES)
    assert set(VALUES | ALWAYS_USED) <= set(flatten(to_plain(RunConfig())))
