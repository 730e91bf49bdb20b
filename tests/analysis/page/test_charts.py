import numpy as np
import pandas as pd
import pytest

from moe_study.analysis.page.charts import dash, looks_of, quantity, variable
from moe_study.analysis.page.cost_charts import _lanes
from moe_study.analysis.page.loss_charts import MOST_STEPS, _thinned
from tests.analysis.plots.found import styles_of


def test_a_logarithmic_axis_has_no_zero() -> None:
    assert quantity("x", None)["scale"]["zero"] is False
    assert "zero" not in quantity("x", None, scale={"type": "log"})["scale"]


@pytest.mark.parametrize("logged", [1, 7, MOST_STEPS, MOST_STEPS + 1, 1000, 1399])
def test_long_curves_are_thinned_evenly_and_keep_their_end(logged: int) -> None:
    long = pd.DataFrame({"key": "a", "step": np.arange(logged) * 10})
    kept = _thinned(pd.concat([long, long.assign(key="b")]))
    for _, own in kept.groupby("key"):
        assert len(own) <= MOST_STEPS and own["step"].iloc[-1] == 10 * (logged - 1)
        assert len(set(np.diff(own["step"]))) <= 1
        assert logged > MOST_STEPS or len(own) == logged


def test_points_that_would_hide_one_another_stand_side_by_side_and_others_where_they_are() -> None:
    points = pd.DataFrame({"loss": [4.0, 4.01, 5.0], "low": [3.9, 3.95, 4.9], "high": [4.1, 4.1, 5.1], "front": "no"})
    points.loc[1, "front"] = "yes"
    assert _lanes(np.array([1.0, 1.001, 2.0]), points) == [1, 0, 0]
    assert _lanes(np.array([1.0, 2.0, 1.0]), points) == [0, 0, 0]  # one cost, other losses
    assert _lanes(np.array([1.0, 2.0, 3.0]), points) == [0, 0, 0]


def test_points_look_as_in_the_pictures() -> None:
    one, other = looks_of(styles_of("a", "b", leaking="b"))
    assert (one.name, other.name, other.leaks) == ("a", "b †", True)
    assert one.colour == variable("#0072B2") == "var(--c-0072b2)"
    assert dash("-") == [] and dash((0, (4, 1.5))) == [8, 3]
