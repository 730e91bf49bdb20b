"""Tables of runs (run_tables) put together: run by run, and by design point over its seeds.

What is averaged over seeds is a number of the whole layer (or run), since experts have no identity across seeds: of
`shares` nothing is, of `co_activation` the largest lift of two different experts.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from moe_study.analysis.specialisation.points import MeasuredRun, measured_run
from moe_study.analysis.specialisation.run_tables import CONTROL
from moe_study.analysis.statistics import t_interval

NAMES = ("point", "leaks", "seed", "key")
ENDS = ("", "_low", "_high")


@dataclass(frozen=True)
class RunFindings:
    """What was found out about one run."""

    point: str  # its label
    seed: int
    leaks: bool  # the routing reads later tokens
    key: str
    tables: Mapping[str, pd.DataFrame]  # by their names in run_tables; without rows where the run has no experts

    @property
    def information(self) -> MeasuredRun:
        """Its rows of information, for `points.points_of`."""
        return measured_run(self.point, self.seed, self.leaks, self.tables["information"])


class Numbers(NamedTuple):
    """What is averaged over seeds: `of`, for each value of the columns `by`."""

    by: tuple[str, ...]
    of: tuple[str, ...]


OVER_SEEDS: dict[str, Numbers] = {
    CONTROL: Numbers(("layer", "label", "of", "given"), ("excess", "value", "null_mean", "routes_explained")),
    "agreement": Numbers(("layer", "label"), ("share", "chance", "bound")),
    "load": Numbers(
        ("layer",),
        ("evenness", "largest_violation", "effective_experts", "unused", "dropped", "entropy_mean", "margin_mean"),
    ),
    "distances": Numbers(("layer", "label", "first", "second"), ("distance", "plug_in", "floor")),
    "committee": Numbers(("layer", "label"), ("members", "coverage", "chance")),
    "co_activation": Numbers(("layer",), ("largest_lift",)),
    "paths": Numbers(
        (), ("distinct", "distinct_if_independent", "total_correlation", "correlation_if_independent")
    ),
}  # fmt: skip


def by_run(runs: Sequence[RunFindings], name: str) -> pd.DataFrame:
    """The tables of that name one under the other: point, leaks, seed, key, then their columns.

    The draws of nulls are left out; the seed that they were drawn with is called draws_seed.
    """
    parts = []
    for run in runs:
        if name in run.tables and len(run.tables[name]):
            part = run.tables[name].drop(columns="null", errors="ignore").rename(columns={"seed": "draws_seed"})
            for place, column in enumerate(NAMES):
                part.insert(place, column, getattr(run, column))
            parts.append(part)
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=list(NAMES))


def over_seeds_of(runs: Sequence[RunFindings], name: str) -> pd.DataFrame:
    """Every number of OVER_SEEDS by design point, in the order of their first run.

    Columns: point, leaks, seeds (count), those it is given by, and each number: its mean over seeds, and with _low and
    _high its 95% t interval (not a number for one seed). Seeds without a number do not count for it.
    """
    numbers, whole = OVER_SEEDS[name], by_run(runs, name)
    if not len(whole):
        return pd.DataFrame(columns=["point", "leaks", "seeds", *numbers.by, *numbers.of])
    whole = _ONE_ROW.get(name, lambda table: table)(whole)
    keys = ["point", *numbers.by]
    rows = [
        {**dict(zip(keys, values, strict=True)), **_over_seeds(own, numbers.of)}
        for values, own in whole.groupby(keys, sort=False, dropna=False)
    ]
    ends = (f"{number}{end}" for number in numbers.of for end in ENDS)
    return pd.DataFrame(rows, columns=["point", "leaks", "seeds", *numbers.by, *ends])


def _over_seeds(own: pd.DataFrame, of: Sequence[str]) -> dict[str, Any]:
    cells: dict[str, Any] = {"leaks": bool(own["leaks"].any()), "seeds": own["seed"].nunique()}
    for number in of:
        values = own[number].to_numpy(dtype=float)
        mean, _, low, high = t_interval(values[~np.isnan(values)])
        cells |= {f"{number}{end}": float(value) for end, value in zip(ENDS, (mean, low, high), strict=True)}
    return cells


def _committees(table: pd.DataFrame) -> pd.DataFrame:
    """A row for each run, layer and label instead of one for each expert."""
    groups = table.groupby([*NAMES, "layer", "label"], sort=False)
    first = {name: (name, "first") for name in ("coverage", "chance")}
    return groups.agg(members=("member", "sum"), **first).reset_index()


def _largest_lifts(table: pd.DataFrame) -> pd.DataFrame:
    """A row for each run and layer: the largest lift of two different experts."""
    pairs = table[table["first"] != table["second"]]
    return pairs.groupby([*NAMES, "layer"], sort=False).agg(largest_lift=("lift", "max")).reset_index()


_ONE_ROW: dict[str, Callable[[pd.DataFrame], pd.DataFrame]] = {
    "committee": _committees,
    "co_activation": _largest_lifts,
}
