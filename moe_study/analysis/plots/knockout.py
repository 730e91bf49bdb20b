"""What breaks when an expert is taken away: expert by domain, as change of the loss.

`changes` is the finding `knockout` (posthoc/knockout says its columns) of runs on one probe, with label of the point in
`label` and the label of the domains in `of`.
"""

import numpy as np
import pandas as pd
from matplotlib.colors import AsinhNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator

from moe_study.analysis.plots.grid import layers_shown, one_run, seeds_note
from moe_study.analysis.plots.heat import MOST_ROWS, Heat, Matrix, heat_maps
from moe_study.analysis.plots.shares import by_favourite, most_used_note
from moe_study.analysis.plots.style import PointStyle

KIND = "remove"
LINEAR = 0.02  # of the largest change: smaller ones are drawn to a linear scale, larger ones to a logarithmic one
ALL_LAYERS = -1


def knockout_maps(changes: pd.DataFrame, styles: dict[str, PointStyle], of: str, on: str) -> list[Figure]:
    """Change of each domain's loss when one expert is removed; `of` is the label whose values are the domains."""
    chosen = (changes["kind"] == KIND) & (changes["of"] == of) & (changes["layer"] != ALL_LAYERS)
    long = one_run(changes[chosen])
    names = [name for name in styles if name in set(long["label"])]
    if not names or not (largest := _round_up(float(long["change"].abs().max()))):
        return []
    domains = sorted(long["domain"].unique())  # of all points, since one row of panels names them for all
    matrices = {
        name: {layer: _changes(rows[rows["layer"] == layer], domains) for layer in layers}
        for name, layers in layers_shown(long, names).items()
        for rows in [long[long["label"] == name]]
    }
    heat = Heat(
        f"Loss by {of} when an expert is removed",
        "change of the loss, nats per token",
        AsinhNorm(LINEAR * largest, vmin=-largest, vmax=largest),
        "within what removing random experts of equal load does (95% of draws, which are few: only stars are tested)",
        "no cell is within what removing random experts of equal load does",
        [
            on,
            seeds_note(long),
            most_used_note(int(long["expert"].max()) + 1),
            "Orange: the loss rises without the expert",
            f"Experts stand in the order of the {of} that they matter most for, which makes a diagonal even of noise",
        ],
        star="needed: this domain loses more than without random experts, and more than others do (p adjusted)",
        no_star="no cell has a star: no expert is shown to be needed by one of them more than by the others",
        ticks=FixedLocator([0.0, *(sign * largest * part for sign in (-1, 1) for part in (1, 0.3, 0.1, 0.03, 0.01))]),
        form=_signed,
    )
    return heat_maps(matrices, styles, heat)


def _changes(rows: pd.DataFrame, domains: list[str]) -> Matrix:
    """One run and layer."""
    kept = _most_used(rows)
    columns = ("change", "null_low", "null_high", "needed")
    wide = {
        column: kept.pivot(index="expert", columns="domain", values=column).reindex(columns=domains)
        for column in columns
    }
    order = by_favourite(wide["change"].to_numpy())
    change, low, high, needed = (wide[column].to_numpy()[order] for column in columns)
    return Matrix(
        value_RC=change.astype(float),
        within_RC=(low <= change) & (change <= high),
        starred_RC=needed == True,  # noqa: E712  (a cell can be missing)
        rows=[str(expert) for expert in wide["change"].index.to_numpy()[order]],
        columns=domains,
    )


def _most_used(rows: pd.DataFrame) -> pd.DataFrame:
    if rows["expert"].nunique() <= MOST_ROWS:
        return rows
    used = rows.groupby("expert")["share_overall"].first()
    return rows[rows["expert"].isin(used.nlargest(MOST_ROWS).index)]


def _round_up(change: float) -> float:
    """The next number with one digit; 0 for nothing, and for not a number."""
    if not change > 0:
        return 0.0
    unit = 10.0 ** np.floor(np.log10(change))
    return float(np.ceil(change / unit - 1e-9) * unit)


def _signed(change: float) -> str:
    return f"{change:+.2g}".replace("-", "−") if change else "0"
