import math

import pytest
import torch

from moe_study.design.config import OptimizerConfig
from moe_study.training.optimizer import build_optimizer, learning_rate
from tests.training.doubles import TinyModel

SCHEDULE = OptimizerConfig(lr=1.0, min_lr=0.1, warmup_steps=4)


def test_warm_up_is_linear_and_reaches_the_rate():
    assert [learning_rate(s, 20, SCHEDULE) for s in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]


def test_the_cosine_ends_at_the_minimum_and_is_halfway_at_its_middle():
    assert learning_rate(19, 20, SCHEDULE) == pytest.approx(0.1, abs=1e-12)
    assert learning_rate(4 + 15 // 2, 20, SCHEDULE) == pytest.approx(
        0.1 + 0.45 * (1 + math.cos(math.pi * 7 / 15)), abs=1e-12
    )


def test_the_cosine_agrees_with_torchs_own_schedule():
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    reference = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=15, eta_min=0.1)
    for step in range(4, 20):
        assert learning_rate(step, 20, SCHEDULE) == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-9)
        optimizer.step()
        reference.step()


@pytest.mark.parametrize(("steps", "warmup"), [(1, 0), (1, 1), (5, 4), (3, 10)])
def test_short_runs_have_a_positive_rate_at_every_step(steps, warmup):
    config = OptimizerConfig(lr=1.0, min_lr=0.0, warmup_steps=warmup)
    assert all(0 < learning_rate(s, steps, config) <= 1.0 for s in range(steps))


def test_matrices_decay_biases_do_not_and_frozen_parameters_are_left_out():
    model = TinyModel()
    model.router.requires_grad_(False)
    optimizer = build_optimizer(model, OptimizerConfig(weight_decay=0.3), torch.device("cpu"))
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert decay == {id(model.embedding): 0.3, id(model.w_EDD): 0.3, id(model.bias_E): 0.0}


def test_one_update_is_that_of_the_adamw_paper():
    """1711.05101, algorithm 2, in plain float64 arithmetic."""
    model = TinyModel()
    config = OptimizerConfig(lr=0.01, betas=(0.8, 0.9), eps=1e-8, weight_decay=0.5)
    optimizer = build_optimizer(model, config, torch.device("cpu"))
    before = {name: p.detach().double().clone() for name, p in model.named_parameters()}
    gradients = [{name: torch.randn_like(p) for name, p in model.named_parameters()} for _ in range(3)]
    m = {name: torch.zeros_like(value) for name, value in before.items()}
    v = {name: torch.zeros_like(value) for name, value in before.items()}
    for t, gradient in enumerate(gradients, start=1):
        for name, parameter in model.named_parameters():
            parameter.grad = gradient[name].clone()
            g = gradient[name].double()
            m[name] = 0.8 * m[name] + 0.2 * g
            v[name] = 0.9 * v[name] + 0.1 * g**2
            step = (m[name] / (1 - 0.8**t)) / ((v[name] / (1 - 0.9**t)).sqrt() + 1e-8)
            decay = 0.5 if parameter.ndim > 1 else 0.0
            before[name] = before[name] - 0.01 * (step + decay * before[name])
        optimizer.step()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.detach().double(), before[name], rtol=1e-5, atol=1e-6)
