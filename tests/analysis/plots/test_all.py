import copy
import dataclasses
import itertools
import warnings

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from moe_study.analysis.frame import load_frame
from moe_study.analysis.plots import all as all_plots
from moe_study.analysis.plots.all import draw_all, figures
from moe_study.analysis.plots.experts import share_by_domain, share_over_training
from moe_study.analysis.plots.loss import loss_curves, paired_differences, perplexity_against_cost
from moe_study.analysis.plots.style import point_styles
from moe_study.analysis.study import study_of
from moe_study.design.routing import Routing
from tests.analysis import planted


@pytest.fixture(scope="module")
def frame(tmp_path_factory):
    return load_frame(planted.plant(tmp_path_factory.mktemp("runs"), seeds=(0, 1, 2)))


@pytest.fixture(scope="module")
def part(frame):
    return part_of(frame)


@pytest.fixture(scope="module")
def styles(frame):
    return point_styles(frame)


def part_of(frame):
    """The one evaluation set of a frame."""
    (part,) = study_of(frame).parts
    return part


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text"))]


def test_pictures_hold_as_many_points_as_a_reader_can_tell_apart_and_say_so(part, monkeypatch):
    everywhere = len(part.table)
    monkeypatch.setattr(all_plots, "MOST_POINTS", 3)
    few = all_plots.readable(part)
    ranked = list(part.table["label"])
    others = [label for label in ranked if label != part.reference][:2]
    assert set(few.runs["label"]) == {part.reference, *others}
    assert few.table.attrs == part.table.attrs
    pictures = dict(figures(part))
    assert {"perplexity", "differences", "loss-curves"} <= set(pictures)
    for name, figure in pictures.items():
        words = " ".join(" ".join(texts(figure)).split())
        assert f"3 of {everywhere} points: the first of the table, which has all, and {part.reference}" in words, name
    monkeypatch.setattr(all_plots, "MOST_POINTS", everywhere)
    assert all_plots.readable(part) is part


NAMES = ["from $5 to $10", "$\\frac$ & $^_", "100 % # {x}", "中文 text", "Ελλ \U0010fffd", "_hidden", "$x$"]
TOPICS = [f"topic {number}" for number in range(len(NAMES))]


@pytest.mark.long
def test_names_are_never_markup_and_characters_without_a_font_are_one_sentence(tmp_path):
    """A topic, a language, a point or a corpus may be named in any way that a file can be named."""
    part = part_of(load_frame(planted.plant(tmp_path / "runs", (planted.TOKEN_2,), (0.0,), topics=TOPICS)))
    part.activations["topic"] = part.activations["topic"].map(dict(zip(TOPICS, NAMES, strict=True)))
    part.activations["language"] = part.activations["language"].map(lambda name: f"{name} $a$ $ 中\U0010fffd")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        paths = draw_all(part, tmp_path)
    pictures = dict(figures(part))
    assert {path.stem for path in paths} == set(pictures)
    shown = [text for name in pictures if name.startswith("experts-by-topic") for text in texts(pictures[name])]
    assert "from $5 to $10" in shown
    for figure in pictures.values():
        assert not any(text.get_parse_math() for text in figure.findobj(Text) if text.get_text())
    (said,) = [line for line in part.problems if "no installed font has" in line]
    assert "\U0010fffd" in said and "install one that has" in said


def names_of(frame):
    return {name for name, _ in figures(part_of(frame))}


def lines_of(axes, colour):
    return [line for line in axes.lines if line.get_color() == colour or line.get_markeredgecolor() == colour]


@pytest.mark.long
def test_draw_all_writes_every_picture_twice_the_same(part, tmp_path):
    first = draw_all(part, tmp_path / "a")
    second = draw_all(part, tmp_path / "b")
    names = {
        "perplexity",
        "differences",
        "loss-curves",
        "experts-over-training",
        "experts-by-language",
        "experts-by-topic",
    }
    assert {path.stem for path in first} == names
    assert {path.suffix for path in first} == {".png", ".svg"} and len(first) == 12
    for one, two in zip(first, second, strict=True):
        assert one.read_bytes() == two.read_bytes(), one.name
        if one.suffix == ".svg":
            assert b"<dc:date>" not in one.read_bytes()


def test_drawing_leaves_no_trace_in_matplotlibs_global_state(part, styles):
    before = dict(mpl.rcParams)
    perplexity_against_cost(part, styles)
    assert dict(mpl.rcParams) == before


def test_perplexities_stand_at_their_costs_with_their_intervals(part, styles):
    table = part.table
    figure = perplexity_against_cost(part, styles, costs=("executed_active_params", "executed_flops_per_token"))
    for axes, cost in zip(figure.axes, ("executed_active_params", "executed_flops_per_token"), strict=True):
        for row in table.itertuples():
            own = lines_of(axes, styles[row.label].colour)
            marks = [line for line in own if line.get_marker() == styles[row.label].marker]
            assert (marks[0].get_xdata()[0], marks[0].get_ydata()[0]) == (getattr(row, cost), row.perplexity)
            bar = next(line for line in own if line.get_linestyle() == "-" and len(line.get_ydata()) == 2)
            assert tuple(bar.get_ydata()) == pytest.approx((row.perplexity_low, row.perplexity_high))
            low, high = axes.get_ylim()
            assert low < row.perplexity_low and row.perplexity_high < high


def test_leaking_points_are_hollow_and_named_with_their_mark(part, styles):
    figure = perplexity_against_cost(part, styles)
    mark = next(
        line
        for line in figure.axes[0].lines
        if line.get_markeredgecolor() == styles["sequence top-2"].colour and len(line.get_xdata()) == 1
    )
    assert mark.get_markerfacecolor() == "white"
    assert "sequence top-2 †" in texts(figure)
    assert any("† routing reads later tokens" in text for text in texts(figure))


def test_what_a_reader_must_know_of_the_runs_stands_under_every_picture(tmp_path):
    """A point that lacks a seed is marked, one without any result is named, and so are runs of other code."""
    folders = planted.plant(tmp_path, planted.FIRST_LOOK[:3], (0.0, -0.1, 0.0), seeds=(0, 1, 2))
    for folder in (folders[4], *folders[6:]):
        planted.set_status(folder, "diverged", {"type": "Diverged", "message": "x", "traceback": ""}, 3)
    for folder in folders:
        commit = "b" * 40 if folder == folders[0] else "a" * 40
        (folder / "provenance.json").write_text(f'{{"commit": "{commit}"}}')
    drawn = dict(figures(part_of(load_frame(folders))))
    assert set(drawn) == {"perplexity", "differences", "loss-curves"}
    for name, figure in drawn.items():
        said = texts(figure)
        note = " ".join(figure.get_supxlabel().split())
        assert "runs without a result, named beside the table: 4; no picture shows token top-1" in note, name
        assert "these runs differ in their code: 4 have aaaaaaaaa, 1 bbbbbbbbb (dense 1x, seed 0)" in note
        assert any("dense 2x §" in text for text in said) and "§ lacks seeds" in note
        assert not any(text.startswith("token top-1") for text in said)


def test_names_in_the_margin_do_not_overlap(part, styles):
    figure = perplexity_against_cost(part, styles)
    figure.draw_without_rendering()
    names = {style.name for style in styles.values()}
    boxes = [t.get_window_extent() for t in figure.axes[-1].texts if t.get_text() in names]
    heights = sorted((box.y0, box.y1) for box in boxes)
    assert len(boxes) == 6
    assert all(below[1] <= above[0] + 1 for below, above in itertools.pairwise(heights))


def test_paired_differences_are_drawn_best_first_and_leaking_ones_below(part, styles):
    figure = paired_differences(part, styles)
    (axes,) = figure.axes
    by_height = sorted(
        zip(axes.get_yticks(), [t.get_text() for t in axes.get_yticklabels()], strict=True), reverse=True
    )
    table = part.table
    expected = [styles[name].name for name in table["label"] if name != "dense 1x"]
    assert [name for _, name in by_height] == expected and expected[-1].endswith("†")
    best = table[table["label"] == "token top-2"].iloc[0]
    y = next(height for height, name in by_height if name == "token top-2")
    bars = [line.get_xdata() for line in axes.lines if len(line.get_xdata()) == 2 and set(line.get_ydata()) == {y}]
    assert any(tuple(bar) == pytest.approx((best.difference_low, best.difference_high)) for bar in bars)


def test_an_interval_that_leaves_the_picture_ends_in_an_arrow(tmp_path):
    frame = load_frame(planted.plant(tmp_path, planted.FIRST_LOOK[:2], (0.0, 0.0), noise_sd=0.05, rng=1))
    (axes,) = paired_differences(part_of(frame), point_styles(frame)).axes
    low, high = axes.get_xlim()
    row = part_of(frame).table.set_index("label").loc["dense 2x"]
    assert row["difference_low"] < low and row["difference_high"] > high
    assert {"<", ">"} <= {line.get_marker() for line in axes.lines}


def test_loss_curves_end_at_the_losses_and_differences_of_the_table(part, styles):
    figure = loss_curves(part, styles)
    left, right = figure.axes
    table = part.table.set_index("label")
    for name in ("token top-2", "dense 2x"):
        (own,) = lines_of(left, styles[name].colour)
        assert own.get_ydata()[-1] == pytest.approx(table.loc[name, "loss"])
        gap = lines_of(right, styles[name].colour)[0]
        assert gap.get_ydata()[-1] == pytest.approx(table.loc[name, "difference"])
    assert left.get_ylabel() == "validation loss, nats per token"


def test_curves_of_points_that_share_no_number_of_tokens_are_drawn_all_the_same(part, styles):
    apart = copy.copy(part)
    others = part.curves["label"] != part.reference
    vars(apart)["curves"] = part.curves.assign(tokens=part.curves["tokens"] + 1e9 * others)
    (axes,) = loss_curves(apart, styles).axes  # and no empty panel of differences beside it
    assert all(lines_of(axes, style.colour) for style in styles.values())


@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
def test_one_point_alone_has_no_picture_of_differences_and_no_empty_panel(tmp_path, seeds):
    frame = load_frame(planted.plant(tmp_path, (planted.TOKEN_2,), (0.0,), seeds=seeds))
    alone = part_of(frame)
    figure = loss_curves(alone, point_styles(frame))
    assert len(figure.axes) == 1 and "token top-2" in texts(figure)
    assert "differences" not in {name for name, _ in figures(alone)}


def test_points_without_a_common_seed_have_no_picture_of_differences(tmp_path):
    first = planted.plant(tmp_path / "a", (planted.DENSE_1X,), (0.0,), seeds=(0,))
    frame = load_frame([*first, *planted.plant(tmp_path / "b", (planted.TOKEN_2,), (-0.1,), seeds=(1,))])
    assert "differences" not in {name for name, _ in figures(part_of(frame))}
    assert len(loss_curves(part_of(frame), point_styles(frame)).axes) == 1


def test_training_losses_stand_in_where_validation_is_rare(part, styles):
    few = copy.copy(part)
    vars(few)["curves"] = part.curves[part.curves["kind"] == "train"]
    figure = loss_curves(few, styles)
    assert figure.axes[0].get_ylabel().startswith("training (smoothed) loss")


def test_shares_over_training_fill_the_panel_and_start_where_the_history_does(part, styles):
    history = part.routing_history
    (figure,) = share_over_training(history, styles)
    panels = [axes for axes in figure.axes if axes.get_visible()]
    assert len(panels) == 4 * 3  # four routed points, three layers
    bands = panels[0].collections
    assert len(bands) == 4
    top = max(path.vertices[:, 1].max() for path in bands[-1].get_paths())
    assert top == pytest.approx(1.0)
    first = next(iter(name for name in styles if name in set(history["label"])))
    rows = history[(history["label"] == first) & (history["seed"] == 0) & (history["layer"] == 0)]
    end = rows[(rows["step"] == planted.STEPS) & (rows["expert"] == 0)]["share"].iloc[0]
    vertices = bands[0].get_paths()[0].vertices
    assert np.isclose(vertices[vertices[:, 0] == vertices[:, 0].max(), 1].max(), end)


def test_bars_are_the_shares_of_each_domain_with_the_uniform_line(part, styles):
    counts = part.activations
    (figure,) = share_by_domain(counts, styles, "language")
    axes = figure.axes[0]
    heights = np.array([bar.get_height() for bar in axes.patches]).reshape(4, 4)  # experts by languages
    assert np.allclose(heights.sum(axis=0), 1)
    name = next(iter(name for name in styles if name in set(counts["label"])))
    own = counts[(counts["label"] == name) & (counts["seed"] == 0) & (counts["layer"] == 0)]
    german = own[own["language"] == "de"].groupby("expert")["count"].sum()
    assert heights[:, 0] == pytest.approx((german / german.sum()).to_numpy())
    assert [list(line.get_ydata()) for line in axes.lines] == [[0.25, 0.25]]


def test_many_experts_become_heat_maps_on_pages_of_their_own(tmp_path):
    many = dataclasses.replace(planted.TOKEN_2, num_experts=32)
    frame = load_frame(planted.plant(tmp_path, (planted.TOKEN_2, many), (0.0, 0.0), seeds=(0,)))
    part = part_of(frame)
    pages = share_by_domain(part.activations, point_styles(frame), "topic")
    assert len(pages) == 2
    assert not any(axes.collections for axes in pages[0].axes)
    assert pages[1].axes[0].collections[0].get_array().shape == (32, 2)
    history = share_over_training(part.routing_history, point_styles(frame))
    assert history[1].axes[0].collections[0].get_array().shape == (32, planted.STEPS // planted.EVERY + 1)


def test_a_long_name_leaves_its_picture_room(tmp_path):
    """One topic of 120 letters took all of the panels' height: its name is cut, and has its place under them."""
    part = part_of(load_frame(planted.plant(tmp_path, (planted.TOKEN_2,), (0.0,), seeds=(0,))))
    part.activations["topic"] = part.activations["topic"].map(lambda name: name + "x" * 120)
    (page,) = share_by_domain(part.activations, point_styles(part.runs), "topic")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        page.draw_without_rendering()
    axes = page.axes[0]
    assert axes.get_window_extent().height > 0.5 * page.dpi
    for name in axes.get_xticklabels():
        assert len(name.get_text()) <= 30 and name.get_text().endswith("…")
        assert name.get_window_extent().y0 >= 0


@pytest.mark.long
def test_many_points_are_laid_on_pages(tmp_path):
    points = [Routing(k=k, num_experts=n) for k in (1, 2) for n in (4, 5, 6, 8)]
    frame = load_frame(planted.plant(tmp_path, points, [0.0] * 8, seeds=(0,)))
    assert {"experts-by-topic-1", "experts-by-topic-2"} <= names_of(frame)


@pytest.mark.long
def test_only_dense_points_and_one_point_alone_can_be_drawn(tmp_path):
    dense = load_frame(planted.plant(tmp_path / "dense", planted.FIRST_LOOK[:2], (0.0, 0.1)))
    assert names_of(dense) == {"perplexity", "differences", "loss-curves"}
    one = load_frame(planted.plant(tmp_path / "one", (planted.SEQUENCE_2,), (0.0,), seeds=(0,)))
    assert "differences" not in names_of(one)


def test_points_stand_in_the_order_of_the_numbers_in_their_names(frame):
    named = frame[frame["label"] == "token top-2"].iloc[[0] * 4]
    named = named.assign(label=[f"token top-2, width {width}" for width in (128, 64, 1024, 256)])
    assert [name.rsplit(" ", 1)[1] for name in point_styles(named)] == ["64", "128", "256", "1024"]


def test_a_style_is_that_of_the_point_whatever_else_is_drawn_with_it(frame, styles):
    again = point_styles(frame.sample(frac=1, random_state=0))
    assert again == styles
    looks = [(style.colour, style.marker, style.line) for style in styles.values()]
    assert len(set(looks)) == len(looks)


def test_twenty_points_still_look_different(tmp_path):
    frame = pd.DataFrame(
        {
            "label": [f"p{i:02d}" for i in range(20)],
            "state": "done",
            "routing.selection": "top_k",
            "num_params": 1,
            "leaks": False,
        }
    )
    looks = {(style.colour, style.marker, style.line) for style in point_styles(frame).values()}
    assert len(looks) == 20
