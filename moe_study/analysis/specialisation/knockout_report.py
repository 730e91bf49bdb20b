"""Knock-outs in files: every number of every run, the numbers over seeds, and the sentences."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd

from moe_study.analysis.specialisation.knockout_points import KnockedPoint
from moe_study.analysis.tables_out import csv_text
from moe_study.files import write_text_atomic


def write_knockout_report(points: Sequence[KnockedPoint], lines: Sequence[str], out: Path) -> list[Path]:
    """knockout_runs.csv, knockout.csv (over seeds) and knockout.md (`lines`); what was written."""
    texts = {
        "knockout_runs.csv": csv_text(runs_frame(points)),
        "knockout.csv": csv_text(layers_frame(points)),
        "knockout.md": "\n".join(_as_item(line) for line in lines) + "\n",
    }
    for name, text in texts.items():
        write_text_atomic(out / name, text)
    return [out / name for name in texts]


def runs_frame(points: Sequence[KnockedPoint]) -> pd.DataFrame:
    """The rows of the finding `knockout` of every run, with point, leaks and seed in front."""
    rows = [
        {"point": point.label, "leaks": point.leaks, "seed": run.seed, **asdict(row)}
        for point in points
        for run in point.runs
        for row in run.changes
    ]
    return pd.DataFrame(rows)


def layers_frame(points: Sequence[KnockedPoint]) -> pd.DataFrame:
    """One row for each point, layer and label.

    Columns: point, leaks, seeds (count), layer, label; value and excess (concentration of the damage, nats per token)
    with _low and _high, null_mean, pairs (needed, mean over seeds); p_seeds, p_documents, p_adjusted, shown (None where
    nothing was tested).
    """
    columns = [
        "point", "leaks", "seeds", "layer", "label", "value", "value_low", "value_high", "null_mean", "excess",
        "excess_low", "excess_high", "pairs", "p_seeds", "p_documents", "p_adjusted", "shown",
    ]  # fmt: skip
    rows = [
        (
            point.label, point.leaks, len(point.runs), row.layer, row.label, row.value.mean, row.value.low,
            row.value.high, row.null_mean, row.excess.mean, row.excess.low, row.excess.high, row.pairs.mean,
            row.p_seeds, row.p_documents, row.p_adjusted, None if np.isnan(row.p_adjusted) else row.shown,
        )
        for point in points
        for row in point.layers
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


def _as_item(line: str) -> str:
    """Lines that are set in as items of a list, as deep."""
    text = line.strip()
    depth = (len(line) - len(line.lstrip())) // 2
    return f"{'  ' * (depth - 1)}- {text}" if depth else f"\n{text}\n"
