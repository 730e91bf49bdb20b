"""The picture of experts per token: drawn for points whose work is a result, with the rates that were recorded."""

import numpy as np
import pandas as pd
import pytest

from moe_study.analysis.plots.style import PointStyle
from moe_study.analysis.plots.work import experts_per_token

POINTS = (("fixed", "#111111"), ("free", "#222222"))
STYLES = {name: PointStyle(name, colour, "o", "-", False) for name, colour in POINTS}


def history(free_kept: list[float], free_wanted: list[float]) -> pd.DataFrame:
    """Two seeds of a point with 2 experts per token and of one whose rates are given, one layer of 3 experts."""
    rows = []
    for label, kept, wanted in (("fixed", [2.0, 2.0], [2.0, 2.0]), ("free", free_kept, free_wanted)):
        for seed in (0, 1):
            for step in (0, 1):
                shift = 0.5 * seed * (label == "free")
                rates = {"kept_per_token": kept[step] + shift, "wanted_per_token": wanted[step] + shift}
                place = {"label": label, "key": f"{label}{seed}", "seed": seed, "step": step, "tokens": 100 * step}
                rows += [{**place, **rates, "layer": 0, "expert": expert} for expert in range(3)]
    return pd.DataFrame(rows)


def test_a_fixed_number_of_experts_is_no_picture():
    only_fixed = history([1.0, 1.0], [1.0, 1.0]).query("label == 'fixed'")
    assert experts_per_token(only_fixed, STYLES) is None


@pytest.mark.parametrize(
    ("kept", "wanted", "lines"), [([3.0, 1.0], [3.0, 1.0], 1), ([2.0, 2.0], [6.0, 4.0], 2), ([3.0, 1.0], [6.0, 4.0], 2)]
)
def test_the_lines_are_the_recorded_rates_averaged_over_seeds(kept, wanted, lines):
    figure = experts_per_token(history(kept, wanted), STYLES)
    assert figure is not None
    drawn = [line for line in figure.axes[0].lines if len(line.get_xdata()) == 2]
    assert len(drawn) == lines
    np.testing.assert_allclose(drawn[0].get_ydata(), np.array(kept) + 0.25)
    if lines == 2:
        np.testing.assert_allclose(drawn[1].get_ydata(), np.array(wanted) + 0.25)
