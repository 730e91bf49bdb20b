import numpy as np
import pandas as pd
import pytest

from moe_study.analysis.plots.information import information_by_layer
from moe_study.analysis.specialisation.points import measured_run, points_of, to_frame
from moe_study.analysis.specialisation.run_tables import run_table
from tests.analysis.plots.found import ON, layers_of, styles_of


@pytest.fixture(scope="module")
def rows():
    """Two points with three seeds, one with a single one."""
    seeds = {"topic": (0, 1, 2), "nothing": (0, 1, 2), "language": (0,)}
    runs = [
        measured_run(follow, seed, follow == "language", run_table("information", layers_of(follow, seed), 200))
        for follow, own in seeds.items()
        for seed in own
    ]
    return to_frame(points_of(runs))


STYLES = styles_of("topic", "nothing", "language", leaking="language")


@pytest.fixture(scope="module")
def pages(rows):
    return information_by_layer(rows, STYLES, ON)


def panel_of(pages, point, label, given=""):
    """The panel of a point and question, and its row in the rows shown."""
    titles = f"{label}\nbeyond {given}" if given else label
    for figure in pages:
        named = [axes for axes in figure.axes if axes.get_title() == titles]
        if named:
            column = figure.axes.index(named[0])
            across = sum(bool(axes.get_title()) for axes in figure.axes)
            (row,) = [
                place
                for place, axes in enumerate(figure.axes[::across])
                if axes.get_ylabel().removesuffix(" †") == point
            ]
            return figure.axes[row * across + column]
    raise AssertionError(f"no panel is called {titles}")


def of_rows(rows, point, label, given=""):
    return rows[(rows["point"] == point) & (rows["label"] == label) & (rows["given"] == given)].sort_values("layer")


@pytest.mark.parametrize(("label", "given"), [("topic", ""), ("topic", "token id"), ("part of speech", "token id")])
@pytest.mark.parametrize("point", ["topic", "nothing"])
def test_points_intervals_and_bands_are_the_numbers_of_the_frame(rows, pages, point, label, given):
    axes = panel_of(pages, point, label, given)
    own = of_rows(rows, point, label, given)
    (line,) = axes.lines
    assert list(line.get_xdata()) == [0, 1] and list(line.get_ydata()) == pytest.approx(list(own["value"]))
    bands = [(bar.get_y(), bar.get_y() + bar.get_height()) for bar in axes.patches]
    assert np.ravel(bands) == pytest.approx(own[["null_low", "null_high"]].to_numpy().ravel())
    (intervals,) = axes.collections
    ends = [segment[:, 1] for segment in intervals.get_segments()]
    assert np.ravel(ends) == pytest.approx(own[["value_low", "value_high"]].to_numpy().ravel())
    low, high = axes.get_ylim()
    assert low <= min(own["value_low"].min(), own["null_low"].min()) and high > own["value_high"].max()


def test_a_star_stands_on_what_is_shown_and_on_nothing_else(rows):
    where = rows["point"].eq("topic") & rows["label"].isin(["topic", "token id"]) & rows["layer"].eq(1)
    rows = rows.assign(shown=where.where(rows["seeds"] > 1, None))
    pages = information_by_layer(rows, STYLES, ON)
    stars = {
        (row.point, row.label, row.given, row.layer)
        for row in rows.itertuples()
        for text in panel_of(pages, row.point, row.label, row.given).texts
        if text.get_text() == "*" and text.xy[0] == row.layer
    }
    shown = rows[rows["shown"].eq(True)]
    assert stars == set(zip(shown["point"], shown["label"], shown["given"], shown["layer"], strict=True))
    assert ("topic", "topic", "token id", 1) in stars
    assert "* shown for other seeds" in " ".join(pages[0].get_supxlabel().split())


def test_one_seed_has_no_interval_and_a_leaking_point_is_hollow(rows, pages):
    axes = panel_of(pages, "language", "language")
    (line,), (intervals,) = axes.lines, axes.collections
    assert line.get_markerfacecolor() == "white"
    assert not any(np.isfinite(segment).all() and len(segment) for segment in intervals.get_segments())
    alone = information_by_layer(rows[rows["point"].eq("language") & rows["label"].eq("language")], STYLES, ON)
    assert "One seed, so no intervals" in " ".join(alone[0].get_supxlabel().split())
    assert "† its routing reads later tokens" in " ".join(alone[0].get_supxlabel().split()).lower()


def test_a_question_has_one_scale_on_all_pages(rows):
    rows = rows[rows["label"].eq("topic") & rows["given"].eq("")]
    named = [rows.assign(point=rows["point"] + f" {n}") for n in range(4)]
    many = pd.concat(named)
    styles = styles_of(*dict.fromkeys(many["point"]))
    pages = information_by_layer(many, styles, ON)
    limits = {axes.get_ylim() for figure in pages for axes in figure.axes if axes.get_title() == "topic"}
    assert len(pages) == 2 and len(limits) == 1
