"""The costs of points: means over their runs, and what of the FLOPs ran in feed-forward networks and in experts."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from moe_study.analysis.effects.costs import DESCRIBED, PASSES, Cost, costs_of_points, costs_of_runs
from moe_study.analysis.frame import load_frame
from moe_study.analysis.results.archive import read_archive, rows_of, write_archive
from moe_study.analysis.results.manifest import manifest_of
from moe_study.analysis.study import study_of
from moe_study.design.accounting import expert_flops_per_token, ffn_flops_per_token
from moe_study.design.routing import Routing, Selection
from moe_study.runs.members import COSTS, Launch, Members
from moe_study.sweeps.claims import Claims
from tests.analysis import planted

DENSE = Routing(selection=Selection.DENSE)
ROUTINGS = {
    "dense": DENSE,
    "one": Routing(k=1),
    "two": Routing(k=2),
    "small": Routing(k=1, granularity=4),
    "shared": Routing(k=2, shared_experts=1),
    "second": Routing(k=2, layers="every_second"),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return planted.plant(tmp_path_factory.mktemp("runs"), list(ROUTINGS.values()), [0.0] * len(ROUTINGS), (0, 1))


@pytest.fixture(scope="module")
def frame(folders):
    return load_frame(folders)


def by_name(frame, folders, cost):
    labels = dict(zip(frame["key"], frame["label"], strict=True))
    found = costs_of_points(frame)[cost]
    return {name: found[labels[folders[2 * place].name]] for place, name in enumerate(ROUTINGS)}


def test_a_sweep_file_may_ask_for_every_cost():
    assert set(COSTS) == set(Cost) and set(DESCRIBED) < set(Cost)


def test_flops_of_experts_and_networks_are_those_of_the_rows_that_ran(frame, folders):
    experts, networks = (by_name(frame, folders, cost) for cost in (Cost.EXPERT_FLOPS, Cost.FFN_FLOPS))
    tokens = PASSES * planted.STEPS * planted.TOKENS_PER_STEP
    assert np.isnan(experts.pop("dense"))
    for name, routing in ROUTINGS.items():
        config = planted.config_of(routing, 0)
        rows = None if routing.selection is Selection.DENSE else float(routing.k)  # what planted runs say they executed
        assert networks[name] == pytest.approx(tokens * ffn_flops_per_token(config, rows))
        if rows is not None:
            assert experts[name] == pytest.approx(tokens * expert_flops_per_token(config, rows))
    assert experts["two"] == 2 * experts["one"] == 4 * 2 * experts["small"]  # its runs say one row of a quarter
    depth = planted.config_of(DENSE, 0).model.layers
    assert experts["shared"] == 1.5 * experts["two"] and experts["two"] == depth / (depth // 2) * experts["second"]


def test_columns_that_a_frame_made_numbers_with_fractions_of_are_read_as_they_were(frame, folders):
    lost = frame.iloc[[0]].assign(key="lost", label="lost", state="missing")
    lost = lost[["key", "label", "state"]].reindex(columns=frame.columns)
    mixed = pd.concat([frame, lost], ignore_index=True)
    mixed = mixed.assign(**{name: mixed[name].astype(float) for name in ("routing.k", "model.width", "model.layers")})
    finished = mixed[mixed["state"] == "done"]
    pd.testing.assert_frame_equal(costs_of_points(finished), costs_of_points(frame))


def test_what_is_kept_in_results_has_the_costs_of_the_runs(frame, tmp_path):
    members = Members((Launch(runs=tuple(frame["key"])),))
    manifest = manifest_of("mine", members, (rows := rows_of(frame)), Claims())
    write_archive(tmp_path, rows, members, manifest)
    (part,) = study_of(frame, [members]).parts
    (again,) = read_archive(tmp_path).study().parts
    pd.testing.assert_frame_equal(again.costs, part.costs)
    assert again.costs[Cost.EXPERT_FLOPS].notna().sum() == len(ROUTINGS) - 1


@pytest.mark.parametrize("damage", ["no rates", "a later setting", "no settings"])
def test_what_a_run_does_not_tell_is_not_known(frame, damage):
    if damage == "no rates":
        changed = frame.assign(executed_per_token=np.nan)
    elif damage == "a later setting":
        changed = frame.assign(**{"routing.gate": "of a later version"})
    else:
        changed = frame.drop(columns=["routing.gate"])
    found = costs_of_points(changed)
    assert found[Cost.EXPERT_FLOPS].isna().all() and found[Cost.FLOPS].notna().all()
    assert found[Cost.FFN_FLOPS].notna().sum() == (damage == "no rates")  # a dense model needs none


def test_each_run_has_its_own_rows(frame):
    two = frame[frame["label"] == frame["label"].iloc[-1]]
    varied = two.assign(executed_per_token=[1.0, 3.0])
    low, high = costs_of_runs(varied)[Cost.EXPERT_FLOPS]
    assert high == 3 * low and costs_of_points(varied)[Cost.EXPERT_FLOPS].iloc[0] == pytest.approx((low + high) / 2)


def test_reports_describe_at_the_four_costs_of_every_point(frame):
    (part,) = study_of(frame).parts
    assert [front.cost for front in part.fronts] == list(DESCRIBED)
    assert {one.cost for one in part.other_equal_costs} <= set(DESCRIBED)
    assert dataclasses.replace(part).reaches == ()
