"""FLOPs and active parameters of a finished run: nominal, and those that ran, against counts of other makes."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from moe_study.design import accounting
from moe_study.design.routing import Capacity, ChoiceScope, Routing, Selection
from moe_study.model.gpt import GPT
from moe_study.model.moe.layer import MixtureLayer
from moe_study.training.evaluation import Evaluation, evaluate
from moe_study.training.result import _accounting
from tests.design.points import VOCABULARY, toy
from tests.training.doubles import Batch

POINTS = {
    "capacity": Routing(num_experts=4, capacity=Capacity(0.7)),
    "capacity, experts by layer": Routing(num_experts=(2, 5, 3), capacity=Capacity(0.6)),
    "capacity in two layers": Routing(k=2, layers=(0, 2), capacity=Capacity(0.6)),
    "cutoff": Routing(selection=Selection.EXPERT_CHOICE, choice_scope=ChoiceScope.CUTOFF),
    "expert choice": Routing(selection=Selection.EXPERT_CHOICE, num_experts=3, k=1),
    "threshold": Routing(selection=Selection.THRESHOLD, threshold=0.6),
}
CORPUS = SimpleNamespace(languages=["en"], topics=["news"], token_bytes_V=np.ones(VOCABULARY))


def evaluated(config, sharp=30.0):
    """An evaluation of a model with sharp routers (so that a capacity binds), and what PyTorch counts of it."""
    torch.manual_seed(0)
    model = GPT(config.model, config.routing, config.vocab_size).double()
    for name, parameter in model.named_parameters():
        if ".router." in name:
            parameter.data.mul_(sharp)
    random, shape = np.random.default_rng(0), (4, config.model.context)
    labels_B = np.zeros(4, dtype=np.int64)
    batches = [Batch(random.integers(VOCABULARY, size=shape), random.integers(VOCABULARY, size=shape), *[labels_B] * 2)]
    evaluation = evaluate(model, batches, CORPUS, torch.device("cpu"), detail=True)
    model.eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        model(torch.from_numpy(batches[0].inputs_BT), label_B=torch.from_numpy(labels_B))
    return evaluation, counter.get_total_flops() / np.prod(shape), model


@pytest.mark.parametrize("point", POINTS)
def test_executed_flops_are_those_that_pytorch_counts_and_nominal_ones_follow_from_the_configuration(point):
    config = toy(POINTS[point])
    evaluation, counted, _ = evaluated(config)
    found = _accounting(config, evaluation)
    assert found["executed_flops_per_token"] == pytest.approx(counted, rel=1e-12)
    assert found["flops_per_token"] == accounting.flops_per_token(config)
    if config.routing.selection is not Selection.EXPERT_CHOICE or config.routing.choice_scope is ChoiceScope.CUTOFF:
        assert found["executed_flops_per_token"] != found["flops_per_token"]


@pytest.mark.parametrize("point", POINTS)
def test_executed_active_parameters_are_counted_row_by_row(point):
    config = toy(POINTS[point])
    evaluation, _, model = evaluated(config)
    idle = 0.0
    for layer in (module for module in model.modules() if isinstance(module, MixtureLayer)):
        rows = evaluation.routing[evaluation.routing["layer"] == layer.layer]["count"].sum() / evaluation.tokens
        one_expert = sum(parameter[0].numel() for parameter in layer.experts.parameters())
        idle += (layer.num_experts - rows) * one_expert
    found = _accounting(config, evaluation)
    assert found["executed_active_params"] == pytest.approx(model.num_parameters() - idle, abs=0.51)


def test_one_layer_that_drops_more_than_another_is_not_averaged_away():
    """Layers whose networks cost alike can be averaged; a block that is dense cannot stand for one."""
    config = toy(Routing(k=2, layers=(0, 2)))
    by_layer = accounting.flops_per_token(config, {0: 0.5, 2: 1.75})
    assert by_layer == pytest.approx(accounting.flops_per_token(config, 1.125))
    assert accounting.num_active_params(config, {0: 2.0, 2: 2.0}) == accounting.num_active_params(config)


def test_a_dense_model_executes_what_it_has():
    config = toy(Routing(selection=Selection.DENSE))
    evaluation = Evaluation(1.0, 1, None, {}, {}, None)
    found = _accounting(config, dataclasses.replace(evaluation, rows_per_token={"kept_per_token": {}}))
    assert found["executed_flops_per_token"] == found["flops_per_token"]
    assert found["executed_active_params"] == found["num_active_params"] == found["num_params"]
