"""Gradient norms over runs: layers joined, settled over the second half, drawn by part and unit."""

import math

import pandas as pd
import pytest
from matplotlib.figure import Figure

from moe_study.analysis.frame import load_frame
from moe_study.analysis.gradients import ONE_EXPERT, by_seed, gradient_history, joined, settled
from moe_study.analysis.plots import all as all_pictures
from moe_study.analysis.plots.gradients import by_point, over_training, units_of
from moe_study.analysis.plots.style import PointStyle
from moe_study.analysis.study import read_study
from moe_study.runs.folder import RunFolder
from moe_study.runs.gradients import rows_of
from tests.analysis import planted

COLOURS = {"dense 1x": "#000000", "token top-2": "#000001", "sequence top-2": "#000002"}
STYLES = {label: PointStyle(label, colour, "o", "-", False) for label, colour in COLOURS.items()}


def records(step, router, experts, attention=1.0):
    """Of two layers with the same norms; each of the experts' lists is one layer's."""
    yield {"kind": "gradients", "step": step, "embeddings": 2.0}
    for layer, norms in enumerate(experts):
        own = {"attention": attention, "experts": math.hypot(*norms), "by_expert": list(norms)}
        yield {
            "kind": "gradients",
            "step": step,
            "layer": layer,
            **own,
            **({} if router is None else {"router": router}),
        }


def norms_of(rows):
    return {row.part: row.norm for row in joined(rows, ["step"]).itertuples()}


def test_layers_join_as_roots_of_sums_of_squares_and_experts_as_the_mean_of_those_with_tokens():
    rows = rows_of(records(10, router=3.0, experts=[(3.0, 0.0, 0.0), (1.0, 2.0, 2.0)]))
    assert norms_of(rows) == pytest.approx({
        "embeddings": 2.0, "attention": 2**0.5, "router": 18**0.5, "experts": 18**0.5, ONE_EXPERT: (3 + 1 + 2 + 2) / 4,
    })  # fmt: skip


def test_a_dense_run_and_a_run_without_records_have_no_experts():
    dense = rows_of(
        [{"step": 5, "embeddings": 1.0}, {"step": 5, "layer": 0, "mlp": 3.0}, {"step": 5, "layer": 1, "mlp": 4.0}]
    )
    assert norms_of(dense) == {"embeddings": 1.0, "mlp": 5.0}
    assert not len(joined(rows_of([]), ["step"]))


def history(norms_by_seed):
    """Of one point: the norms of its router step by step, for each seed."""
    return pd.DataFrame(
        [{"label": "a", "key": f"k{seed}", "seed": seed, "step": 10 * place, "part": "router", "norm": norm}
         for seed, norms in norms_by_seed.items() for place, norm in enumerate(norms, start=1)]
    )  # fmt: skip


def test_what_has_settled_is_the_geometric_mean_over_the_second_half():
    found = settled(history({0: [9.0, 9.0, 2.0, 8.0], 3: [9.0, 1.0, 1.0, 0.0]}))
    assert found.set_index("seed")["norm"].to_dict() == pytest.approx({0: 4.0, 3: 0.0})
    assert list(by_seed(found, "a").columns) == [0, 3]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Planted runs of a dense and two routed points, of both units, with norms; one of them recorded none."""
    root = tmp_path_factory.mktemp("planted")
    routings = (planted.DENSE_1X, planted.TOKEN_2, planted.SEQUENCE_2)
    folders = planted.plant(root, routings, (0.0, -0.1, -0.1), seeds=(0, 1, 2))
    for place, folder in enumerate(folders[:-1]):
        point, seed = divmod(place, 3)
        for step in (200, 400):
            level = step / 100 * 1.1**seed
            if point == 0:
                RunFolder(folder).append_metrics({"kind": "gradients", "step": step, "embeddings": level})
            else:
                RunFolder(folder).append_metrics(*records(step, level * point, [(level, 0.0)]))
    return root


def test_the_history_has_a_row_for_each_run_step_and_part(runs):
    long = gradient_history(load_frame([runs]))
    assert long["key"].nunique() == 8
    token = long[(long["label"] == "token top-2") & (long["part"] == "router")]
    assert list(token["tokens"].unique()) == [200 * 16 * 128, 400 * 16 * 128]
    assert sorted(token["norm"]) == pytest.approx(sorted(s / 100 * 1.1**seed for s in (200, 400) for seed in range(3)))


def test_curves_are_geometric_means_over_seeds_by_part_and_unit(runs):
    frame = load_frame([runs])
    figure = over_training(gradient_history(frame), STYLES, units_of(frame))
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert titles == ["embeddings", "attention", "router", "experts", ONE_EXPERT]
    assert [figure.axes[first].get_ylabel() for first in (0, 5)] == ["gradient norm, token", "gradient norm, sequence"]
    token, sequence = (figure.axes[first + titles.index("router")] for first in (0, 5))
    for axes, label, first in ((token, "token top-2", 2.2), (sequence, "sequence top-2", 4 * 1.1**0.5)):
        (line,) = axes.lines
        assert line.get_color() == STYLES[label].colour
        assert line.get_ydata() == pytest.approx([first, 2 * first])
    dense = figure.axes[0].lines[0], figure.axes[5].lines[0]
    assert all(line.get_color() == STYLES["dense 1x"].colour for line in dense)


def test_points_are_drawn_unit_by_unit_with_their_seeds(runs):
    frame = load_frame([runs])
    units, summary = units_of(frame), settled(gradient_history(frame))
    figure = by_point(summary, STYLES, units, "in training")
    names = [tick.get_text() for tick in figure.axes[0].get_yticklabels()]
    assert names == ["sequence top-2", "token top-2", "dense 1x"] and units["dense 1x"] == "dense"
    router = next(axes for axes in figure.axes if axes.get_title() == "router")
    means = [line.get_xdata()[0] for line in router.lines if line.get_marker() == "o"]
    assert means == pytest.approx([2 * 4 * 1.1**0.5, 4.4])
    seeds = [sorted(line.get_xdata()) for line in router.lines if line.get_marker() == "."]
    assert seeds == [pytest.approx([8.0, 8.8]), pytest.approx([4.0, 4.4, 4.84])]


def test_without_a_norm_there_is_no_picture():
    assert over_training(gradient_history(pd.DataFrame()), {}, {}) is None
    zero = pd.DataFrame({"label": ["dense 1x"], "seed": [0], "part": ["router"], "norm": [0.0]})
    assert by_point(zero, STYLES, {"dense 1x": "dense"}, "") is None


def test_pictures_of_a_study_hold_the_norms_that_its_runs_recorded(runs, tmp_path, monkeypatch):
    for name in ("perplexity_against_cost", "paired_differences", "loss_curves"):  # which take their time
        monkeypatch.setattr(all_pictures, name, lambda *_: Figure())
    monkeypatch.setattr(all_pictures, "share_over_training", lambda *_: [])
    monkeypatch.setattr(all_pictures, "share_by_domain", lambda *_: [])
    (part,) = read_study([runs]).parts
    assert "gradients" in [name for name, _ in all_pictures.figures(part)] and not part.problems
    planted.plant(tmp_path, (planted.DENSE_1X, planted.TOKEN_2), (0.0, -0.1))
    (part,) = read_study([tmp_path]).parts
    assert "gradients" not in [name for name, _ in all_pictures.figures(part)] and not part.problems
