"""results/NAME/tokens-PROBE.parquet and .md: where the loss and the work of a sweep's runs lie, token by token."""

import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from moe_study.analysis.comparison import Comparison
from moe_study.analysis.frame import done
from moe_study.analysis.specialisation.by_token import HARDNESS, by_token
from moe_study.analysis.statistics import t_interval
from moe_study.analysis.study import Study
from moe_study.analysis.tables_out import Cells, markdown
from moe_study.files import write_bytes_atomic, write_text_atomic
from moe_study.runs.traces import Trace

MOST_VALUES = 12  # of a label in a table for people; the parquet has all
SPREAD = 1e-6  # experts per token that differ by less are one number


def token_rows(study: Study, trace_of: Callable[[Path], Trace | None]) -> pd.DataFrame:
    """Groups of tokens (specialisation/by_token.py) of every finished run that has a trace; key, label and seed first.

    `trace_of` gives the trace of a run's folder, or None.
    """
    parts = []
    for part in study.parts:
        for run in done(part.frame).to_dict("records"):
            if (trace := trace_of(Path(run["folder"]))) is not None:
                found = by_token(trace)
                parts.append(found.assign(part=part.name, key=run["key"], label=run["label"], seed=int(run["seed"])))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def write_tokens(folder: Path, probe: str, rows: pd.DataFrame, study: Study) -> list[Path]:
    """Both files; nothing where no run has a trace."""
    if not len(rows):
        return []
    buffer = io.BytesIO()
    rows.to_parquet(buffer, index=False)
    paths = [folder / f"tokens-{probe}.parquet", folder / f"tokens-{probe}.md"]
    write_bytes_atomic(paths[0], buffer.getvalue())
    write_text_atomic(paths[1], tokens_text(probe, rows, study))
    return paths


def tokens_text(probe: str, rows: pd.DataFrame, study: Study) -> str:
    """What the rows say: each planned comparison by group of tokens, and experts per token where they vary."""
    blocks = [
        f"# Token by token, on the probe {probe}",
        "Means over seeds with 95% intervals, described and not tested. Differences are of the loss of predicting the "
        "group's tokens, in nats per token, the first point minus the second.",
    ]
    for comparison in study.comparisons:
        cells = _difference(rows, comparison)
        if cells.rows:
            blocks += [f"## {comparison.point} − {comparison.against}", markdown(cells).rstrip()]
    blocks += _work(rows)
    if sentences := list(hardness(rows)):
        blocks += ["## Do harder tokens get more experts?", "\n".join(f"- {sentence}" for sentence in sentences)]
    return "\n\n".join(blocks) + "\n"


def _difference(rows: pd.DataFrame, comparison: Comparison) -> Cells:
    left, right = (_by_seed(rows, label, "loss") for label in (comparison.point, comparison.against))
    seeds = left.columns.intersection(right.columns)
    paired = (left[seeds] - right[seeds]).dropna() if len(seeds) > 1 else left.iloc[:0]
    shown = _shown(paired[paired.index.get_level_values("by") != HARDNESS], "+")
    return Cells(["by", "tokens", f"difference ({len(seeds)} seeds)"], shown, text_columns=(0, 1))


def _shown(wide: pd.DataFrame, sign: str) -> list[list[str]]:
    """(by, name, mean with its interval) of each group, but of labels with more values than a reader looks through."""
    by = wide.index.get_level_values("by").astype(str)
    names = wide.index.get_level_values("name").astype(str)
    few = by.value_counts() <= MOST_VALUES
    values_GS = wide.to_numpy(dtype=float)
    return [[b, name, _interval(own, sign)] for b, name, own in zip(by, names, values_GS, strict=True) if few[b]]


def _work(rows: pd.DataFrame) -> Iterator[str]:
    """Points whose tokens have different numbers of experts."""
    for label in dict.fromkeys(rows["label"]):
        work = _by_seed(rows, label, "experts").dropna()
        if not len(work) or np.ptp(work.to_numpy()) < SPREAD:
            continue
        header = ["by", "tokens", f"experts per token ({work.shape[1]} seeds)"]
        yield f"## Experts per token of {label}"
        yield markdown(Cells(header, _shown(work, ""), text_columns=(0, 1))).rstrip()


def hardness(rows: pd.DataFrame) -> Iterator[str]:
    """Whether harder tokens get more experts: a sentence for each point whose tokens have different numbers of them."""
    for label in dict.fromkeys(rows["label"]):
        work = _by_seed(rows, label, "experts").dropna()
        tenths = work[work.index.get_level_values("by") == HARDNESS].to_numpy(dtype=float)
        if len(tenths) > 1 and np.ptp(work.to_numpy()) >= SPREAD:
            yield (
                f"{label}: {_interval(tenths[-1] - tenths[0])} experts more where the next token is hardest to predict "
                f"than where it is easiest ({_interval(tenths[0], '')} there)"
            )


def _by_seed(rows: pd.DataFrame, label: str, value: str) -> pd.DataFrame:
    """Groups down, seeds across."""
    own = rows[rows["label"] == label]
    wide = own.pivot_table(index=["by", "place", "name"], columns="seed", values=value, sort=False, dropna=False)
    return wide[wide.notna().any(axis=1)]


def _interval(values_S: Sequence[float] | np.ndarray, sign: str = "+") -> str:
    mean, _, low, high = (float(one) for one in t_interval(np.asarray(values_S, dtype=float)))
    if np.isnan(low):
        return f"{mean:{sign}.3f}"
    return f"{mean:{sign}.3f} [{low:{sign}.3f}, {high:{sign}.3f}]"
