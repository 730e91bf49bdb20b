"""Small frames and grids whose effects are known, without folders."""

import itertools
from typing import Any

import numpy as np
import pandas as pd

from moe_study.analysis.pairs import Settings
from moe_study.design.config import RunConfig
from moe_study.design.plain import flatten, to_plain

PLAIN = flatten(to_plain(RunConfig()))


def points(**named: dict[str, Any]) -> Settings:
    """Settings of points by label: the defaults, and what is given; names of routing settings may go without it."""
    return {
        label: {**PLAIN, **{name if "." in name else f"routing.{name}": value for name, value in own.items()}}
        for label, own in named.items()
    }


def product(**levels: list[Any]) -> Settings:
    """A full product of routing settings: labels are the values, joined by _."""
    combinations = [dict(zip(levels, values, strict=True)) for values in itertools.product(*levels.values())]
    return points(**{"_".join(map(str, one.values())): one for one in combinations})


def losses(rows: dict[str, Any], seeds: Any = None) -> pd.DataFrame:
    """Points down, seeds across."""
    values = {label: np.asarray(own, dtype=float) for label, own in rows.items()}
    width = len(next(iter(values.values())))
    return pd.DataFrame.from_dict(values, orient="index", columns=list(seeds or range(width)))


def costs(**by_label: float | tuple[float, float]) -> pd.DataFrame:
    """Costs of points: one number for all four, or (FLOPs, seconds)."""
    rows = {
        label: {
            "total_params": np.min(value),
            "active_params": np.min(value),
            "flops": np.atleast_1d(value)[0],
            "seconds": np.atleast_1d(value)[-1],
        }
        for label, value in by_label.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index").astype(float)
