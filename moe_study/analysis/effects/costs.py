"""The costs at which points are compared: parameters in all, those at work, FLOPs of training, wall clock.

Reports describe every point at the four of DESCRIBED. Two more are there for who asks (`at:` and `reach:` in sweep
files), since a claim may be of a part of the model: a paper that saves compute "in the mixtures" speaks of the experts
alone, and in a small model what is around them hides what they save.

The cost of a point is the mean over its finished runs: only time, and rows that a threshold or a capacity decides, vary
from seed to seed. The rows that ran are those of the trained model on the validation set. A threshold that nothing
steers takes more of them while its router is not sure of itself, so over its training it ran more than its cost says;
one that is steered to a budget hardly does, and ReMoE's comes down to its budget from half of all experts (docs/LOG.md,
2026-11-26, has all three).
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import numpy as np
import pandas as pd

from moe_study.analysis.format import count, duration
from moe_study.analysis.records import records
from moe_study.design.accounting import expert_flops_per_token, ffn_flops_per_token
from moe_study.design.config import ModelConfig, RunConfig
from moe_study.design.plain import flatten, from_plain, to_plain
from moe_study.design.routing import Routing, Selection
from moe_study.errors import ConfigError

PARTS = {"model": ModelConfig, "routing": Routing}  # of a configuration: what a network is built by
PASSES = 3  # forward, and twice that backward


class Cost(StrEnum):
    """One axis of cost; the value is what a sweep file writes."""

    TOTAL_PARAMS = "total_params"
    ACTIVE_PARAMS = "active_params"  # per token, of the expert rows that ran
    FLOPS = "flops"  # of the whole training, of the expert rows that ran
    SECONDS = "seconds"  # wall clock of training: comparable only where machines and their load were
    FFN_FLOPS = "ffn_flops"  # of FLOPS what ran in feed-forward networks: experts, routers, merging
    EXPERT_FLOPS = "expert_flops"  # of FFN_FLOPS what ran in experts, without routers; a dense model has none

    @property
    def words(self) -> str:
        return {
            Cost.TOTAL_PARAMS: "total parameters",
            Cost.ACTIVE_PARAMS: "active parameters",
            Cost.FLOPS: "executed training FLOPs",
            Cost.SECONDS: "training time",
            Cost.FFN_FLOPS: "executed feed-forward FLOPs",
            Cost.EXPERT_FLOPS: "executed expert FLOPs",
        }[self]

    def text(self, value: float) -> str:
        """A value as people read it: 1.23M, 2h05m."""
        return duration(value) if self is Cost.SECONDS else count(value)


DESCRIBED = (Cost.TOTAL_PARAMS, Cost.ACTIVE_PARAMS, Cost.FLOPS, Cost.SECONDS)  # of every point, in every report


def costs_of_points(runs: pd.DataFrame) -> pd.DataFrame:
    """Points (labels) down, costs (Cost) across; NaN where no run of the point tells. `runs` have results."""
    return costs_of_runs(runs).groupby(runs["label"]).mean()


def costs_of_runs(runs: pd.DataFrame) -> pd.DataFrame:
    """Runs down, as in `runs`, costs (Cost) across; NaN where a run does not tell."""
    trained = PASSES * runs["tokens"]
    ffn, experts = _in_networks(runs)
    found = {
        Cost.TOTAL_PARAMS: runs["num_params"],
        Cost.ACTIVE_PARAMS: runs["executed_active_params"],
        Cost.FLOPS: trained * runs["executed_flops_per_token"],
        Cost.SECONDS: runs["train_seconds"],
        Cost.FFN_FLOPS: trained * ffn,
        Cost.EXPERT_FLOPS: trained * experts,
    }
    return pd.DataFrame(found).astype(float)


def known_costs(costs: pd.DataFrame, cost: Cost) -> dict[str, float]:
    """The cost of every point (label) of which it is known."""
    return {str(label): float(value) for label, value in costs[cost].items() if value > 0}


# The part of a forward pass that runs in feed-forward networks ------------------------------------------------------


def _in_networks(runs: pd.DataFrame) -> tuple["pd.Series[float]", "pd.Series[float]"]:
    """FLOPs per token of each run (in all feed-forward networks, in experts), by the settings of its point and the
    expert rows that ran: a mean over mixtures, whose experts are of one size. NaN where the rows were not measured, or
    the settings are not there or of a later version."""
    names = [name for name in runs if name == "label" or str(name).startswith(tuple(f"{part}." for part in PARTS))]
    points = runs[names].drop_duplicates("label")
    networks = {str(row["label"]): _network(row) for row in records(points)}
    rows = runs["executed_per_token"] if "executed_per_token" in runs else [np.nan] * len(runs)
    found = [_flops_of(networks[str(label)], float(ran)) for label, ran in zip(runs["label"], rows, strict=True)]
    ffn, experts = (pd.Series([one[place] for one in found], runs.index, dtype=float) for place in (0, 1))
    return ffn, experts


def _flops_of(config: RunConfig | None, rows: float) -> tuple[float, float]:
    if config is None:
        return np.nan, np.nan
    if config.routing.selection is Selection.DENSE:
        return ffn_flops_per_token(config), np.nan
    return ffn_flops_per_token(config, rows), expert_flops_per_token(config, rows)


def _network(row: Mapping[Any, Any]) -> RunConfig | None:
    """The model and routing of a row's settings; None where they cannot be read."""
    try:
        parts = {
            part: from_plain(cls, _nested({name: _value(row[f"{part}.{name}"]) for name in flatten(to_plain(cls()))}))
            for part, cls in PARTS.items()
        }
    except (KeyError, ConfigError):
        return None
    return RunConfig(**parts)


def _nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted names as nested mappings."""
    nested: dict[str, Any] = {}
    for name, value in flat.items():
        *above, last = name.split(".")
        inner = nested
        for part in above:
            inner = inner.setdefault(part, {})
        inner[last] = value
    return nested


def _value(value: Any) -> Any:
    """A setting as it was before a column of a frame made a number with a fraction of it, or NaN of null."""
    if isinstance(value, float | np.floating):
        return None if np.isnan(value) else int(value) if float(value).is_integer() else float(value)
    return value.item() if isinstance(value, np.generic) else value
