"""Curves of networks with parts off, read at equal executed FLOPs."""

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from moe_study.analysis.results.sparsified import (
    AT,
    COLUMNS,
    at_equal_flops,
    sparsified_text,
    sparsify_rows,
    write_sparsified,
)

CONVERTED = "dense 1x, split into clusters after training"


def curve(label, split, seed, flops, losses):
    return [(f"{label}{seed}", label, seed, split, 0.5, 2.0, f, loss) for f, loss in zip(flops, losses, strict=True)]


@pytest.fixture
def rows():
    """Two ways over two seeds: loss falls by one per 100 FLOPs, from 6 and from 5.5; curves reach different costs."""
    made = []
    for seed in (0, 1):
        at = np.array([100.0, 180.0, 320.0])
        made += curve("dense 1x", "clusters", seed, at, 6 + seed - at / 100)
        at = np.array([150.0, 300.0])
        made += curve("split", "trained", seed, at, 5.5 + seed - at / 100)
    return pd.DataFrame(made, columns=list(COLUMNS))


def test_curves_are_read_where_all_of_them_reach(rows):
    losses, flops = at_equal_flops(rows)
    assert flops == pytest.approx(np.linspace(150, 300, AT))
    assert set(losses) == {CONVERTED, "split"}
    for seed in (0, 1):
        assert losses["split"][seed].to_numpy() == pytest.approx(5.5 + seed - flops / 100)
        assert losses[CONVERTED][seed].to_numpy() == pytest.approx(6 + seed - flops / 100)


def test_differences_are_paired_by_seed(rows):
    text = sparsified_text(rows)
    assert f"{CONVERTED} − split" in text
    assert text.count("+0.500 [+0.500, +0.500]") == AT  # the seeds' own level, of a whole nat, is gone


def test_a_threshold_whose_loss_is_not_finite_is_passed_over(rows):
    rows.loc[1, "loss"] = None
    losses, flops = at_equal_flops(rows)
    assert losses[CONVERTED][0].to_numpy() == pytest.approx(6 - flops / 100)


def test_curves_without_a_cost_in_common_are_not_compared(rows):
    rows.loc[rows["label"] == "split", "flops_per_token"] += 1000
    assert "no cost in common" in sparsified_text(rows)
    assert "no cost in common" in sparsified_text(rows.assign(loss=None))


def test_the_files_of_runs_are_read_and_kept(tmp_path):
    (tmp_path / "a").mkdir()
    points = [{"split": "trained", "threshold": 0.5, "experts_per_token": 2.0, "flops_per_token": 9.0, "loss": 4.0}]
    (tmp_path / "a" / "sparsify.json").write_text(json.dumps({"points": points}))
    frame = pd.DataFrame(
        {"key": ["a", "b"], "label": ["x", "y"], "seed": [3, 3], "state": "done",
         "folder": [str(tmp_path / "a"), str(tmp_path / "b")]}
    )  # fmt: skip
    rows = sparsify_rows(SimpleNamespace(parts=[SimpleNamespace(frame=frame)]))
    assert rows.to_dict("records") == [
        dict(zip(COLUMNS, ("a", "x", 3, "trained", 0.5, 2.0, 9.0, 4.0), strict=True))
    ]
    paths = write_sparsified(tmp_path / "out", rows)
    assert paths[1].read_text() == sparsified_text(pd.read_parquet(paths[0]))
    assert write_sparsified(tmp_path / "none", rows.iloc[:0]) == [] and not (tmp_path / "none").exists()
