"""Lazy experts: contributions over an even share, which experts are dropped, and what is said over seeds."""

import math

import pandas as pd
import pytest
import torch

from moe_study.analysis.specialisation.lazy import (
    DROP_COLUMNS,
    EXPERT_COLUMNS,
    below,
    contributions,
    every_token_has_every_expert,
    lazy_cells,
    lazy_sentences,
    least,
    notes_on,
    numbers_to_drop,
)
from moe_study.design.config import ModelConfig
from moe_study.design.routing import Capacity, ChoiceScope, Gate, RouterKind, Routing, Selection, Soft, SoftForm
from moe_study.model.forward_pass import ForwardPass
from moe_study.model.moe.soft import SoftLayer

ACTIVATIONS = pd.DataFrame(
    [
        (layer, expert, language, count, weight)
        for language in ("de", "en")
        for layer, expert, count, weight in (
            (0, 0, 30, 1.0), (0, 1, 10, 3.0), (0, 2, 0, 4.0), (1, 0, 9, 2.0), (1, 1, 1, 2.0), (2, 0, 5, 5.0),
        )
    ],
    columns=["layer", "expert", "language", "count", "weight"],
)  # fmt: skip

TOP_1 = Routing(selection=Selection.TOP_K, k=1, gate=Gate.SOFTMAX_THEN_PICK)


def test_contributions_are_shares_over_an_even_one_by_pairs_or_by_weights():
    by_count = contributions(ACTIVATIONS, [0, 1], TOP_1)
    assert by_count["share"].tolist() == pytest.approx([0.75, 0.25, 0.0, 0.9, 0.1])
    assert by_count["contribution"].tolist() == pytest.approx([2.25, 0.75, 0.0, 1.8, 0.2])
    assert by_count["experts"].tolist() == [3, 3, 3, 2, 2]
    by_weight = contributions(ACTIVATIONS, [0, 1], Routing(selection=Selection.SOFT))
    assert by_weight["contribution"].tolist() == pytest.approx([0.375, 1.125, 1.5, 1.0, 1.0])
    assert by_weight["rows"].tolist() == by_count["rows"].tolist() == by_count["contribution"].tolist()
    assert by_weight.groupby("layer")["contribution"].mean().tolist() == pytest.approx([1.0, 1.0])


def test_where_k_is_n_weights_tell_what_experts_contribute_since_picks_are_even_by_construction():
    top_2 = Routing(selection=Selection.TOP_K, k=2, num_experts=(3, 2), gate=Gate.PICK_THEN_SOFTMAX)
    found = contributions(ACTIVATIONS, [0, 1], top_2)  # of 3 in one layer, of 2 in the other
    assert found["contribution"].tolist() == pytest.approx([2.25, 0.75, 0.0, 1.0, 1.0])
    split = Routing(selection=Selection.TOP_K, k=1, num_experts=1, granularity=2)
    assert every_token_has_every_expert(split, 2) and not every_token_has_every_expert(split, 3)


@pytest.mark.parametrize(
    "routing",
    [
        Routing(selection=Selection.TOP_K, k=2, router=RouterKind.HASH),  # weights are 1 / K
        Routing(selection=Selection.TOP_K, k=2, capacity=Capacity(factor=1.0)),  # some are dropped
        Routing(selection=Selection.EXPERT_CHOICE, k=2, choice_scope=ChoiceScope.CUTOFF),
        Routing(selection=Selection.THRESHOLD, threshold=0.9),
    ],
)
def test_picks_tell_what_experts_contribute_where_a_token_may_go_without_one(routing):
    assert not every_token_has_every_expert(routing, 2)


@pytest.mark.parametrize(("form", "notes"), [("chunk_lagged", 1), ("chunk", 0)])
def test_what_expert_0_has_by_construction_is_said_of_lagged_points_alone(form, notes):
    runs = pd.DataFrame({"routing.selection": ["top_k", "soft"], "routing.soft.form": ["sequence", form]})
    assert len(notes_on(runs)) == notes


def test_expert_0_of_a_lagged_layer_contributes_what_its_first_chunk_gives_it_where_the_router_is_even():
    routing = Routing(
        selection=Selection.SOFT, num_experts=4, soft=Soft(SoftForm.CHUNK_LAGGED, chunk_length=2, normalise=False)
    )
    layer = SoftLayer(ModelConfig(layers=1, heads=1, width=8, context=16), routing, 0, 32).eval()
    for parameter in layer.parameters():
        torch.nn.init.zeros_(parameter)
    forward_pass = ForwardPass(torch.zeros(3, 16, dtype=torch.long), detail=True)
    layer(torch.randn(3, 16, 8), forward_pass)
    weight_E = forward_pass.stats[0].weight_BE.sum(0)
    counts = pd.DataFrame({"layer": 0, "expert": range(4), "count": 1, "weight": weight_E.numpy()})
    found = contributions(counts, [0], routing)["contribution"]
    assert found.tolist() == pytest.approx([1 + 3 * 2 / 16, *[1 - 2 / 16] * 3])


def test_an_expert_that_chooses_among_no_more_tokens_than_it_takes_has_all():
    assert every_token_has_every_expert(Routing(selection=Selection.EXPERT_CHOICE, k=2), 2)


def test_the_lazy_are_those_below_the_limit_and_the_least_are_never_all():
    experts = contributions(ACTIVATIONS, [0, 1, 2], TOP_1)
    assert below(experts, 0.1) == {0: [2]} and below(experts, 0.21) == {0: [2], 1: [1]}
    assert least(experts, 1) == {0: [2], 1: [1]}
    assert least(experts, 2) == {0: [2, 1], 1: [1]} and least(experts, 9) == least(experts, 2)


def test_of_experts_that_are_equal_but_for_rounding_the_first_are_the_least():
    experts = pd.DataFrame({"layer": 0, "expert": range(4), "contribution": [1 + 3e-7, 1, 1 - 4e-7, 0.9999]})
    assert least(experts, 1) == {0: [3]} and least(experts, 3) == {0: [3, 0, 1]}


@pytest.mark.parametrize(
    ("experts", "numbers"), [(1, []), (2, [1]), (3, [1]), (4, [1, 2]), (6, [1, 2, 3]), (16, [1, 2, 4, 8])]
)
def test_up_to_half_of_the_experts_are_dropped(experts, numbers):
    assert numbers_to_drop(experts) == numbers


def frames(label, contributions_by_seed, changes, limit=0.1):
    """One layer of four experts; `changes` by kind and number, the same for all seeds but the last digit."""
    experts = pd.DataFrame(
        [(0, expert, 4, value / 4, value, value, math.nan, math.nan, label, seed)
         for seed, values in contributions_by_seed.items() for expert, value in enumerate(values)],
        columns=[*EXPERT_COLUMNS, "label", "seed"],
    )  # fmt: skip
    drops = pd.DataFrame(
        [(kind, dropped, draw, limit, 0.0, 4.0, change + 0.1 * draw, label, seed)
         for seed in contributions_by_seed for (kind, dropped), change in changes.items()
         for draw in ((0, 1) if kind == "random" else (0,))],
        columns=[*DROP_COLUMNS, "label", "seed"],
    )  # fmt: skip
    return experts, drops


@pytest.fixture
def both():
    """A point with one lazy expert in one of two seeds, and one whose experts share the work."""
    changes = {("none", 0): 0.0, ("lazy", 1): 0.001, ("least", 1): 0.01, ("random", 1): 0.2, ("least", 2): 0.3,
               ("random", 2): 0.5}  # fmt: skip
    uneven = frames("uneven", {0: [0.05, 1.0, 1.0, 1.95], 1: [0.15, 1.0, 1.0, 1.85]}, changes)
    even = frames("even", {0: [0.9, 1.0, 1.1, 1.0], 1: [0.8, 1.0, 1.1, 1.1]}, changes)
    return tuple(pd.concat(parts, ignore_index=True) for parts in zip(uneven, even, strict=True))


def test_the_table_has_counts_extremes_and_losses_over_seeds(both):
    cells = lazy_cells(*both, frozenset({"even"}))
    assert "slots alike" not in cells.header  # no point has slots
    rows = {row[0]: dict(zip(cells.header, row, strict=True)) for row in cells.rows}
    assert set(rows) == {"uneven", "even †"}
    uneven = rows["uneven"]
    assert uneven["lazy"].startswith("0.5 [") and uneven["lazy"].endswith("] of 4")
    assert uneven["least"].startswith("0.10 [") and uneven["most"].startswith("1.90 [")
    assert uneven["without the lazy"] == "+0.001 [+0.001, +0.001]"
    assert uneven["without the least of each layer"] == "+0.010 [+0.010, +0.010]"
    assert uneven["one at random"] == "+0.250 [+0.250, +0.250]"  # the mean of two draws
    assert uneven["without the least half"].startswith("+0.300") and uneven["half at random"].startswith("+0.550")
    assert rows["even †"]["lazy"] == "0 of 4" and rows["even †"]["without the lazy"] == ""


def test_sentences_name_points_with_lazy_experts_and_then_all_others(both):
    first, last = lazy_sentences(*both)
    assert first.startswith("uneven: 0.5 [") and "] of 4 experts are lazy (under 0.1 of an even share)" in first
    assert first.endswith("without them the loss changes by +0.001 [+0.001, +0.001]")
    assert last.startswith(
        "no expert is lazy (under 0.1 of an even share; in brackets what the least contributes): even (0.85 ["
    )


def test_runs_that_were_asked_with_different_limits_are_counted_each_by_its_own():
    experts, drops = frames("a", {0: [0.15, 1.0, 1.0, 1.85], 1: [0.15, 1.0, 1.0, 1.85]}, {("lazy", 0): 0.0})
    drops.loc[drops["seed"] == 1, "limit"] = 0.2
    (sentence,) = lazy_sentences(experts, drops)
    assert sentence.startswith("a: 0.5 [") and "(under 0.1 or 0.2 of an even share)" in sentence
