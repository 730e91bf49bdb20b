"""Frames of experts over training, against the measures on the very traces that were planted."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from moe_study.analysis.frame import load_frame
from moe_study.analysis.specialisation import nulls
from moe_study.analysis.specialisation.agreement import best_expert, saturation
from moe_study.analysis.specialisation.layer_trace import LayerTrace
from moe_study.analysis.specialisation.over_training import (
    information_over_training,
    over_seeds,
    saturation_over_training,
)
from moe_study.analysis.statistics import t_interval
from moe_study.design.routing import Routing, Selection
from moe_study.errors import DataError
from moe_study.runs.folder import RunFolder
from moe_study.runs.routes import write_routes
from moe_study.runs.traces import RoutesPart
from tests.analysis import planted
from tests.analysis.specialisation.conftest import random_picks
from tests.analysis.specialisation.planted_routes import planted_trace

STEPS = (0, 200, planted.STEPS)
TOP_1, ALL, DENSE = Routing(k=1), Routing(selection=Selection.ALL), Routing(selection=Selection.DENSE)


def keep(folder: Path, step: int, layers: dict[int, LayerTrace]) -> None:
    first = next(iter(layers.values()))
    start_D1 = np.concatenate([[0], np.cumsum(np.bincount(first.document_T))])
    place = RunFolder(folder).routes_folder
    with write_routes(place, folder.name, "probe", step, step * planted.TOKENS_PER_STEP) as writer:
        writer.facts = {"window": 30}
        writer.add_probe(first.token_T, start_D1, dict(first.document_labels), {})
        writer.add_loss(np.zeros(len(first.token_T)))
        for number, layer in layers.items():
            writer.add_layer(number, layer.experts, number)
            gates = (layer.weight_P, layer.kept_P, layer.entropy_T, layer.margin_T)
            writer.add_routes(number, RoutesPart(layer.picks_T, layer.expert_P, *gates))


@pytest.fixture
def traces(tmp_path, random):
    """Three seeds of token top-1 whose layer 2 comes to follow language, and a dense run; the traces by folder."""
    folders = planted.plant(tmp_path, [TOP_1, DENSE], [0.0, 0.1], seeds=(0, 1, 2))
    probe = planted_trace(random, taste=0.1)
    found = {}
    for folder in folders[:3]:
        for step, strength in zip(STEPS, (0.0, 1.0, 3.0), strict=True):
            experts_T = [random.integers(4, size=len(probe.token_T)) for _ in "ab"]
            language_T = probe.label("language")[0]
            experts_T[1] = np.where(random.random(len(language_T)) * 4 < strength, language_T, experts_T[1])
            layers = {2 * n: replace(probe, expert_P=expert_T) for n, expert_T in enumerate(experts_T)}
            keep(folder, step, layers)
            found[folder.name, step] = layers
    return found


def test_saturation_is_that_of_the_traces_and_one_at_the_end(tmp_path, traces):
    long = saturation_over_training(load_frame([tmp_path]))
    assert len(long) == 3 * 2 * 3 and set(long["label"]) == {"token top-1"} and set(long["of"]) == {"picks"}
    for row in long.itertuples():
        final = traces[row.key, STEPS[-1]][row.layer]
        expected = saturation(traces[row.key, row.step][row.layer], final)
        assert (row.overlap, row.chance) == (expected.overlap, expected.chance)
        assert row.tokens == row.step * planted.TOKENS_PER_STEP
        assert row.overlap == 1 or row.step < planted.STEPS
        assert row.overlap == pytest.approx(row.chance, abs=0.05) or row.step > 0


def test_information_is_that_of_the_traces_and_grows_where_language_was_planted(tmp_path, traces):
    long = information_over_training(load_frame([tmp_path]), permutations=20)
    assert set(long["about"]) == {"language", "topic"} and len(long) == 3 * 2 * 3 * 2
    for (key, step, about), group in long.groupby(["key", "step", "about"]):
        expected = nulls.document_label(list(traces[key, step].values()), about, permutations=20)
        assert group["layer"].tolist() == [0, 2]
        assert group["excess"].tolist() == [each.excess for each in expected]
    mean = over_seeds(long[long["about"] == "language"], "excess").set_index(["layer", "step"])["mean"]
    assert mean[2, 0] < 0.02 < 0.03 < mean[2, 200] < mean[2, 400] > 0.3
    assert mean[0, 400] < 0.02


def test_seeds_are_averaged_with_a_t_interval(tmp_path, traces):
    long = saturation_over_training(load_frame([tmp_path]))
    for row in over_seeds(long, "chance").itertuples():
        values = long[(long["layer"] == row.layer) & (long["step"] == row.step)]["chance"]
        mean, _, low, high = t_interval(values.to_numpy())
        assert (row.seeds, row.mean, row.low, row.high) == (3, mean, low, high)


def test_where_every_token_has_every_expert_the_best_ones_are_compared(tmp_path, random):
    (folder,) = planted.plant(tmp_path, [ALL], [0.0], seeds=(0,))
    probe = planted_trace(random, documents=8, top=4)
    earlier, final = (replace(probe, weight_P=random.dirichlet(np.ones(4), len(probe.token_T)).ravel()) for _ in "ab")
    keep(folder, 0, {0: earlier})
    keep(folder, planted.STEPS, {0: final})
    first, last = saturation_over_training(load_frame([tmp_path])).itertuples()
    assert first.of == "best expert" and last.overlap == 1
    assert first.overlap == pytest.approx(np.mean(best_expert(earlier) == best_expert(final)), abs=0.01)  # float16
    assert 0.15 < first.chance < 0.35


def test_ragged_picks_are_compared_as_they_are(tmp_path, random):
    (folder,) = planted.plant(tmp_path, [TOP_1], [0.0], seeds=(0,))
    probe = planted_trace(random, documents=8)
    earlier, final = random_picks(probe, random), random_picks(probe, random)
    keep(folder, 100, {0: earlier})
    keep(folder, planted.STEPS, {0: final})
    found = saturation_over_training(load_frame([tmp_path])).iloc[0]
    assert found["overlap"] == saturation(earlier, final).overlap and found["of"] == "picks"


def test_a_run_whose_last_routes_are_missing_is_left_out_with_its_sentence(tmp_path, traces):
    folder = next(iter(traces))[0]
    (RunFolder(tmp_path / folder).routes_folder / f"step-{planted.STEPS:08d}.npz").unlink()
    frame, problems = load_frame([tmp_path]), []
    with pytest.raises(DataError, match="kept no routes after its last step 400"):
        saturation_over_training(frame)
    long = saturation_over_training(frame, problems)
    assert folder not in set(long["key"]) and long["key"].nunique() == 2
    assert len(problems) == 1 and folder in problems[0]
    assert set(information_over_training(frame, permutations=1, problems=problems)["key"]) == set(long["key"])
    assert len(problems) == 1  # said once


def test_runs_without_routes_give_an_empty_frame(tmp_path):
    planted.plant(tmp_path, [DENSE], [0.0])
    for empty in (saturation_over_training(load_frame([tmp_path])), information_over_training(load_frame([tmp_path]))):
        assert isinstance(empty, pd.DataFrame) and empty.empty and "layer" in empty
    assert over_seeds(saturation_over_training(load_frame([tmp_path]))).empty
