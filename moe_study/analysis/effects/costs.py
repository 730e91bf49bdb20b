"""The four costs at which points are compared: parameters in all, those at work, FLOPs of training, wall clock.

The cost of a point is the mean over its finished runs: only time, and rows that a threshold or a capacity decides, vary
from seed to seed.
"""

from enum import StrEnum

import pandas as pd

from moe_study.analysis.format import count, duration

PASSES = 3  # forward, and twice that backward


class Cost(StrEnum):
    """One axis of cost; the value is what a sweep file writes."""

    TOTAL_PARAMS = "total_params"
    ACTIVE_PARAMS = "active_params"  # per token, of the expert rows that ran
    FLOPS = "flops"  # of the whole training, of the expert rows that ran
    SECONDS = "seconds"  # wall clock of training: comparable only where machines and their load were

    @property
    def words(self) -> str:
        return {
            Cost.TOTAL_PARAMS: "total parameters",
            Cost.ACTIVE_PARAMS: "active parameters",
            Cost.FLOPS: "executed training FLOPs",
            Cost.SECONDS: "training time",
        }[self]

    def text(self, value: float) -> str:
        """A value as people read it: 1.23M, 2h05m."""
        return duration(value) if self is Cost.SECONDS else count(value)


def costs_of_points(runs: pd.DataFrame) -> pd.DataFrame:
    """Points (labels) down, costs (Cost) across; NaN where no run of the point tells. `runs` have results."""
    by_run = pd.DataFrame(
        {
            "label": runs["label"],
            Cost.TOTAL_PARAMS: runs["num_params"],
            Cost.ACTIVE_PARAMS: runs["executed_active_params"],
            Cost.FLOPS: PASSES * runs["executed_flops_per_token"] * runs["tokens"],
            Cost.SECONDS: runs["train_seconds"],
        }
    )
    return by_run.groupby("label").mean().astype(float)[list(Cost)]


def known_costs(costs: pd.DataFrame, cost: Cost) -> dict[str, float]:
    """The cost of every point (label) of which it is known."""
    return {str(label): float(value) for label, value in costs[cost].items() if value > 0}
