"""Heat maps of changes and pairs; those of lift are in test_shares.py."""

import numpy as np
import pandas as pd
import pytest

from moe_study.analysis.plots.co_activation import chance_of_pairs, co_activation_maps
from moe_study.analysis.plots.knockout import knockout_maps
from moe_study.analysis.plots.shares import lift_maps
from tests.analysis.plots.found import ON, knockout, layers_of, made_up_shares, styles_of, table

LANGUAGES = ["de", "en", "fr"]


def test_knock_outs_are_the_changes_of_removed_experts_with_dots_and_stars():
    changes = knockout("one", 3, LANGUAGES)
    (figure,) = knockout_maps(changes, styles_of("one"), "language", ON)
    own = changes[changes["kind"] == "remove"].set_index(["layer", "expert", "domain"])
    for layer, axes in enumerate(figure.axes[:2]):
        experts = [int(text.get_text()) for text in axes.get_yticklabels()]
        drawn = axes.collections[0].get_array().reshape(3, 3)
        dots, stars = ({(int(y), int(x)) for x, y in zip(*line.get_data(), strict=True)} for line in axes.lines)
        for row, expert in enumerate(experts):
            for column, language in enumerate(LANGUAGES):
                cell = own.loc[(layer, expert, language)]
                assert drawn[row, column] == pytest.approx(cell["change"])
                assert ((row, column) in dots) == (abs(cell["change"]) <= 0.05)
                assert ((row, column) in stars) == cell["needed"]
    note = " ".join(figure.get_supxlabel().split())
    assert (
        note.startswith("Probe planted")
        and "Dots: within what removing random experts of equal load does" in note
        and "Stars: needed" in note
    )


def test_knock_outs_without_a_null_have_no_dots_and_say_so():
    changes = knockout("one", 3, LANGUAGES).assign(null_low=np.nan, null_high=np.nan)
    (figure,) = knockout_maps(changes, styles_of("one"), "language", ON)
    assert len(figure.axes[0].lines[0].get_xdata()) == 0
    assert "No cell is within what removing random experts" in " ".join(figure.get_supxlabel().split())


def test_knock_outs_that_show_nothing_say_so():
    changes = knockout("one", 3, LANGUAGES).assign(needed=False)
    (figure,) = knockout_maps(changes, styles_of("one"), "language", ON)
    note = " ".join(figure.get_supxlabel().split())
    assert "no expert is shown to be needed" in note and "Stars" not in note


def test_knock_outs_that_change_nothing_are_not_drawn():
    nothing = knockout("one", 3, LANGUAGES).assign(change=0.0)
    assert knockout_maps(nothing, styles_of("one"), "language", ON) == []
    assert knockout_maps(nothing, styles_of("another"), "language", ON) == []


def test_a_change_of_zero_has_the_colour_between_the_two():
    (figure,) = knockout_maps(knockout("one", 3, LANGUAGES), styles_of("one"), "language", ON)
    norm = figure.axes[0].collections[0].norm
    assert norm(0.0) == pytest.approx(0.5) and norm.vmax >= 0.101 and norm.vmin == -norm.vmax


def test_pairs_are_tokens_with_both_over_chance_with_a_mean_of_one():
    trace = layers_of("topic", layers=1, top=2)[0]
    pairs = table("co_activation", {0: trace}, "one")
    (figure,) = co_activation_maps(pairs, styles_of("one"), ON)
    drawn = figure.axes[0].collections[0].get_array().reshape(4, 4)
    picked_TE = np.zeros((len(trace.token_T), 4))
    picked_TE[trace.token_of_P, trace.expert_P] = 1
    both, load = np.zeros((4, 4)), picked_TE.sum(0)
    for row in picked_TE:
        for i in range(4):
            for j in range(4):
                both[i, j] += row[i] * row[j]
    off = ~np.eye(4, dtype=bool)
    chance = np.outer(load, load)
    expected = both / chance * chance[off].sum() / both[off].sum()
    assert np.asarray(drawn)[off] == pytest.approx(np.clip(expected[off], 0.25, 4))
    assert np.ma.getmaskarray(drawn)[~off].all()
    assert np.nansum(chance_of_pairs(both)) == pytest.approx(both[off].sum())


def test_pairs_of_too_few_tokens_are_dotted():
    """100 tokens pick 0 and 1, 50 of them; 2 has two tokens."""
    both = np.array([[60, 50, 1], [50, 60, 1], [1, 1, 2]])
    first, second = (axis.ravel() for axis in np.indices(both.shape))
    pairs = pd.DataFrame(
        {"layer": 0, "first": first, "second": second, "both": both.ravel(), "label": "one", "seed": 0}
    )
    (figure,) = co_activation_maps(pairs, styles_of("one"), ON)
    x, y = figure.axes[0].lines[0].get_data()
    assert set(zip(x, y, strict=True)) == {(2, 0), (2, 1), (0, 2), (1, 2)}
    assert "Dots: too few tokens to tell" in " ".join(figure.get_supxlabel().split())


def test_points_of_few_and_of_many_experts_have_pages_of_their_own():
    changes = pd.concat(
        [knockout("few", 3, LANGUAGES), knockout("many", 40, LANGUAGES), knockout("also few", 4, LANGUAGES)]
    )
    pages = knockout_maps(changes, styles_of("few", "many", "also few"), "language", ON)
    rows = [[axes.get_ylabel().replace("\n", " ") for axes in figure.axes if axes.get_ylabel()] for figure in pages]
    assert [[name for name in page if "few" in name or "many" in name] for page in rows] == [
        ["few", "also few"],
        ["many"],
    ]


def test_points_whose_tokens_have_one_expert_or_all_have_no_pairs_to_show():
    one = pd.concat(
        [table("co_activation", layers_of("topic"), "top-1"), table("co_activation", layers_of("topic", top=4), "all")]
    )
    two = table("co_activation", layers_of("topic", top=2), "top-2")
    assert co_activation_maps(one, styles_of("top-1", "top-2", "all"), ON) == []
    (figure,) = co_activation_maps(pd.concat([one, two]), styles_of("top-1", "top-2", "all"), ON)
    assert [axes.get_ylabel() for axes in figure.axes if axes.get_title()] == ["top-2", ""]


def test_a_point_without_some_domains_keeps_their_columns_free():
    """One row of panels names the domains for all."""
    changes = pd.concat([knockout("some", 3, ["en"]), knockout("all", 3, LANGUAGES)])
    shares = made_up_shares("all", 3, 3, 1)
    some = made_up_shares("some", 3, 3, 1)
    some = some[some["domain"] == "topic 01"]
    for figures in (
        knockout_maps(changes, styles_of("some", "all"), "language", ON),
        lift_maps(pd.concat([some, shares]), styles_of("some", "all"), "topic", ON),
    ):
        (figure,) = figures
        drawn = figure.axes[0].collections[0].get_array().reshape(3, 3)
        assert np.ma.getmaskarray(drawn).tolist() == [[True, False, True]] * 3
