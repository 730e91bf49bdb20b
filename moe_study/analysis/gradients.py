"""Norms of gradients by part of the model, over runs: how large they are in training, and at its end.

A part's norm joins its layers (root of the sum of squares). ONE_EXPERT is no part of its own: the mean norm over the
experts that had a token, which unlike the norm of all experts together does not grow with their number. Frames have
label, point, key and seed in front, as all long frames have.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from moe_study.analysis.frame import RUN_NAMES, Row, long_frame
from moe_study.runs.folder import RunFolder
from moe_study.runs.gradients import COLUMNS, EXPERTS, PARTS, read_gradients

ONE_EXPERT = "one expert"
SHOWN = tuple(part for each in PARTS for part in ((each, ONE_EXPERT) if each == EXPERTS else (each,)))
LATE = 0.5  # of the recorded steps: where training has settled


def gradient_history(frame: pd.DataFrame, problems: list[str] | None = None) -> pd.DataFrame:
    """What finished runs of `frame` (load_frame) recorded in training: step, tokens (trained on), part, norm.

    Runs that recorded nothing have no rows. Damaged files: as for all long frames (frame.py).
    """

    def one(run: Row) -> pd.DataFrame:
        long = read_gradients(RunFolder(run["folder"]))
        return long.assign(tokens=long["step"] * run["run.batch_size"] * run["model.context"])

    return joined(long_frame(frame, one, [*COLUMNS, "tokens"], problems), [*RUN_NAMES, "step", "tokens"])


def joined(rows: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Rows (runs/gradients.py) with layers joined: the columns `by`, which tell steps of runs apart, part (of SHOWN)
    and norm."""
    places = list(by)
    squares = rows.assign(norm=rows["norm"] ** 2).groupby([*places, "part"], sort=False)["norm"].sum()
    parts = np.sqrt(squares).reset_index()
    experts = rows[rows["part"] == EXPERTS].dropna(subset="mean_active")
    totals = experts.assign(norm=experts["active"] * experts["mean_active"])
    sums = totals.groupby(places, sort=False)[["norm", "active"]].sum().reset_index()
    each = sums.assign(part=ONE_EXPERT, norm=sums["norm"] / sums["active"])[[*places, "part", "norm"]]
    return pd.concat([part for part in (parts, each) if len(part)], ignore_index=True) if len(rows) else parts


def settled(history: pd.DataFrame) -> pd.DataFrame:
    """One row for each run and part: label, seed, part, norm (geometric mean over the LATE part of its records).

    A part whose gradient vanishes at one of these steps (a router that only balancing terms reach) has 0.
    """
    late = history[history["step"] > LATE * history.groupby("key")["step"].transform("max")]
    with np.errstate(divide="ignore"):
        logs = late.assign(norm=np.log(late["norm"].to_numpy(float)))
    means = logs.groupby(["label", "seed", "part"], sort=False)["norm"].mean()
    return np.exp(means).reset_index()


def by_seed(summary: pd.DataFrame, label: str, value: str = "norm") -> pd.DataFrame:
    """Of one point of a summary (`settled`): parts down in the order of SHOWN, seeds across."""
    own = summary[summary["label"] == label]
    wide = own.groupby(["part", "seed"])[value].mean().unstack("seed")
    return wide.reindex([part for part in SHOWN if part in wide.index])
