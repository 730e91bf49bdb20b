import numpy as np
import pandas as pd
import pytest

from moe_study.analysis.plots.saturation import saturation_over_training
from tests.analysis.plots.found import ON, styles_of


def kept(label, seeds=(0, 1), layers=(0, 1), chance=0.25):
    rows = [
        {"layer": layer, "step": step, "tokens": 100 * step, "of": "picks", "chance": chance,
         "overlap": 1 - (30 - step) * (0.01 + 0.002 * seed + 0.005 * layer), "label": label, "seed": seed}
        for seed in seeds for layer in layers for step in (0, 10, 20, 30)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_curves_are_means_over_seeds_between_the_lowest_and_the_highest():
    long = pd.concat([kept("one"), kept("two", chance=0.5)])
    styles = styles_of("one", "two")
    figure = saturation_over_training(long, styles, ON)
    assert [axes.get_title() for axes in figure.axes] == ["layer 0", "layer 1"]
    for layer, axes in enumerate(figure.axes):
        for name, chance in (("one", 0.25), ("two", 0.5)):
            curve, dotted = (line for line in axes.lines if line.get_color() == styles[name].colour)
            slope = 0.01 + 0.005 * layer
            assert list(curve.get_xdata()) == [0, 1000, 2000, 3000]
            assert curve.get_ydata() == pytest.approx([1 - left * (slope + 0.001) for left in (30, 20, 10, 0)])
            assert dotted.get_linestyle() == ":" and dotted.get_ydata() == pytest.approx([chance] * 4)
        heights = axes.collections[0].get_paths()[0].vertices[:, 1]
        assert heights.min() == pytest.approx(1 - 30 * (slope + 0.002)) and heights.max() == pytest.approx(1)


def test_the_legend_goes_from_the_highest_curve_to_the_lowest():
    low = kept("low").assign(overlap=lambda rows: rows["overlap"] - 0.2)
    figure = saturation_over_training(pd.concat([low, kept("high")]), styles_of("low", "high"), ON)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["high", "low"]


def test_routes_without_a_choice_are_not_drawn():
    fixed = kept("fixed", chance=1.0)
    assert saturation_over_training(fixed, styles_of("fixed"), ON) is None
    both = saturation_over_training(pd.concat([fixed, kept("free")]), styles_of("fixed", "free"), ON)
    assert [text.get_text() for text in both.legends[0].get_texts()] == ["free"]
    assert np.isfinite(both.axes[0].get_ylim()).all()
