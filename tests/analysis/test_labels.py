import dataclasses
import itertools

import pandas as pd
import pytest

from moe_study.analysis.labels import add_labels, full_label, shortest_labels
from moe_study.design.config import Embeddings, ModelConfig, OptimizerConfig, RunConfig, RunSettings
from moe_study.design.identity import settings_of
from moe_study.design.normal import normalised
from moe_study.design.routing import (
    Balance,
    Capacity,
    Choices,
    Context,
    Gate,
    RouterKind,
    RouterState,
    Routing,
    Scope,
    Selection,
    Unit,
)
from moe_study.sweeps.compose import open_composer
from moe_study.sweeps.conf import project_root
from moe_study.sweeps.plan import plan_command
from moe_study.sweeps.sweep_file import sweep_names
from tests.analysis import planted

DENSE = Selection.DENSE


def labels(*points):
    """Labels of routings, or of whole configurations."""
    configs = [p if isinstance(p, RunConfig) else RunConfig(routing=p) for p in points]
    return shortest_labels([settings_of(normalised(config)) for config in configs])


def test_the_first_look_reads_as_one_would_say_it():
    assert labels(*planted.FIRST_LOOK) == [
        "dense 1x",
        "dense 2x",
        "token top-1",
        "token top-2",
        "token top-2, frozen",
        "sequence top-2",
    ]


def test_the_number_of_experts_is_said_where_it_tells_points_apart():
    four, eight = Routing(k=2), Routing(k=2, num_experts=8)
    assert labels(four, eight) == ["token top-2 of 4", "token top-2 of 8"]
    frozen = dataclasses.replace(eight, router_state=RouterState.FROZEN)
    assert labels(four, eight, frozen)[2] == "token top-2 of 8, frozen"


def test_embeddings_are_said_where_they_are_not_learned_and_a_head_where_it_is_its_own():
    states = ((Embeddings.LEARNED, True), *((state, False) for state in Embeddings))
    models = [ModelConfig(embeddings=state, tied_head=tied) for state, tied in states]
    said = ["", ", untied head", ", frozen embeddings", ", redrawn embeddings"]
    for routing, head in ((Routing(k=2), "token top-2"), (Routing(selection=DENSE), "dense 1x")):
        points = [RunConfig(routing=routing, model=model) for model in models]
        assert labels(*points) == [head + words for words in said]
        assert full_label(settings_of(normalised(points[2]))).endswith(", frozen embeddings")


def test_which_choices_balance_counts_is_said_where_it_is_not_what_the_rule_does_by_itself():
    threshold = Routing(selection=Selection.THRESHOLD, balance=Balance(switch=0.01, choices=Choices.FIRST))
    every = dataclasses.replace(threshold, balance=Balance(switch=0.01, choices=Choices.ALL))
    assert labels(threshold, every) == ["token threshold 0.9", "token threshold 0.9, over all choices"]
    first = Routing(k=2, balance=Balance(switch=0.01, choices=Choices.FIRST))
    both = dataclasses.replace(first, balance=Balance(switch=0.01, choices=Choices.ALL))
    assert labels(both, first) == ["token top-2", "token top-2, over first choices"]


def test_a_router_that_is_told_the_label_is_called_by_it():
    learned = Routing(k=2, unit=Unit.SEQUENCE, context=Context.UNIT_MEAN, scope=Scope.GLOBAL)
    oracle = dataclasses.replace(learned, context=Context.LABEL, router=RouterKind.LABEL)
    assert labels(oracle, learned) == ["sequence top-2, by language", "sequence top-2, unit mean"]
    assert labels(oracle, dataclasses.replace(oracle, label="topic"))[1] == "sequence top-2, by topic"


def test_of_axes_that_vary_together_only_one_is_said():
    token = Routing(k=2, gate=Gate.PICK_THEN_SOFTMAX)
    both = dataclasses.replace(token, scope=Scope.GLOBAL, gate=Gate.DOUBLE_SOFTMAX, balance=Balance(switch=0.01))
    assert labels(token, both) == ["token top-2", "token top-2, global"]


def test_axes_that_do_not_vary_are_not_said():
    base = Routing(scope=Scope.GLOBAL, unit=Unit.SEQUENCE, context=Context.PREFIX, prefix_length=8)
    assert labels(base, dataclasses.replace(base, k=2)) == ["sequence top-1", "sequence top-2"]


def test_what_most_points_share_goes_without_saying_and_the_rest_is_said():
    usual = Routing(k=2, num_experts=4)
    changes = ({}, {"router_state": RouterState.FROZEN}, {"scope": Scope.GLOBAL}, {"renormalise": True}, {"k": 1})
    four = [dataclasses.replace(usual, **change) for change in changes]
    six = dataclasses.replace(usual, num_experts=6)
    assert labels(*four, six) == [
        "token top-2",
        "token top-2, frozen",
        "token top-2, global",
        "token top-2, renormalised",
        "token top-1",  # of 4 too, as its kind mostly is
        "token top-2 of 6",
    ]


def test_a_plain_value_that_is_rare_is_not_taken_for_the_usual_one():
    frozen = [Routing(k=2, num_experts=n, router_state=RouterState.FROZEN) for n in (2, 4, 6, 8)]
    found = labels(*frozen, Routing(k=2, num_experts=4))
    assert found[1] == "token top-2 of 4, frozen" and found[-1] == "token top-2 of 4"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"router_state": RouterState.REDRAWN}, "redrawn"),
        ({"balance": Balance(switch=0.01)}, "balance 0.01"),
        ({"balance": Balance(bias_rate=0.001)}, "loss-free 0.001"),
        ({"capacity": Capacity(factor=1.25)}, "capacity 1.25"),
        ({"router": RouterKind.MLP}, "MLP router"),
        ({"router": RouterKind.HASH}, "hash router"),
        ({"shared_experts": 1}, "1 shared"),
        ({"granularity": 4}, "split 4 ways"),
        ({"context": Context.RUNNING_MEAN}, "running mean"),
        ({"expert_size": 96}, "0.25x experts"),
        ({"ffn_multiplier": 0.5}, "0.5x experts"),
        ({"expert_size": 100}, "size 100"),
        ({"layers": "every_second"}, "layers every second"),
        ({"layers": (0, 2)}, "layers (0, 2)"),
    ],
)
def test_one_changed_axis_is_the_one_that_is_said(change, words):
    base = Routing(k=2)
    assert labels(base, dataclasses.replace(base, **change)) == ["token top-2", f"token top-2, {words}"]


def test_a_dense_twin_is_named_by_its_width_over_the_plain_one():
    twin = Routing(selection=DENSE, expert_size=768)  # 2 * 4 * 96
    assert labels(Routing(selection=DENSE), twin) == ["dense 1x", "dense 2x"]


def test_settings_outside_the_routing_tell_points_apart_too():
    slow = RunConfig(routing=Routing(k=2), optimizer=OptimizerConfig(lr=5e-4))
    assert labels(RunConfig(routing=Routing(k=2)), slow) == ["token top-2, lr 0.001", "token top-2, lr 0.0005"]


def test_what_a_point_ignores_is_not_said():
    ignored = Routing(selection=DENSE, num_experts=8, k=3, router_state=RouterState.FROZEN, balance=Balance(switch=0.1))
    assert labels(ignored, Routing()) == ["dense 1x", "token top-1"]


def test_what_follows_another_setting_is_said_only_by_it():
    wide = RunConfig(routing=Routing(k=2), model=ModelConfig(width=192))
    assert labels(RunConfig(routing=Routing(k=2)), wide) == ["token top-2, width 96", "token top-2, width 192"]
    budget = RunSettings(tokens=100_000)
    halves = [RunConfig(routing=Routing(), run=dataclasses.replace(budget, batch_size=size)) for size in (8, 4)]
    assert labels(*halves) == ["token top-1, batch size 8", "token top-1, batch size 4"]


def test_every_point_of_a_large_grid_has_a_label_of_its_own():
    axes = {
        "unit": (Unit.TOKEN, Unit.SEQUENCE),
        "k": (1, 2),
        "num_experts": (4, (4, 8, 8)),
        "scope": (Scope.LAYER, Scope.GLOBAL),
        "gate": (Gate.SOFTMAX_THEN_PICK, Gate.SIGMOID),
        "router_state": tuple(RouterState),
        "balance": (Balance(), Balance(switch=0.01, z=0.001)),
    }
    points = [Routing(**dict(zip(axes, values, strict=True))) for values in itertools.product(*axes.values())]
    found = labels(*points)
    assert len(set(found)) == len(points) == 192


@pytest.mark.long
def test_every_committed_sweep_has_short_and_different_labels():
    with open_composer() as composer:
        for name in sweep_names(project_root()):
            runs = plan_command(composer, [f"+sweep={name}"], project_root()).runs
            alike = [dataclasses.replace(r.config, run=dataclasses.replace(r.config.run, seed=0)) for r in runs]
            points = {config.key: config for config in alike}
            found = labels(*points.values())
            assert len(set(found)) == len(points), name
            assert max(map(len, found)) <= 64, name


def test_a_run_whose_configuration_is_lost_is_called_by_its_key():
    frame = pd.DataFrame([{"key": "abc", "state": "damaged"}])
    assert add_labels(frame)["label"].tolist() == ["abc"]
