"""Norms of gradients by part of the model: how training leaves them in a run's curve (log.gradients_every), and rows.

    {"kind": "gradients", "step": 50, "embeddings": 0.31, "norms": 0.05}
    {"kind": "gradients", "step": 50, "layer": 0, "attention": 0.4, "router": 0.02, "experts": 0.5, "by_expert": [...]}

A record holds the 2-norms of the gradient of one step's whole batch, summed over micro-batches and ranks, before any
clipping: what balancing terms add is in it. A part without a trained parameter (a frozen router, a dense block's
experts) is not in it; one whose gradient vanishes has 0. The squares of all parts add up to the square of the norm that
is clipped. An output head that is tied to the token embedding is a part of "embeddings".
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from moe_study.runs.folder import RunFolder

if TYPE_CHECKING:
    import pandas as pd  # takes a quarter of a second, which training has no use for

KIND = "gradients"
OF_LAYER = ("attention", "router", "experts", "shared", "mlp")  # `shared`: experts that every token takes
OF_MODEL = ("embeddings", "norms", "head", "other")  # `norms`: layer norms, those of the blocks included
PARTS = ("embeddings", *OF_LAYER, "norms", "head", "other")
EXPERTS, BY_EXPERT = "experts", "by_expert"  # the latter: the norm of each expert's gradient; 0 where it had no token
COLUMNS = ("step", "layer", "part", "norm", "experts", "active", "mean_active")


def read_gradients(folder: RunFolder) -> "pd.DataFrame":
    """What training recorded, as `rows_of` says; no row where it recorded nothing. StudyError for a damaged curve."""
    wide = folder.metrics_table((KIND,), ("step", "layer", *PARTS, BY_EXPERT))
    return rows_of(wide.to_dict("records"))


def rows_of(records: Iterable[Mapping[Any, Any]]) -> "pd.DataFrame":
    """COLUMNS, one row for each step, layer (-1: the whole model) and part; none of a norm that was not finite.

    Of experts also their number, how many had a gradient (`active`), and the mean norm of these (`mean_active`); nan
    for other parts.
    """
    import pandas as pd

    return pd.DataFrame([row for record in records for row in _rows(record)], columns=list(COLUMNS))


def _rows(record: Mapping[Any, Any]) -> Iterator[tuple[Any, ...]]:
    layer = _number(record.get("layer"))
    place = int(record["step"]), -1 if layer is None else int(layer)
    for part in PARTS:
        if (norm := _number(record.get(part))) is not None:
            norms_E = record.get(BY_EXPERT) if part == EXPERTS else None
            yield (*place, part, norm, *_of_experts(() if norms_E is None else norms_E))


def _number(value: Any) -> float | None:
    return None if value is None or math.isnan(value) else float(value)


def _of_experts(norms_E: Sequence[float | None]) -> tuple[float, float, float]:
    """(number, how many had a gradient, their mean norm)."""
    active = [norm for norm in norms_E if norm is not None and norm > 0]
    if not len(norms_E):
        return math.nan, math.nan, math.nan
    return float(len(norms_E)), float(len(active)), sum(active) / len(active) if active else math.nan
