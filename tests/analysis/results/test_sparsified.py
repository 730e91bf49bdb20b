"""Curves of networks with parts off, read at equal executed FLOPs."""

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from moe_study.analysis.results.measure import Kept, keep_measure, read_rows
from moe_study.analysis.results.sparsified import (
    AT,
    COLUMNS,
    MEASURE,
    at_equal_flops,
    sentences,
    sparsified_text,
    sparsify_rows,
)

CONVERTED = "dense 1x, split into 8 clusters after training"


def curve(label, split, seed, flops, losses):
    return [
        (f"{label}{seed}", label, seed, "", split, 0.5, 2.0, f, loss) for f, loss in zip(flops, losses, strict=True)
    ]


def text_of(rows):
    return sparsified_text(Kept(rows, SimpleNamespace(parts=[])))


@pytest.fixture
def rows():
    """Two ways over two seeds: loss falls by one per 100 FLOPs, from 6 and from 5.5; curves reach different costs."""
    made = []
    for seed in (0, 1):
        at = np.array([100.0, 180.0, 320.0])
        made += curve("dense 1x", "8 clusters", seed, at, 6 + seed - at / 100)
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
    text = text_of(rows)
    assert f"{CONVERTED} − split" in text
    assert text.count("+0.500 [+0.500, +0.500]") == AT  # the seeds' own level, of a whole nat, is gone


def test_a_threshold_whose_loss_is_not_finite_is_passed_over(rows):
    rows.loc[1, "loss"] = None
    losses, flops = at_equal_flops(rows)
    assert losses[CONVERTED][0].to_numpy() == pytest.approx(6 - flops / 100)


def test_curves_without_a_cost_in_common_are_not_compared(rows):
    rows.loc[rows["label"] == "split", "flops_per_token"] += 1000
    assert "no cost in common" in text_of(rows)
    assert "no cost in common" in text_of(rows.assign(loss=None))


def test_the_files_of_runs_are_read_and_kept(tmp_path):
    (tmp_path / "a").mkdir()
    points = [{"split": "trained", "threshold": 0.5, "experts_per_token": 2.0, "flops_per_token": 9.0, "loss": 4.0}]
    (tmp_path / "a" / "sparsify.json").write_text(json.dumps({"points": points}))
    frame = pd.DataFrame(
        {"key": ["a", "b"], "label": ["x", "y"], "seed": [3, 3], "state": "done", "routing.selection": "dense",
         "folder": [str(tmp_path / "a"), str(tmp_path / "b")]}
    )  # fmt: skip
    study = SimpleNamespace(parts=[SimpleNamespace(frame=frame, name="")])
    rows = sparsify_rows(study)
    assert rows.to_dict("records") == [
        dict(zip(COLUMNS, ("a", "x", 3, "", "trained", 0.5, 2.0, 9.0, 4.0), strict=True))
    ]
    paths = keep_measure(MEASURE, tmp_path / "out", study)
    assert paths[1].read_text() == text_of(read_rows(paths[0]))
    (tmp_path / "a" / "sparsify.json").unlink()
    assert keep_measure(MEASURE, tmp_path / "none", study) == [] and not (tmp_path / "none").exists()


def test_runs_that_were_split_into_other_numbers_of_parts_have_curves_of_their_own(tmp_path):
    for name, experts in (("a", 8), ("b", 4)):
        (tmp_path / name).mkdir()
        point = {"threshold": 0.5, "experts_per_token": 2.0, "flops_per_token": 9.0, "loss": 4.0}
        points = [{**point, "split": split} for split in ("clusters", "random")]
        (tmp_path / name / "sparsify.json").write_text(json.dumps({"num_experts": [experts] * 2, "points": points}))
    frame = pd.DataFrame(
        {"key": ["a", "b"], "label": "x", "seed": [0, 1], "state": "done", "routing.selection": "dense",
         "folder": [str(tmp_path / "a"), str(tmp_path / "b")]}
    )  # fmt: skip
    rows = sparsify_rows(SimpleNamespace(parts=[SimpleNamespace(frame=frame, name="")]))
    assert rows["split"].tolist() == ["8 clusters", "8 parts at random", "4 clusters", "4 parts at random"]


def test_sentences_say_the_difference_at_either_end_of_what_both_reach(rows):
    assert list(sentences(Kept(rows, None))) == [
        f"At equal executed FLOPs, {CONVERTED} minus split: +0.500 [+0.500, +0.500] nats per token at 150 FLOPs per "
        "token, +0.500 [+0.500, +0.500] at 300"
    ]


def test_the_runs_of_each_data_set_have_a_curve_of_their_own(rows):
    both = pd.concat([rows.assign(part="one"), rows.assign(part="two", loss=rows["loss"] + 1)])
    losses, _ = at_equal_flops(both)
    assert set(losses) == {f"{name}, {part}" for name in (CONVERTED, "split") for part in ("one", "two")}
    assert (losses["split, two"] - losses["split, one"]).to_numpy() == pytest.approx(1)
