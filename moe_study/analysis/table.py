"""The perplexity table: every point with its seeds, its spread, its difference to a reference, and its costs.

Points are ranked on seeds that they share (see ranking). Beneath them stand, marked, points that lack such seeds,
points whose routing reads later tokens (unless asked to be ranked), and points without any finished run.
"""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from moe_study.analysis.absent import AbsentRun, absent_runs, reasons, states
from moe_study.analysis.comparison import LEVEL, losses_by_seed, shared_losses
from moe_study.analysis.frame import EXECUTED, EXPERT_RATES, done
from moe_study.analysis.pairs import default_reference
from moe_study.analysis.ranking import ranking_seeds, runs_in_table
from moe_study.analysis.statistics import interval, paired_difference

MEANS = (
    "bits_per_byte",
    "accuracy",
    "num_params",
    "num_active_params",
    "flops_per_token",
    *EXECUTED,
    *EXPERT_RATES,
    "train_seconds",
    "tokens_per_second",
)
OF_RUNS = list(dict.fromkeys(("label", "validation_loss", "leaks", "mixes_batch", "accuracy", *MEANS)))
RANKED, APART, LEAKING, NO_RESULT = "ranked", "lacks seeds", "reads later tokens", "no result"
STANDINGS = (RANKED, APART, LEAKING, NO_RESULT)  # from the top of the table down


def perplexity_table(
    frame: pd.DataFrame, reference: str | None = None, rank_leaking: bool = False, level: float = LEVEL
) -> pd.DataFrame:
    """One row per point of one evaluation set, best loss first within each standing.

    Columns: label, standing (STANDINGS), seeds (count), loss and loss_sd (nats per token), perplexity = exp(loss),
    perplexity_low and _high (t interval of the loss, exponentiated), spread = exp(loss_sd), difference,
    difference_low, difference_high (nats per token, paired to the reference over all seeds that both have; each
    interval alone) and pairs, MEANS (over seeds), accuracy_sd, leaks, mixes_batch; and of the runs without a result
    absent (count), absent_states, absent_reasons. Intervals are NaN for one seed. A run whose configuration cannot be
    read has a row under its key, with is_point False.
    """
    reference = reference if reference is not None else default_reference(frame)
    numbers = frame[[*OF_RUNS, "state", "seed"]]  # of a hundred columns
    seeds = ranking_seeds(numbers)
    runs, complete = runs_in_table(numbers, seeds)
    points, none = dict(list(runs.groupby("label"))), runs.head(0)
    losses = losses_by_seed(done(numbers))
    missing = _by_label(absent_runs(frame))
    rows = []
    for label in dict.fromkeys(frame["label"]):
        own = points.get(label, none)
        row = {"label": label, "standing": NO_RESULT, "seeds": len(own), "leaks": None, "mixes_batch": None}
        if len(own):
            row.update(_losses(own, level), **_difference(losses, label, reference, level))
            row.update({name: own[name].mean() for name in MEANS}, accuracy_sd=own["accuracy"].std())
            row.update({name: bool(own[name].any()) for name in ("leaks", "mixes_batch")})
            row["standing"] = _standing(bool(row["leaks"]) and not rank_leaking, label in complete)
        absent = missing.get(label, [])
        row.update(is_point=not absent or absent[0].is_known)
        row.update(absent=len(absent), absent_states=states(absent), absent_reasons=reasons(absent))
        rows.append(row)
    table = pd.DataFrame(rows).astype({"pairs": "Int64"})
    order = table["standing"].map(STANDINGS.index)
    table = table.assign(order=order).sort_values(["order", "loss", "label"]).drop(columns="order")
    table = table.reset_index(drop=True)
    table.attrs.update(reference=reference, level=level, rank_leaking=rank_leaking, seeds=sorted(seeds))
    return table


def _by_label(absent: Iterable[AbsentRun]) -> dict[str, list[AbsentRun]]:
    found: dict[str, list[AbsentRun]] = {}
    for run in absent:
        found.setdefault(run.label, []).append(run)
    return found


def _losses(own: pd.DataFrame, level: float) -> dict[str, float]:
    loss = interval(own["validation_loss"].to_numpy(), level)
    ends = np.exp([loss.low, loss.high, loss.sd])
    names = ("perplexity_low", "perplexity_high", "spread")
    values = {"loss": loss.mean, "loss_sd": loss.sd, "perplexity": math.exp(loss.mean)}
    return values | dict(zip(names, map(float, ends), strict=True))


def _difference(losses: pd.DataFrame, label: str, reference: str, level: float) -> dict[str, Any]:
    names = ("difference", "difference_low", "difference_high")
    if label == reference or reference not in losses.index:
        return {**dict.fromkeys(names, math.nan), "pairs": 0}
    both = shared_losses(losses, label, reference)
    d = paired_difference(both[0], both[1], level)
    return {**dict(zip(names, (d.mean, d.low, d.high), strict=True)), "pairs": d.n}


def _standing(set_apart_as_leaking: bool, complete: bool) -> str:
    if set_apart_as_leaking:
        return LEAKING
    return RANKED if complete else APART
