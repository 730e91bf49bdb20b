import pytest

from moe_study.analysis.effects.grids import find_grids
from tests.analysis.effects.studies import PLAIN, points, product


def grids(settings, factors=2):
    return [grid for grid in find_grids(settings, PLAIN) if len(grid.factors) == factors]


def test_a_product_of_two_settings_is_one_grid_and_each_setting_a_factor_of_its_own():
    settings = product(k=[1, 2, 3], num_experts=[4, 8])
    (grid,) = grids(settings)
    assert {(f.name, f.levels) for f in grid.factors} == {("k", ("1", "2", "3")), ("num_experts", ("4", "8"))}
    assert len(grid.cells) == 6 and grid.blocks == ("",) and grid.missing == ()
    alone = {grid.name: grid for grid in grids(settings, 1)}
    assert alone["k"].cells["num_experts 8", "2"] == "2_8" and len(alone["k"].blocks) == 2


def test_settings_that_only_change_together_are_one_factor():
    unit = {"token": {"unit": "token", "context": "own"}, "seq": {"unit": "sequence", "context": "unit_mean"}}
    settings = points(**{f"{name}{k}": {**own, "k": k} for name, own in unit.items() for k in (1, 2)})
    (grid,) = grids(settings)
    assert grid.name in ("k x unit, context", "unit, context x k")
    assert ("unit token, context own", "unit sequence, context unit_mean") in [f.levels for f in grid.factors]


def test_settings_that_can_change_alone_are_no_factor_together():
    settings = product(k=[1, 2], num_experts=[4, 8], gate=["softmax_then_pick", "sigmoid"])
    found = grids(settings)
    assert len(found) == 3 and all(len(f.settings) == 1 for grid in found for f in grid.factors)
    assert all(len(grid.cells) == 8 and len(grid.blocks) == 2 for grid in found)  # the third factor makes blocks
    by_gate = next(grid for grid in found if "gate" not in grid.name)
    assert by_gate.blocks == ("gate softmax_then_pick", "gate sigmoid")


def test_a_nearly_complete_grid_names_what_it_lacks_and_a_sparse_one_is_none():
    settings = product(k=[1, 2, 3], num_experts=[4, 8, 16])
    del settings["3_8"]
    (grid,) = grids(settings)
    assert grid.missing == ("k 3 with num_experts 8",) and len(grid.cells) == 8
    del settings["3_16"]  # now k 3 has one point alone
    (grid,) = grids(settings)
    assert grid.missing == () and {f.levels for f in grid.factors} == {("1", "2"), ("4", "8", "16")}
    assert grids(product(k=[1, 2]) | points(beside={"k": 1, "num_experts": 8})) == []


def test_rows_with_one_point_go_before_they_make_a_full_grid_look_sparse():
    settings = product(unit=["token", "segment"], num_experts=[2, 4, 6])
    settings |= points(**{gate: {"unit": "token", "num_experts": 4, "gate": gate} for gate in ("sigmoid", "picked")})
    sizes = [len(grid.cells) for grid in grids(settings)]
    assert sizes == [6]


def test_points_without_crossed_settings_have_no_grid():
    assert find_grids(points(a={}, b={"k": 2}, c={"num_experts": 8}), PLAIN) == ()
    assert find_grids({}, PLAIN) == ()


def test_a_size_that_follows_the_width_makes_no_factor_of_its_own():
    sizes = {w: {"model.width": w, "expert_size": 4 * w, "model.ffn_size": 4 * w} for w in (64, 128)}
    settings = points(**{f"{w}_{k}": {**own, "k": k, "selection": "top_k"} for w, own in sizes.items() for k in (1, 2)})
    (grid,) = grids(settings)
    assert {f.settings for f in grid.factors} == {("model.width",), ("routing.k",)}


def test_numbers_stand_in_order_and_words_with_the_default_first():
    (grid,) = grids(product(k=[10, 2, 9], router_state=["frozen", "learned"]))
    assert {f.levels for f in grid.factors} == {("2", "9", "10"), ("learned", "frozen")}


@pytest.mark.parametrize("unset", [None, float("nan")])  # as configurations have it, and as frames do
def test_what_is_unset_is_one_value_and_stands_first(unset):
    name = "routing.capacity.factor"
    cells = {"a": {name: 1.25}, "b": {name: unset}, "c": {name: unset, "routing.balance.bias_rate": 0.001}}
    settings = points(**{f"{cell}{k}": {"k": k, **own} for k in (1, 2) for cell, own in cells.items()})
    found = grids(settings)
    assert {f.settings for grid in found for f in grid.factors} == {
        ("routing.k",), ("routing.capacity.factor",), ("routing.balance.bias_rate",)
    }  # fmt: skip
    levels = {f.levels for grid in found for f in grid.factors}
    assert ("unset", "1.25") in levels


def test_a_part_of_a_larger_grid_of_the_same_settings_is_left_out():
    settings = product(k=[1, 2], num_experts=[4, 8])
    settings |= points(other={"k": 5, "gate": "sigmoid"})
    assert len(grids(settings)) == 1
