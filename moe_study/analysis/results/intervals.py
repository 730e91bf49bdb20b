"""Means over seeds with their interval, as results/ writes them, and numbers of groups set side by side by seed."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from moe_study.analysis.format import with_bounds
from moe_study.analysis.statistics import t_interval

MOST_VALUES = 12  # of a label in a table for people; the parquet has all


def interval_text(values_S: Sequence[float] | NDArray[np.float64], sign: str = "+") -> str:
    """The mean with its 95% interval over seeds, in three digits; one value has no interval, none gives no text."""
    values = np.asarray(values_S, dtype=float)
    if not len(values):
        return ""
    mean, _, low, high = (float(one) for one in t_interval(values))
    return with_bounds(mean, low, high, f"{sign}.3f")


def by_seed(rows: pd.DataFrame, value: str, groups: Sequence[str]) -> pd.DataFrame:
    """`value` with groups down and seeds across, in the order of the rows; groups without a value are left out."""
    means = rows.groupby([*groups, "seed"], sort=False)[value].mean()
    wide: pd.DataFrame = means.dropna().unstack("seed", sort=False)
    return wide


def extremes_text(means_by: Mapping[str, "pd.Series[float]"]) -> str:
    """The names with the smallest and the largest mean for each way to group, as the end of a sentence."""
    parts = []
    for by, means in means_by.items():
        ordered = means.sort_values(kind="stable")
        if len(ordered) > 1:
            low, high = (f"{ordered.iloc[place]:.2f} ({ordered.index[place]})" for place in (0, -1))
            parts.append(f"by {by} from {low} to {high}")
    return f"; {', '.join(parts)}" if parts else ""


def group_cells(wide_GS: pd.DataFrame, sign: str = "+") -> list[list[str]]:
    """(by, name, mean with its interval) of each group, but of labels with more values than a reader looks through."""
    by, names = (wide_GS.index.get_level_values(level).astype(str) for level in ("by", "name"))
    few = by.value_counts() <= MOST_VALUES
    values_GS = wide_GS.to_numpy(dtype=float)
    return [[b, name, interval_text(own, sign)] for b, name, own in zip(by, names, values_GS, strict=True) if few[b]]
