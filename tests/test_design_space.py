"""Any point of the design space is refused in words, or trains: finite loss and gradients, parameters as counted.

Shape suffixes: B sequences, T positions, E experts.
"""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from moe_study.audit.audit import audit
from moe_study.design.accounting import num_params
from moe_study.design.config import RunConfig
from moe_study.design.routing import experts_of_layer, mixture_layers
from moe_study.design.validation import validate
from moe_study.errors import ConfigError
from moe_study.model.gpt import GPT, Output
from tests.points import VOCABULARY, examples, points

STEPS = 2
LABELS = 3
quickly = settings(deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow])


def is_refused(config: RunConfig) -> bool:
    """Whether validation refuses the point, with one sentence and no other error."""
    try:
        validate(config)
    except ConfigError as error:
        sentence = str(error)
        assert len(sentence.split()) > 4 and "\n" not in sentence
        return True
    return False


@pytest.mark.slow
@settings(quickly, max_examples=examples(200))
@given(points(), st.integers(0, 1000))
def test_a_point_is_refused_in_words_or_trains(config: RunConfig, seed: int) -> None:
    if is_refused(config):
        return
    model = GPT(config.model, config.routing, config.vocab_size, seed=seed, end_of_text=VOCABULARY - 1)
    assert model.num_parameters() == num_params(config)
    decay, no_decay = model.decay_groups()
    optimizer = torch.optim.AdamW([*decay, *no_decay], lr=1e-2)
    torch.manual_seed(seed)
    model.train()
    for step in range(STEPS):
        model.begin_step(step)
        tokens_BT = torch.randint(VOCABULARY, (config.run.batch_size, config.model.context + 1))
        label_B = torch.randint(LABELS, (config.run.batch_size,))
        output = model(tokens_BT[:, :-1], tokens_BT[:, 1:], label_B=label_B)
        assert output.loss is not None and output.loss.isfinite() and output.aux_loss.isfinite()
        (output.loss + output.aux_loss).backward()
        assert_gradients(model)
        assert_experts_learn(config, model, output)
        optimizer.step()
        optimizer.zero_grad()
        model.end_step()
    assert all(parameter.isfinite().all() for parameter in model.parameters())


def assert_gradients(model: GPT) -> None:
    """Every trained parameter has a gradient, and a finite one."""
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
        else:
            assert parameter.grad is None, name


def assert_experts_learn(config: RunConfig, model: GPT, output: Output) -> None:
    """An expert that received tokens has a gradient other than zero in each of its matrices."""
    layers = mixture_layers(config.routing, config.model.layers)
    assert tuple(stats.layer for stats in output.stats) == layers
    for stats in output.stats:
        assert len(stats.kept_E) == experts_of_layer(config.routing, config.model.layers, stats.layer)
        experts = model.blocks[stats.layer].ffn.experts  # type: ignore[union-attr]
        for stack in (experts.up_EDF, experts.down_EFD):  # type: ignore[union-attr]
            assert isinstance(stack, Tensor) and stack.grad is not None
            moved_E = stack.grad.flatten(1).abs().amax(1) > 0
            assert moved_E[stats.kept_E > 0].all()


@pytest.mark.slow
@settings(quickly, max_examples=examples(80))
@given(points())
def test_no_point_leaks_more_than_it_declares(config: RunConfig) -> None:
    if is_refused(config):
        return
    result = audit(config, trials=2)
    measured, declared = result.measured.verdict, result.declared
    assert measured | declared == declared
    assert declared.leaks or not result.measured.truncation.leaks


def test_most_points_that_are_drawn_are_valid():
    """Otherwise the tests above would hold of nothing."""
    refused = []

    @settings(max_examples=100, deadline=None, database=None, derandomize=True)
    @given(points())
    def draw(config: RunConfig) -> None:
        refused.append(is_refused(config))

    draw()
    assert len(refused) >= 80 and sum(refused) < len(refused) / 2
