"""Layers that are shown, labels kept apart, and palettes; styles of points are in test_all.py."""

import itertools

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from moe_study.analysis.plots.style import COLOURS, EXPERTS, GREYS, chosen_layers, spread

# Machado et al. (2009), deuteranopia and protanopia of severity 1, on linear RGB.
DEUTERANOPIA = np.array(
    [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]]
)
PROTANOPIA = np.array(
    [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
)


def test_chosen_layers_are_those_of_the_paper():
    assert chosen_layers(range(12)) == [0, 5, 11]
    assert chosen_layers([3, 1]) == [1, 3]
    assert chosen_layers(range(4)) == [0, 1, 2, 3]


def test_spread_keeps_order_and_gap_and_moves_nothing_without_need():
    assert spread([0.0, 1.0, 5.0], 0.5).tolist() == [0.0, 1.0, 5.0]
    moved = spread([0.0, 0.1, 0.1, 3.0], 1.0)
    assert np.all(np.diff(moved) >= 1 - 1e-9)
    assert moved[:3].mean() == pytest.approx(0.2 / 3)  # least squares keeps the mean of a block


@pytest.mark.parametrize("matrix", [DEUTERANOPIA, PROTANOPIA])
@pytest.mark.parametrize("palette", [COLOURS, (*EXPERTS,), GREYS])
def test_palettes_stay_apart_for_colour_blind_readers(palette, matrix):
    seen = [lab(np.clip(matrix @ linear(np.array(to_rgb(colour))), 0, 1)) for colour in palette]
    apart = [np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)]
    assert min(apart) > 10  # CIELAB units; about 2.3 is just noticeable


def linear(rgb):
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def lab(rgb):
    """CIELAB (D65) of linear RGB."""
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ rgb
    f = np.cbrt(np.maximum(xyz / np.array([0.9505, 1.0, 1.089]), 1e-6))
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])
