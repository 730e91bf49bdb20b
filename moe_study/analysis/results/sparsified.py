"""results/NAME/sparsify.parquet and .md: what trained networks lose with parts of them off, at equal executed FLOPs."""

from collections.abc import Iterator
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from moe_study.analysis.results.intervals import interval_text
from moe_study.analysis.results.measure import Kept, Measure, finished_runs
from moe_study.analysis.study import Study
from moe_study.analysis.tables_out import Cells, markdown
from moe_study.design.routing import Selection
from moe_study.files import read_json

TRAINED = "trained"
AT = 5  # costs at which curves are read, evenly over what all of them reach
COLUMNS = ("key", "label", "seed", "part", "split", "threshold", "experts_per_token", "flops_per_token", "loss")


def sparsify_rows(study: Study) -> pd.DataFrame:
    """The points of every finished run's RUN/sparsify.json, one row each; none where no run was sparsified.

    A network that was split after training is named by the number of its parts, so that runs which were split otherwise
    are never averaged.
    """
    rows: list[dict[str, Any]] = []
    for run in finished_runs(study.parts):
        curve = read_json(run.folder.sparsify_file)
        if isinstance(curve, dict):
            rows += [{**point, **run.place_in_part, "split": _split(curve, point)} for point in curve["points"]]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _split(curve: dict[str, Any], point: dict[str, Any]) -> str:
    """TRAINED, or into what the network was split."""
    if point["split"] == TRAINED:
        return TRAINED
    return f"{curve['num_experts'][0]} {'clusters' if point['split'] == 'clusters' else 'parts at random'}"


def sparsified_text(kept: Kept) -> str:
    """Losses at equal executed FLOPs, for every way to have parts off, and their differences."""
    losses, flops = at_equal_flops(kept.rows)
    blocks = [
        "# With parts off, at equal executed FLOPs",
        "Forward FLOPs per token, router included, read off the line between a run's thresholds; means over seeds with "
        "95% intervals, described and not tested. Differences are paired by seed.",
    ]
    if not losses:
        return "\n\n".join([*blocks, "The curves have no cost in common."]) + "\n"
    header = ["FLOPs per token", *losses]
    pairs = list(combinations(losses, 2))
    header += [f"{left} − {right}" for left, right in pairs]
    shown = []
    for place, cost in enumerate(flops):
        cells = [interval_text(own.iloc[place].dropna().to_numpy(), "") for own in losses.values()]
        cells += [interval_text((losses[a].iloc[place] - losses[b].iloc[place]).dropna().to_numpy()) for a, b in pairs]
        shown.append([f"{cost:,.0f}", *cells])
    blocks += [markdown(Cells(header, shown, text_columns=())).rstrip()]
    return "\n\n".join(blocks) + "\n"


def at_equal_flops(rows: pd.DataFrame) -> tuple[dict[str, pd.DataFrame], NDArray[np.float64]]:
    """(losses by name of a curve, costs down and seeds across; the costs): AT costs within the reach of all curves."""
    known = rows.dropna(subset=["loss"])
    curves = {key: own.sort_values("flops_per_token") for key, own in known.groupby(["part", "label", "split", "seed"])}
    if not curves:
        return {}, np.empty(0)
    low = max(float(own["flops_per_token"].iloc[0]) for own in curves.values())
    high = min(float(own["flops_per_token"].iloc[-1]) for own in curves.values())
    if low >= high:
        return {}, np.empty(0)
    flops = np.linspace(low, high, AT)
    found: dict[str, dict[int, NDArray[np.float64]]] = {}
    for (part, label, split, seed), own in curves.items():
        name = label if split == TRAINED else f"{label}, split into {split} after training"
        name = f"{name}, {part}" if part else name
        found.setdefault(str(name), {})[int(str(seed))] = np.interp(flops, own["flops_per_token"], own["loss"])
    return {name: pd.DataFrame(by_seed) for name, by_seed in found.items()}, flops


def sentences(kept: Kept) -> Iterator[str]:
    """Every two ways to have parts off, at the least and at the most FLOPs that both reach."""
    losses, flops = at_equal_flops(kept.rows)
    for one, other in combinations(losses, 2):
        gap = losses[one] - losses[other]
        low, high = (interval_text(gap.iloc[place].dropna().to_numpy()) for place in (0, -1))
        yield (
            f"At equal executed FLOPs, {one} minus {other}: {low} nats per token at {flops[0]:,.0f} FLOPs per token, "
            f"{high} at {flops[-1]:,.0f}"
        )


MEASURE = Measure(
    "sparsify",
    "with parts off, at equal executed FLOPs",
    "moe-study results --sweep {sweep} --sparsify",
    lambda study: {"": sparsify_rows(study)},
    sparsified_text,
    {"": sentences},
    can=lambda row: row["routing.selection"] in (Selection.DENSE, Selection.ALL),
)
