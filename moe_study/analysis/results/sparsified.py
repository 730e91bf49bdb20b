"""results/NAME/sparsify.parquet and .md: what trained networks lose with parts of them off, at equal executed FLOPs."""

import io
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from moe_study.analysis.frame import done
from moe_study.analysis.statistics import t_interval
from moe_study.analysis.study import Study
from moe_study.analysis.tables_out import Cells, markdown
from moe_study.files import read_json, write_bytes_atomic, write_text_atomic
from moe_study.runs.folder import RunFolder

AT = 5  # costs at which curves are read, evenly over what all of them reach
COLUMNS = ("key", "label", "seed", "split", "threshold", "experts_per_token", "flops_per_token", "loss")


def sparsify_rows(study: Study) -> pd.DataFrame:
    """The points of every finished run's RUN/sparsify.json, one row each; none where no run was sparsified."""
    rows: list[tuple[Any, ...]] = []
    for part in study.parts:
        for run in done(part.frame).to_dict("records"):
            curve = read_json(RunFolder(run["folder"]).sparsify_file)
            if isinstance(curve, dict):
                own = (run["key"], run["label"], int(run["seed"]))
                rows += [(*own, *(point[name] for name in COLUMNS[3:])) for point in curve["points"]]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def write_sparsified(folder: Path, rows: pd.DataFrame) -> list[Path]:
    """Both files; nothing where no run was sparsified."""
    if not len(rows):
        return []
    buffer = io.BytesIO()
    rows.to_parquet(buffer, index=False)
    paths = [folder / "sparsify.parquet", folder / "sparsify.md"]
    write_bytes_atomic(paths[0], buffer.getvalue())
    write_text_atomic(paths[1], sparsified_text(rows))
    return paths


def sparsified_text(rows: pd.DataFrame) -> str:
    """Losses at equal executed FLOPs, for every way to have parts off, and their differences."""
    losses, flops = at_equal_flops(rows)
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
        cells = [_interval(own.iloc[place].dropna().to_numpy(), "") for own in losses.values()]
        cells += [_interval((losses[a].iloc[place] - losses[b].iloc[place]).dropna().to_numpy()) for a, b in pairs]
        shown.append([f"{cost:,.0f}", *cells])
    blocks += [markdown(Cells(header, shown, text_columns=())).rstrip()]
    return "\n\n".join(blocks) + "\n"


def at_equal_flops(rows: pd.DataFrame) -> tuple[dict[str, pd.DataFrame], NDArray[np.float64]]:
    """(losses by name of a curve, costs down and seeds across; the costs): AT costs within the reach of all curves."""
    known = rows.dropna(subset=["loss"])
    curves = {key: own.sort_values("flops_per_token") for key, own in known.groupby(["label", "split", "seed"])}
    if not curves:
        return {}, np.empty(0)
    low = max(float(own["flops_per_token"].iloc[0]) for own in curves.values())
    high = min(float(own["flops_per_token"].iloc[-1]) for own in curves.values())
    if low >= high:
        return {}, np.empty(0)
    flops = np.linspace(low, high, AT)
    found: dict[str, dict[int, NDArray[np.float64]]] = {}
    for (label, split, seed), own in curves.items():
        name = label if split == "trained" else f"{label}, split into {split} after training"
        found.setdefault(str(name), {})[int(str(seed))] = np.interp(flops, own["flops_per_token"], own["loss"])
    return {name: pd.DataFrame(by_seed) for name, by_seed in found.items()}, flops


def _interval(values_S: NDArray[np.float64], sign: str = "+") -> str:
    if not len(values_S):
        return ""
    mean, _, low, high = (float(one) for one in t_interval(values_S))
    return f"{mean:{sign}.3f}" if np.isnan(low) else f"{mean:{sign}.3f} [{low:{sign}.3f}, {high:{sign}.3f}]"
