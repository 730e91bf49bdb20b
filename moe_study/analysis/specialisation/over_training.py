"""Experts over training, from the routes that runs kept of a slice of their validation set (runs/routes.py).

    runs = done(load_frame([Path("runs")], "first_look"))
    long = saturation_over_training(runs)          # a row for each run, layer and step
    over_seeds(long)                               # mean and t interval over the seeds of each point

Descriptions, not tests: two windows of that slice can lie in one document, so that no p value is given here. What a
finished run's experts follow is tested on a labelled probe (points.py).
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from moe_study.analysis.frame import Row, long_frame
from moe_study.analysis.specialisation import nulls
from moe_study.analysis.specialisation.agreement import best_expert, saturation
from moe_study.analysis.specialisation.layer_trace import LayerTrace
from moe_study.analysis.statistics import interval
from moe_study.errors import DataError
from moe_study.runs.folder import RunFolder
from moe_study.runs.routes import StepTrace, all_routes

PICKS, BEST = "picks", "best expert"  # what is compared; the latter where every token has every expert
SATURATION_COLUMNS = ("layer", "step", "tokens", "of", "overlap", "chance")
INFORMATION_COLUMNS = ("layer", "step", "tokens", "about", "value", "null_mean", "excess")
PERMUTATIONS = 200  # enough for the mean of a null


def saturation_over_training(frame: pd.DataFrame, problems: list[str] | None = None) -> pd.DataFrame:
    """How much of its final routes each run of `frame` (analysis.frame, finished runs) has at every step kept.

    Columns: label, point, key, seed, layer, step, tokens (trained on by then), of (PICKS, or BEST where every token has
    every expert and picks say nothing), overlap (agreement.saturation), chance (of the two steps' loads). At the last
    step overlap is 1. Runs that kept no routes have no rows. A run whose routes cannot be compared raises DataError,
    or, with `problems`, adds its sentence there.
    """

    def one(run: Row) -> pd.DataFrame:
        kept = _kept(run)
        rows = []
        for layer in kept[-1].layers if kept else ():
            final, of = _comparable(LayerTrace(**kept[-1].layer(layer)))
            for trace in kept:
                found = saturation(_comparable(LayerTrace(**trace.layer(layer)))[0], final)
                rows.append((layer, trace.step, trace.trained, of, found.overlap, found.chance))
        return pd.DataFrame(rows, columns=list(SATURATION_COLUMNS))

    return long_frame(frame, one, list(SATURATION_COLUMNS), problems)


def information_over_training(
    frame: pd.DataFrame,
    labels: Sequence[str] = ("language", "topic"),
    permutations: int = PERMUTATIONS,
    problems: list[str] | None = None,
) -> pd.DataFrame:
    """What the experts tell of the language and topic of a window at every step kept.

    Columns: label, point, key, seed, layer, step, tokens, about (the label of documents), value (mutual information
    over the label's entropy), null_mean (the labels exchanged over windows), excess. A label that all windows share is
    left out. Picks are weighted alike, by gate where every token has every expert. Errors as above.
    """

    def one(run: Row) -> pd.DataFrame:
        rows = []
        for trace in _kept(run):
            layers = [LayerTrace(**trace.layer(layer)) for layer in trace.layers]
            by = "gate" if all(_has_every_expert(layer) for layer in layers) else "picks"
            for about in labels:
                if len(np.unique(trace.document_labels[about][0])) < 2:
                    continue
                found = nulls.document_label(layers, about, by=by, permutations=permutations)
                for layer, measured in zip(trace.layers, found, strict=True):
                    numbers = (measured.value, measured.null_mean, measured.excess)
                    rows.append((layer, trace.step, trace.trained, about, *numbers))
        return pd.DataFrame(rows, columns=list(INFORMATION_COLUMNS))

    return long_frame(frame, one, list(INFORMATION_COLUMNS), problems)


def over_seeds(long: pd.DataFrame, value: str = "overlap", level: float = 0.95) -> pd.DataFrame:
    """`value` of either frame over the seeds of each point: numbers of whole layers, so that no experts are matched.

    Columns: label, point, layer, (of or about), step, tokens, seeds (count), mean, low, high (t interval; NaN for one
    seed). A step that only some seeds have kept is averaged over those.
    """
    split = [name for name in ("of", "about") if name in long]
    keys = ["label", "point", "layer", *split, "step", "tokens"]
    rows = []
    for names, group in long.groupby(keys, sort=False):
        found = interval(group[value].to_numpy(float), level)
        rows.append((*names, found.n, found.mean, found.low, found.high))
    return pd.DataFrame(rows, columns=[*keys, "seeds", "mean", "low", "high"])


def _kept(run: Row) -> list[StepTrace]:
    """The routes of a run by step; DataError unless the last ones are those of its end."""
    folder = RunFolder(run["folder"])
    kept = list(all_routes(folder.routes_folder))
    if kept and kept[-1].step != run["total_steps"]:
        raise DataError(
            f"{folder.path} kept no routes after its last step {run['total_steps']:g}, so there is nothing to compare"
            " those of earlier steps with: log.trace_every was left out when it was resumed"
        )
    return kept


def _has_every_expert(layer: LayerTrace) -> bool:
    return len(layer.expert_P) == len(layer.token_T) * layer.experts


def _comparable(layer: LayerTrace) -> tuple[LayerTrace, str]:
    """The layer, with each token's best expert alone where it has them all; and what its picks are now."""
    if not _has_every_expert(layer):
        return layer, PICKS
    tokens = len(layer.token_T)
    best: dict[str, Any] = {
        "start_T1": np.arange(tokens + 1),
        "expert_P": best_expert(layer),
        "weight_P": np.ones(tokens),
        "kept_P": np.ones(tokens, bool),
    }
    return replace(layer, **best), BEST
