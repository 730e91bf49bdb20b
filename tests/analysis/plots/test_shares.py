import numpy as np
import pandas as pd
import pytest

from moe_study.analysis.plots.shares import by_favourite, lift_maps, share_bars
from moe_study.analysis.plots.style import EXPERTS
from tests.analysis.plots.found import ON, layers_of, made_up_shares, styles_of, table


@pytest.fixture(scope="module")
def traces():
    return layers_of("topic")


@pytest.fixture(scope="module")
def shares(traces):
    """Of two points with two seeds each; the second follows nothing."""
    parts = [table("shares", traces, "follows", seed=3)]
    parts += [table("shares", layers_of("topic", seed=4), "follows", seed=4)]
    parts += [table("shares", layers_of("nothing", seed=seed), "does not", seed=seed) for seed in (3, 4)]
    long = pd.concat(parts)
    return long[long["weighted_by"] == "picks"]


def bars_of(axes, experts, domains):
    """(heights, band lows, band highs), each [expert, domain]: for every expert, its bars and then its bands."""
    boxes = np.array([(bar.get_y(), bar.get_y() + bar.get_height()) for bar in axes.patches])
    boxes = boxes.reshape(experts, 2, domains, 2)
    return boxes[:, 0, :, 1], boxes[:, 1, :, 0], boxes[:, 1, :, 1]


def test_bars_are_the_counted_shares_of_the_lowest_seed(shares, traces):
    (figure,) = share_bars(shares, styles_of("follows", "does not"), "topic", ON)
    for layer, trace in traces.items():
        heights, _, _ = bars_of(figure.axes[layer], 4, 3)
        topic_T = np.asarray(trace.document_labels["topic"][0])[trace.document_T]
        for topic in range(3):
            counted = [np.mean(trace.expert_P[topic_T == topic] == expert) for expert in range(4)]
            assert heights[:, topic] == pytest.approx(counted)
    assert "one run per point (seed 3)" in " ".join(figure.get_supxlabel().split()).lower()


def test_every_bar_has_the_band_of_its_own_null(shares):
    (figure,) = share_bars(shares, styles_of("follows", "does not"), "topic", ON)
    own = shares[(shares["label"] == "does not") & (shares["seed"] == 3) & (shares["layer"] == 1)]
    own = own[own["of"] == "topic"].set_index(["expert", "domain"]).sort_index()
    _, low, high = bars_of(figure.axes[3], 4, 3)
    assert low.ravel() == pytest.approx(own["null_low"].to_numpy())
    assert high.ravel() == pytest.approx(own["null_high"].to_numpy())
    lines = np.concatenate([lines.get_segments() for lines in figure.axes[3].collections])
    assert sorted(lines[:, 0, 1]) == pytest.approx(sorted([*own["null_low"], *own["null_high"]]))


def test_bars_have_the_colour_of_their_expert_and_the_legend_names_the_null(shares):
    (figure,) = share_bars(shares, styles_of("follows"), "topic", ON)
    colours = [bar.get_facecolor() for bar in figure.axes[0].patches]
    assert len(set(colours)) == 4 + 1
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["0", "1", "2", "3", "null"]


def test_points_weighted_by_the_gate_are_named(shares):
    for draw in (share_bars, lift_maps):
        (figure,) = draw(shares.assign(weighted_by="gate"), styles_of("follows"), "topic", ON)
        assert "By gate weight, as every token has every expert: follows" in " ".join(figure.get_supxlabel().split())
        (figure,) = draw(shares, styles_of("follows"), "topic", ON)
        assert "gate" not in figure.get_supxlabel()


def test_too_many_bars_are_left_to_the_heat_map(shares):
    many = pd.concat([shares.assign(domain=shares["domain"] + f" {n}") for n in range(6)])  # 18 domains, 4 experts
    assert share_bars(many, styles_of("follows"), "topic", ON) == []
    assert len(lift_maps(many, styles_of("follows"), "topic", ON)) == 1
    experts = shares.assign(expert=shares["expert"] + len(EXPERTS))
    assert share_bars(pd.concat([shares, experts]), styles_of("follows"), "topic", ON) == []


def test_a_heat_map_has_the_lifts_with_a_dot_where_the_null_reaches(shares):
    (figure,) = lift_maps(shares, styles_of("follows", "does not"), "topic", ON)
    own = shares[(shares["label"] == "follows") & (shares["seed"] == 3) & (shares["layer"] == 0)]
    own = own[own["of"] == "topic"].set_index(["expert", "domain"]).sort_index()
    axes = figure.axes[0]
    experts = [int(text.get_text()) for text in axes.get_yticklabels()]
    drawn = axes.collections[0].get_array().reshape(4, 3).filled(np.nan)
    for row, expert in enumerate(experts):
        assert drawn[row] == pytest.approx(np.clip(own.loc[expert, "lift"].to_numpy(), 0.25, 4))
    x, y = axes.lines[0].get_data()
    dots = {(experts[int(row)], int(column)) for column, row in zip(x, y, strict=True)}
    names = sorted(set(shares[shares["of"] == "topic"]["domain"]))
    within = own[(own["null_low"] <= own["share"]) & (own["share"] <= own["null_high"])].index
    assert dots == {(expert, names.index(domain)) for expert, domain in within}


def test_what_follows_leaves_the_band_where_what_does_not_stays_in_it(shares):
    (figure,) = lift_maps(shares, styles_of("follows", "does not"), "topic", ON)
    dots = [len(axes.lines[0].get_xdata()) for axes in figure.axes[:4]]
    assert max(dots[:2]) <= 4 and min(dots[2:]) >= 10  # of 12 cells


def test_experts_stand_by_the_domain_that_they_favour():
    order = by_favourite(np.array([[1.0, 2.0], [3.0, 1.0], [np.nan, np.nan], [1.0, 5.0]]))
    assert order.tolist()[-2:] == [3, 0] and order.tolist()[0] == 1


@pytest.mark.parametrize(("experts", "layers"), [(64, 12), (200, 2)])
def test_many_experts_are_drawn_in_cells_that_can_be_seen(experts, layers):
    (figure,) = lift_maps(made_up_shares("many", experts, 20, layers), styles_of("many"), "topic", ON)
    panels = [axes for axes in figure.axes if axes.get_title()]
    assert [axes.get_title() for axes in panels] == (
        ["layer 0", "layer 5", "layer 11"] if layers == 12 else ["layer 0", "layer 1"]
    )
    shown = min(experts, 128)
    assert all(axes.collections[0].get_array().shape == (shown, 20) for axes in panels)
    note = " ".join(figure.get_supxlabel().split())
    assert ("The 128 of 200 experts that most tokens go to" in note) == (experts == 200)
    assert "makes a diagonal even of noise" in note and "Grey: within the null's band" in note


def test_cells_too_small_for_dots_are_grey_where_the_null_reaches():
    long = made_up_shares("many", 64, 20, 1)
    (figure,) = lift_maps(long, styles_of("many"), "topic", ON)
    coloured, grey = figure.axes[0].collections
    within = (long["null_low"] <= long["share"]) & (long["share"] <= long["null_high"]) & long["lift"].notna()
    assert (~grey.get_array().mask).sum() == within.sum() > 0
    assert (coloured.get_array().mask | grey.get_array().mask).all()
    assert (~coloured.get_array().mask).sum() == (long["lift"].notna() & ~within).sum()
