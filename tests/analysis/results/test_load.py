"""results/NAME/load*: evenness by closed forms, from the counts that runs keep, and all that the text says is kept."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest

from moe_study.analysis.results.answered import answered
from moe_study.analysis.results.archive import read_archive
from moe_study.analysis.results.load import evenness, load_text
from moe_study.analysis.results.measure import Kept
from moe_study.analysis.results.overview import overview
from moe_study.design.routing import Selection
from moe_study.runs.folder import RunFolder
from moe_study.runs.members import Launch, PlannedComparison, record_launch
from moe_study.sweeps.claims import Claim, Claims
from tests.analysis import planted
from tests.analysis.results.launched import keep_unpictured

CLAIMS = Claims("a paper", (11,), (Claim("with", "without", "Does the loss change the load?"),))
MERGED = dataclasses.replace(planted.TOKEN_1, selection=Selection.MERGE, k=1)
EVEN, HALF, ALL_TO_ONE = (1, 1, 1, 1), (1, 0, 1, 0), (0, 4, 0, 0)


def counts(*by_layer, weight=None):
    """Counts of four experts in each layer, in two languages that add up to them, in tenths and the rest."""
    rows = []
    for layer, own in enumerate(by_layer):
        for expert, count in enumerate(own):
            for language, part in (("de", 100), ("en", 900)):
                value = {"count": part * count, "weight": float(part * (weight or own)[expert])}
                rows.append(
                    {"layer": layer, "expert": expert, "language": language, "topic": "news", **value, "tokens": 4000}
                )
    return pd.DataFrame(rows)


def without_room(folder):
    """A run whose capacity had no room for a quarter of the pairs."""
    result = json.loads(folder.result_file.read_text())
    result["kept_per_token"] = {layer: 0.75 * rate for layer, rate in result["wanted_per_token"].items()}
    folder.result_file.write_text(json.dumps(result))


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """Even layers in both seeds; a collapsed and a half used layer; merged experts, of even weights; a dense model."""
    root, out = tmp_path_factory.mktemp("kept") / "runs", tmp_path_factory.mktemp("results")
    routings = (planted.BALANCED_2, planted.TOKEN_2, MERGED, planted.DENSE_1X)
    folders = [RunFolder(path) for path in planted.plant(root, routings, (0.0, -0.1, 0.1, 0.2), seeds=(0, 1))]
    for place, folder in enumerate(folders[:6]):
        own = (
            counts(EVEN, EVEN) if place < 2
            else counts(HALF, ALL_TO_ONE) if place < 4
            else counts(ALL_TO_ONE, ALL_TO_ONE, weight=EVEN)
        )  # fmt: skip
        own.to_parquet(folder.routing_file)
    for folder in folders[2:4]:
        without_room(folder)
    keys = tuple(folder.key for folder in folders)
    record_launch(root, "mine", Launch((), keys, (PlannedComparison("with", "without", keys[:2], keys[2:4], ""),)))
    keep_unpictured(root, "mine", out, CLAIMS, drawn="load")
    return out


@pytest.fixture(scope="module")
def kept(out):
    return Kept(pd.read_parquet(out / "mine" / "load.parquet"), read_archive(out / "mine").study())


def test_evenness_by_closed_forms(kept):
    even = evenness(kept.rows).set_index(["label", "layer"])
    found = even[["experts", "effective", "busiest", "least", "unused"]].groupby(level=[0, 1]).first()
    assert found.loc[("token top-2, balance 0.01", 0)].tolist() == pytest.approx([4, 4, 1, 1, 0])
    assert found.loc[("token top-2", 0)].tolist() == pytest.approx([4, 2, 2, 0, 2])
    assert found.loc[("token top-2", 1)].tolist() == pytest.approx([4, 1, 4, 0, 3])


def test_merged_experts_share_by_weight(kept):
    (merged,) = {label for label in kept.rows["label"] if "merge" in label}
    assert np.allclose(kept.rows[kept.rows["label"] == merged]["share"], 0.25)


def test_a_dense_model_has_no_load(kept):
    assert not kept.rows["label"].str.startswith("dense").any() and kept.rows["seed"].nunique() == 2


def test_what_is_kept_suffices_for_the_text(out, kept):
    text = (out / "mine" / "load.md").read_text()
    assert load_text(kept) == text
    lines = (line for line in text.splitlines() if line.startswith("| token"))
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    assert ["token top-2", "1", "2", "4", "1.000 [1.000, 1.000]", "4.000 [4.000, 4.000]", "0.000 [0.000, 0.000]", "3.0",
            "25.0%"] in rows  # fmt: skip
    assert [row[-1] for row in rows if row[0] == "token top-2, balance 0.01"] == ["0", "0"]


def test_its_picture_is_kept(out):
    assert (out / "mine" / "load.png").stat().st_size > 10_000


def test_the_overview_sets_both_sides_of_a_comparison_side_by_side(out, tmp_path):
    (tmp_path / "questions.yaml").write_text('11: {asks: "Is it even?", read: {mine: [load]}}')
    text = overview([answered(read_archive(out / "mine"), CLAIMS)], tmp_path / "questions.yaml", {})
    assert (
        "  - Effective experts, mean over layers: token top-2, balance 0.01 4.000 [4.000, 4.000] of 4, the busiest at "
        "1.00 times an even share; token top-2 1.500 [1.500, 1.500] of 4, the busiest at 3.00 times an even share"
    ) in text
    assert "([load of the experts](mine/load.md))" in text


def test_runs_without_a_router_have_no_file(tmp_path):
    folders = planted.plant(tmp_path / "runs", (planted.DENSE_1X,), (0.0,), seeds=(0, 1))
    record_launch(tmp_path / "runs", "mine", Launch((), tuple(folder.name for folder in folders)))
    keep_unpictured(tmp_path / "runs", "mine", tmp_path / "results", CLAIMS, drawn="load")
    assert not list((tmp_path / "results").rglob("load*"))
