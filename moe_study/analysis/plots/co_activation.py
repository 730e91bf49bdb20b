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

FEWEST = 10  # tokens of a pair by chance, for its lift to say something


def co_activation_maps(pairs: pd.DataFrame, styles: dict[str, PointStyle], on: str) -> list[Figure]:
    """Lift of every two experts over the mean of all pairs, of points whose tokens have two experts or more,
    but not all."""
    long = one_run(pairs)
    pairs_of = long[long["first"] != long["second"]].groupby("label")["both"].max()
    always = long.groupby("label")["both"].agg(lambda both: both.min() == both.max())  # every token has every expert
    names = [name for name in styles if pairs_of.get(name, 0) > 0 and not always[name]]
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
        f"too few tokens to tell: chance gives the pair fewer than {FEWEST}",
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
    both_EE = rows.pivot(index="first", columns="second", values="both").to_numpy(dtype=float)
    kept = np.sort(np.argsort(-both_EE.diagonal(), kind="stable")[:MOST_ROWS])
    chance_EE = chance_of_pairs(both_EE)[np.ix_(kept, kept)]
    both_EE = both_EE[np.ix_(kept, kept)]
    lift_EE = np.divide(both_EE, chance_EE, out=np.full(both_EE.shape, np.nan), where=chance_EE > 0)
    order = _by_company(lift_EE) if len(kept) > NUMBERED else np.arange(len(kept))
    numbers = [str(expert) for expert in kept[order]]
    turned = np.ix_(order, order)
    named = numbers if len(numbers) <= NUMBERED else [""] * len(numbers)
    no_star = np.zeros(lift_EE.shape, dtype=bool)
    return Matrix(lift_EE[turned], (chance_EE < FEWEST)[turned], no_star, rows=numbers, columns=named)


def chance_of_pairs(both_EE: NDArray[np.float64]) -> NDArray[np.float64]:
    """[E, E]: tokens that would pick both experts by chance; NaN on the diagonal, where `both_EE` has those of each.

    Proportional to the product of the two loads, and scaled so that all pairs together have the tokens that they have:
    as a token cannot pick an expert twice, pairs come to less than N(i) N(j) / N.
    """
    tokens_E = both_EE.diagonal()
    chance_EE = np.outer(tokens_E, tokens_E)
    pairs = ~np.eye(len(both_EE), dtype=bool)
    chance_EE *= both_EE[pairs].sum() / max(1.0, chance_EE[pairs].sum())
    return np.where(pairs, chance_EE, np.nan)


def _by_company(lift_EE: NDArray[np.float64]) -> NDArray[np.intp]:
    """Experts with like rows side by side (average linkage of the logarithms, which are clipped as the colours are)."""
    bounded_EE = np.log(np.clip(np.nan_to_num(lift_EE, nan=1.0), LIFT.vmin, LIFT.vmax))
    return hierarchy.leaves_list(hierarchy.average(distance.pdist(bounded_EE)))
