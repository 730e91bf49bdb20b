"""Which experts are picked together: expert by expert, as lift, over all pairs.

`pairs` is the finding `co_activation` (specialisation/run_tables.py) of runs on one probe, with label and seed.
"""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.cluster import hierarchy
from scipy.spatial import distance

from moe_study.analysis.plots.grid import layers_shown, one_run, seeds_note
from moe_study.analysis.plots.heat import LIFT, MOST_ROWS, NUMBERED, Heat, Matrix, heat_maps
from moe_study.analysis.plots.shares import most_used_note
from moe_study.analysis.plots.style import PointStyle


def co_activation_maps(pairs: pd.DataFrame, styles: dict[str, PointStyle], on: str) -> list[Figure]:
    """Lift of every two experts over the mean of all pairs, of points whose tokens have two experts or more."""
    long = one_run(pairs)
    together = long[(long["first"] != long["second"]) & (long["both"] > 0)]
    names = [name for name in styles if name in set(together["label"])]
    long = long[long["label"].isin(names)]
    matrices = {
        name: {layer: _pairs(rows[rows["layer"] == layer]) for layer in layers}
        for name, layers in layers_shown(long, names).items()
        for rows in [long[long["label"] == name]]
    }
    experts = int(long["first"].max()) + 1 if len(long) else 0
    heat = Heat(
        "Experts picked together",
        "tokens with both, over chance",
        LIFT,
        "",
        [
            on,
            seeds_note(long) if names else "",
            most_used_note(experts),
            "Tokens that picked both experts over what their loads make of it by chance, 1 being the mean of all pairs:"
            " orange pairs seek each other, purple ones stand in for each other",
            "Experts that keep like company stand side by side, which makes blocks even of noise"
            if experts > NUMBERED
            else "",
        ],
        x_label="expert",
        extend="both",
        empty="an expert with itself, or that no token picks",
    )
    return heat_maps(matrices, styles, heat)


def _pairs(rows: pd.DataFrame) -> Matrix:
    """One run and layer."""
    lift_EE = lift_over_mean(rows)
    tokens_E = rows.pivot(index="first", columns="second", values="both").to_numpy().diagonal()
    kept = np.sort(np.argsort(-tokens_E, kind="stable")[:MOST_ROWS])
    lift_EE = lift_EE[np.ix_(kept, kept)]
    order = _by_company(lift_EE) if len(kept) > NUMBERED else np.arange(len(kept))
    numbers = [str(expert) for expert in kept[order]]
    no = np.zeros(lift_EE.shape, dtype=bool)
    named = numbers if len(numbers) <= NUMBERED else [""] * len(numbers)
    return Matrix(lift_EE[np.ix_(order, order)], within_RC=no, starred_RC=no, rows=numbers, columns=named)


def lift_over_mean(rows: pd.DataFrame) -> NDArray[np.float64]:
    """[E, E]: tokens with both experts over chance, divided by the same of all pairs together; NaN on the diagonal.

    Chance of a pair is N(i) N(j) / N. As a token cannot pick an expert twice, pairs come to less than that; by how much
    is the same for all of them where loads are even, so that it is divided out.
    """
    both_EE = rows.pivot(index="first", columns="second", values="both").to_numpy(dtype=float)
    tokens_E = both_EE.diagonal()
    chance_EE = np.outer(tokens_E, tokens_E)
    pairs = ~np.eye(len(both_EE), dtype=bool)
    scale = chance_EE[pairs].sum() / max(1.0, both_EE[pairs].sum())
    lift_EE = np.divide(both_EE * scale, chance_EE, out=np.full(both_EE.shape, np.nan), where=chance_EE > 0)
    return np.where(pairs, lift_EE, np.nan)


def _by_company(lift_EE: NDArray[np.float64]) -> NDArray[np.intp]:
    """Experts with like rows side by side (average linkage of the logarithms, which are clipped as the colours are)."""
    bounded_EE = np.log(np.clip(np.nan_to_num(lift_EE, nan=1.0), LIFT.vmin, LIFT.vmax))
    return hierarchy.leaves_list(hierarchy.average(distance.pdist(bounded_EE)))
