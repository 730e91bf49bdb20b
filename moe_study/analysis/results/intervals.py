"""Means over seeds with their interval, as results/ writes them, and numbers of groups set side by side by seed."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from moe_study.analysis.statistics import t_interval


def interval_text(values_S: Sequence[float] | NDArray[np.float64], sign: str = "+") -> str:
    """The mean with its 95% interval over seeds, in three digits; one value has no interval, none gives no text."""
    values = np.asarray(values_S, dtype=float)
    if not len(values):
        return ""
    mean, _, low, high = (float(one) for one in t_interval(values))
    return f"{mean:{sign}.3f}" if np.isnan(low) else f"{mean:{sign}.3f} [{low:{sign}.3f}, {high:{sign}.3f}]"


def by_seed(rows: pd.DataFrame, value: str, groups: Sequence[str]) -> pd.DataFrame:
    """`value` with groups down and seeds across, in the order of the rows; groups without a value are left out."""
    wide = rows.pivot_table(index=list(groups), columns="seed", values=value, sort=False, dropna=False)
    return wide[wide.notna().any(axis=1)]
