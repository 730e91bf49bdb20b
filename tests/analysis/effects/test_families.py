import dataclasses

import pandas as pd
import pytest

from moe_study.analysis.effects.costs import DESCRIBED, Cost, costs_of_points
from moe_study.analysis.effects.families import families, name_of
from moe_study.analysis.frame import done, load_frame
from moe_study.design.routing import Context, Routing, Selection, Unit
from tests.analysis import planted


def frame_of(tmp_path, routings, **more):
    planted.plant(tmp_path, routings, [0.0] * len(routings), seeds=(0,), **more)
    return done(load_frame([tmp_path]))


def dense(multiplier):
    return Routing(selection=Selection.DENSE, ffn_multiplier=multiplier)


def by_name(frame):
    return {family.name: family.points for family in families(frame)}


def test_points_that_differ_in_size_alone_are_one_family_smallest_first(tmp_path):
    mixtures = [dataclasses.replace(planted.TOKEN_2, num_experts=n) for n in (8, 2, 4)]
    found = by_name(frame_of(tmp_path, [dense(4.0), dense(1.0), dense(2.0), *mixtures, planted.TOKEN_1]))
    assert found["dense"] == ("dense 1x", "dense 2x", "dense 4x")
    assert found["token top-2"] == ("token top-2 of 2", "token top-2 of 4", "token top-2 of 8")
    assert found["token top-1 of 4"] == ("token top-1 of 4",)


def test_a_product_of_sizes_is_a_family_for_each_value_of_the_size_with_fewest(tmp_path):
    planted.plant(tmp_path, [dense(m) for m in (1.0, 2.0, 4.0)], [0.0] * 3, seeds=(0,))
    planted.plant(tmp_path, [dense(m) for m in (1.0, 2.0, 4.0)], [0.0] * 3, seeds=(0,), width=64, heads=4)
    found = by_name(done(load_frame([tmp_path])))
    assert len(found) == 2 and all(len(points) == 3 for points in found.values())
    assert all(len({point.partition(", ")[2] for point in points}) == 1 for points in found.values())  # of one width


def test_what_grows_together_is_one_family(tmp_path):
    planted.plant(tmp_path, [dense(1.0)], [0.0], seeds=(0,))
    planted.plant(tmp_path, [dense(2.0)], [0.0], seeds=(0,), width=256)
    (family,) = families(done(load_frame([tmp_path])))
    assert len(family.points) == 2 and "model.width" in family.varies


def test_points_that_leak_and_points_that_do_not_are_never_one_family(tmp_path):
    leaking = Routing(k=2, unit=Unit.SEQUENCE, context=Context.UNIT_MEAN)
    frame = frame_of(tmp_path, [leaking, dataclasses.replace(leaking, num_experts=8)])
    assert len(families(frame)) == 1
    frame.loc[frame.index[0], "leaks"] = False  # as where every expert takes every token
    assert len(families(frame)) == 2


@pytest.mark.parametrize(
    ("labels", "name"),
    [
        (["dense 1x", "dense 2x"], "dense"),
        (["dense 1x, width 64", "dense 0.5x, width 64"], "dense, width 64"),
        (["token top-2 of 4, frozen", "token top-2 of 8, frozen"], "token top-2, frozen"),
        (["token top-2", "token top-2 of 8"], "token top-2"),
        (["one", "other"], "one to other"),
        (["one"], "one"),
    ],
)
def test_several_points_are_called_by_what_their_labels_share(labels, name):
    assert name_of(labels) == name


def test_costs_are_means_over_runs_and_flops_are_those_of_the_whole_training():
    runs = pd.DataFrame(
        {
            "label": ["a", "a", "b"],
            "num_params": [10, 10, 20],
            "executed_active_params": [5.0, 6.0, float("nan")],
            "executed_flops_per_token": [2.0, 4.0, 8.0],
            "tokens": [100, 100, 200],
            "train_seconds": [1.0, 3.0, 5.0],
        }
    )
    found = costs_of_points(runs)
    known = {"total_params": 10, "active_params": 5.5, "flops": 900, "seconds": 2}
    assert found.loc["a", list(DESCRIBED)].to_dict() == known and set(found) == set(Cost)
    assert found.at["b", Cost.FLOPS] == 3 * 8 * 200 and pd.isna(found.at["b", Cost.ACTIVE_PARAMS])
