"""Gradient norms in a run's curve as rows."""

import math

import pytest

from moe_study.runs.folder import RunFolder
from moe_study.runs.gradients import COLUMNS, read_gradients

RECORDS = (
    {"kind": "train", "step": 5, "loss": 1.0},
    {"kind": "gradients", "step": 5, "embeddings": 3.0, "norms": None},
    {"kind": "gradients", "step": 5, "layer": 0, "mlp": 2.0},
    {"kind": "gradients", "step": 5, "layer": 1, "router": 0.0, "experts": 5.0, "by_expert": [3.0, 0.0, 4.0]},
    {"kind": "gradients", "step": 10, "layer": 1, "experts": 0.0, "by_expert": [0.0, None]},
)


def test_every_part_that_was_recorded_is_a_row(tmp_path):
    folder = RunFolder(tmp_path / "a")
    folder.path.mkdir()
    folder.append_metrics(*RECORDS)
    rows = read_gradients(folder)
    assert tuple(rows) == COLUMNS
    found = {(row.step, row.layer, row.part): row for row in rows.itertuples()}
    assert {place: row.norm for place, row in found.items()} == {
        (5, -1, "embeddings"): 3.0, (5, 0, "mlp"): 2.0, (5, 1, "router"): 0.0, (5, 1, "experts"): 5.0,
        (10, 1, "experts"): 0.0,
    }  # fmt: skip
    experts = found[5, 1, "experts"]
    assert (experts.experts, experts.active, experts.mean_active) == (3, 2, pytest.approx(3.5))
    none = found[10, 1, "experts"]
    assert (none.experts, none.active) == (2, 0) and math.isnan(none.mean_active)
    assert math.isnan(found[5, 0, "mlp"].experts)


def test_a_run_that_recorded_none_has_no_row(tmp_path):
    folder = RunFolder(tmp_path / "a")
    assert not len(read_gradients(folder))
    folder.path.mkdir()
    folder.append_metrics({"kind": "train", "step": 5, "loss": 1.0})
    assert not len(read_gradients(folder))
