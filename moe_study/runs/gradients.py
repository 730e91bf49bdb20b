"""Norms of gradients by part of the model, as training leaves them in a run's curve (log.gradients_every).

    {"kind": "gradients", "step": 50, "embeddings": 0.31, "norms": 0.05}
    {"kind": "gradients", "step": 50, "layer": 0, "attention": 0.4, "router": 0.02, "experts": 0.5, "by_expert": [...]}

A record holds the 2-norms of the gradient of one step's whole batch, summed over micro-batches and ranks, before any
clipping: what balancing terms add is in it. A part without a trained parameter (a frozen router, a dense block's
experts) is not in it; one whose gradient vanishes has 0. The squares of all parts add up to the square of the norm that
is clipped. An output head that is tied to the token embedding is a part of "embeddings".
"""

from typing import TYPE_CHECKING

from moe_study.runs.folder import RunFolder

if TYPE_CHECKING:
    import pandas as pd  # takes a quarter of a second, which training has no use for

KIND = "gradients"
OF_LAYER = ("attention", "router", "experts", "shared", "mlp")  # `shared`: experts that every token takes
OF_MODEL = ("embeddings", "norms", "head", "other")  # `norms`: layer norms, those of the blocks included
PARTS = ("embeddings", *OF_LAYER, "norms", "head", "other")
BY_EXPERT = "by_expert"  # the norm of each expert's gradient; 0 where it had no token
COLUMNS = ("step", "layer", "part", "norm", "experts", "active", "mean_active")


def read_gradients(folder: RunFolder) -> "pd.DataFrame":
    """One row for each step, layer and part of the run's curve; no row where none was recorded.

    COLUMNS: `layer` is -1 for parts of the whole model. Of experts also their number, how many had a gradient
    (`active`), and the mean norm of these (`mean_active`); nan for other parts. StudyError for a damaged curve.
    """
    import numpy as np
    import pandas as pd

    wide = folder.metrics_table((KIND,), ("step", "layer", *PARTS, BY_EXPERT))
    rows = []
    for record in wide.to_dict("records"):
        layer = record["layer"]
        place = int(record["step"]), -1 if pd.isna(layer) else int(layer)
        for part in PARTS:
            if not pd.isna(record[part]):
                norms_E = np.asarray(record[BY_EXPERT], float) if part == "experts" else np.empty(0)
                rows.append((*place, part, float(record[part]), *_of_experts(norms_E)))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _of_experts(norms_E: "object") -> tuple[float, float, float]:
    """(number, how many had a gradient, their mean norm)."""
    import numpy as np

    found_E = np.asarray(norms_E, float)
    if not len(found_E):
        return float("nan"), float("nan"), float("nan")
    active_E = found_E[found_E > 0]
    return float(len(found_E)), float(len(active_E)), float(active_E.mean()) if len(active_E) else float("nan")
