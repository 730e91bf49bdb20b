"""Where the tokens of each domain of a probe go: bars with the null's band (study paper, Figs 2, 4, 5), and lift.

`shares` is a finding (specialisation/run_tables.py) of runs on one probe, with label (of a point), key and seed of the
run; a label of texts such as language or topic is in `of`.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from moe_study.analysis.plots.grid import (
    Size,
    caption,
    depth,
    grid,
    layers_shown,
    leak_note,
    name_domains,
    one_run,
    pages,
    seeds_note,
)
from moe_study.analysis.plots.heat import LIFT, MOST_ROWS, Heat, Matrix, heat_maps
from moe_study.analysis.plots.style import (
    BAND,
    BAND_COLOUR,
    BAND_OF_TOKENS,
    EXPERTS,
    INK,
    PointStyle,
    house_style,
    title,
)
from moe_study.analysis.probes import GATE

MOST_BARS = 64  # in a panel; beyond, the heat map alone shows the shares
BY_CHANCE = "one in twenty leaves its band by chance"


def share_bars(
    shares: pd.DataFrame, styles: dict[str, PointStyle], of: str, on: str, of_tokens: bool = False
) -> list[Figure]:
    """Share of each domain's tokens that each expert takes, with the null's band on every bar.

    `of` is the label whose values are the domains (`of_tokens`: one of tokens, whose null leaves token ids in place),
    `on` says on which probe. A row for each point, that of its lowest
    seed; points with more bars than a panel can hold have none.
    """
    long = one_run(shares[shares["of"] == of])
    domains = sorted(long["domain"].unique())
    experts = long.groupby("label")["expert"].max() + 1
    fitting = experts.index[(experts <= len(EXPERTS)) & (experts * len(domains) <= MOST_BARS)]
    names = [name for name in styles if name in fitting]
    layers = layers_shown(long, names)
    bars = int(experts[names].max()) * len(domains) if names else 0
    size = Size(width=float(np.clip(0.06 * bars, 1.6, 3.0)), height=1.1)
    found = []
    for page in pages(names, size):
        columns = {name: [f"layer {layer}" for layer in layers[name]] for name in page}
        with house_style():
            figure, axes = grid(columns, styles, size, share_y=True, below=depth(domains, size.width))
            for name in page:
                of_point = long[long["label"] == name]
                for panel, layer in zip(axes[name], layers[name], strict=True):
                    _bars(panel, of_point[of_point["layer"] == layer], domains)
                    name_domains(panel, domains, size.width)
            drawn = long[long["label"].isin(page)][["share", "null_high"]]
            axes[page[0]][0].set_ylim(0, 1.05 * float(np.nanmax(drawn.to_numpy())))
            _legend(figure, int(experts[page].max()))
            title(
                figure,
                f"Share of each {of}'s tokens by expert",
                caption(
                    on,
                    seeds_note(long[long["label"].isin(page)]),
                    f"Grey: {_band(of_tokens)}",
                    f"Where bars end outside their bands, experts follow the {of}; {BY_CHANCE}",
                    gate_note(long[long["label"].isin(page)]),
                    leak_note(page, styles),
                ),
            )
        found.append(figure)
    return found


def _bars(axes: Axes, rows: pd.DataFrame, domains: Sequence[str]) -> None:
    by_cell = rows.set_index(["domain", "expert"])
    experts = int(rows["expert"].max()) + 1
    width, places = 0.84 / experts, np.arange(len(domains))
    for expert in range(experts):
        own = by_cell.reindex([(domain, expert) for domain in domains])
        x = places + (expert - (experts - 1) / 2) * width
        axes.bar(x, own["share"].to_numpy(), 0.8 * width, color=EXPERTS[expert], lw=0)
        low, high = own["null_low"].to_numpy(), own["null_high"].to_numpy()
        axes.bar(x, high - low, width, bottom=low, color=BAND_COLOUR, lw=0, zorder=0.5)
        axes.hlines([*low, *high], [*x - width / 2] * 2, [*x + width / 2] * 2, color=INK, lw=0.6, zorder=3)
    axes.set_xlim(-0.5, len(domains) - 0.5)
    axes.yaxis.set_major_locator(MaxNLocator(3, steps=[1, 2, 5, 10]))


def _legend(figure: Figure, experts: int) -> None:
    handles = [Patch(color=EXPERTS[expert], label=f"{expert}") for expert in range(experts)]
    handles.append(Patch(color=BAND_COLOUR, lw=0, label="null"))
    look = {"fontsize": 8, "title_fontsize": 8, "handlelength": 0.9, "handleheight": 0.9}
    figure.legend(handles=handles, title="expert", loc="outside right upper", **look)


def lift_maps(
    shares: pd.DataFrame, styles: dict[str, PointStyle], of: str, on: str, of_tokens: bool = False
) -> list[Figure]:
    """Expert by domain as lift: the domain's share of the expert over the expert's share of all tokens."""
    long = one_run(shares[shares["of"] == of])
    names = [name for name in styles if name in set(long["label"])]
    domains = sorted(long["domain"].unique())  # of all points, since one row of panels names them for all
    matrices = {
        name: {layer: _lifts(rows[rows["layer"] == layer], domains) for layer in layers}
        for name, layers in layers_shown(long, names).items()
        for rows in [long[long["label"] == name]]
    }
    experts = int(long["expert"].max()) + 1 if len(long) else 0
    heat = Heat(
        f"Lift of experts by {of}",
        "share in the domain over share in all",
        LIFT,
        f"within {_band(of_tokens)}",
        "no cell is within the null's band",
        [
            on,
            seeds_note(long) if len(long) else "",
            gate_note(long),
            most_used_note(experts),
            f"Experts stand in the order of the {of} that they favour, which makes a diagonal even of noise: only"
            f" cells outside the band say that an expert prefers a domain or avoids it, and {BY_CHANCE}",
        ],
        extend="both",
    )
    return heat_maps(matrices, styles, heat)


def gate_note(shares: pd.DataFrame) -> str:
    """Which points' experts are weighted by the gate."""
    labels = shares[shares["weighted_by"] == GATE]["label"].unique()
    return f"by gate weight, as every token has every expert: {', '.join(labels)}" if len(labels) else ""


def _band(of_tokens: bool) -> str:
    return BAND_OF_TOKENS if of_tokens else BAND


def _lifts(rows: pd.DataFrame, domains: list[str]) -> Matrix:
    """One run and layer; experts that no token goes to have no lift."""
    kept = most_used(rows)
    wide = {
        column: kept.pivot(index="expert", columns="domain", values=column).reindex(columns=domains)
        for column in ("lift", "share", "null_low", "null_high")
    }
    order = by_favourite(wide["lift"].to_numpy())
    share, low, high = (wide[column].to_numpy()[order] for column in ("share", "null_low", "null_high"))
    lift = wide["lift"]
    return Matrix(
        value_RC=lift.to_numpy()[order],
        within_RC=(low <= share) & (share <= high),
        starred_RC=np.zeros(share.shape, dtype=bool),
        rows=[str(expert) for expert in lift.index.to_numpy()[order]],
        columns=domains,
    )


def most_used(rows: pd.DataFrame, most: int = MOST_ROWS) -> pd.DataFrame:
    """The rows of the experts that most tokens go to, as many as a panel can hold."""
    if rows["expert"].nunique() <= most:
        return rows
    overall = rows.groupby("expert")["overall"].first()
    return rows[rows["expert"].isin(overall.nlargest(most).index)]


def most_used_note(experts: int, most: int = MOST_ROWS) -> str:
    """Which experts are shown, where not all are."""
    return f"The {most} of {experts} experts that most tokens go to" if experts > most else ""


def by_favourite(value_RC: np.ndarray) -> np.ndarray:
    """Rows in the order of the column of their largest value, and within it from the largest down."""
    filled_RC = np.where(np.isnan(value_RC), -np.inf, value_RC)
    return np.lexsort((-filled_RC.max(axis=1), filled_RC.argmax(axis=1)))
