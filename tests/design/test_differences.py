"""What counts as a difference: a setting that somebody changed, and not one that follows it."""

from typing import Any

import pytest

from moe_study.design.config import ModelConfig, RunConfig, RunSettings
from moe_study.design.differences import differing
from moe_study.design.identity import is_of_point, settings_of
from moe_study.design.normal import normalised
from moe_study.design.plain import with_values
from moe_study.design.routing import Routing, Selection

BASE = RunConfig(
    model=ModelConfig(layers=4, heads=2, width=32, context=16),
    routing=Routing(k=2),
    run=RunSettings(tokens=100_000, batch_size=8),
)


def apart(one: RunConfig, **changes: Any) -> set[str]:
    other = with_values(one, {name.replace("__", "."): value for name, value in changes.items()})
    settings = [settings_of(normalised(config)) for config in (one, other)]
    return set(differing(*settings, tuple(name for name in settings[0] if is_of_point(name))))


@pytest.mark.parametrize(
    ("changes", "counted"),
    [
        ({"model__width": 64}, {"model.width"}),  # networks, experts and initial deviation follow
        ({"model__width": 64, "model__init_std": 0.02}, {"model.width", "model.init_std"}),
        ({"model__width": 64, "routing__expert_size": 100}, {"model.width", "routing.expert_size"}),
        ({"run__batch_size": 4}, {"run.batch_size"}),  # twice the steps for the same tokens
        ({"run__tokens": 200_000}, {"run.steps"}),
        ({"run__batch_size": 4, "run__tokens": 200_000}, {"run.batch_size", "run.steps"}),
        ({"run__micro_batch": 4}, {"run.micro_batch"}),
        ({"model__context": 24}, {"model.context"}),
        ({"model__ffn_size": 64}, {"routing.expert_size"}),  # no block has a network of that size but the experts
        ({"routing__layers": "every_second"}, {"routing.layers"}),
        ({"routing__granularity": 2}, {"routing.granularity"}),
        ({"routing__ffn_multiplier": 2.0}, {"routing.expert_size"}),
        ({"routing__threshold": 0.1, "routing__soft__slots_per_expert": 9}, set()),
        ({"log__log_every": 1, "run__seed": 5, "data__root": "elsewhere"}, set()),
    ],
)
def test_only_what_was_changed_is_counted(changes: dict[str, Any], counted: set[str]) -> None:
    assert apart(BASE, **changes) == counted


def test_beside_mixtures_the_dense_blocks_count() -> None:
    mixed = with_values(BASE, {"routing.layers": "every_second"})
    assert apart(mixed, model__ffn_size=64) == {"model.ffn_size"}  # the experts follow
    assert apart(mixed, routing__expert_size=64) == {"routing.expert_size"}


def test_a_dense_model_ignores_the_axes_of_mixtures() -> None:
    dense = with_values(BASE, {"routing": Routing(selection=Selection.DENSE)})
    assert apart(dense, routing__num_experts=9, routing__k=3, routing__balance__switch=0.1) == set()
