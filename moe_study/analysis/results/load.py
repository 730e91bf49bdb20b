"""results/NAME/load.parquet, .md and .png: how evenly the experts of a sweep's runs share the tokens.

From the counts that every run keeps of its validation set (RUN/routing.parquet): nothing has to be measured for it.
Figure 1 of 2402.13089 asks this of the balancing loss: do experts collapse without it?
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from moe_study.analysis.plots.all import styles_of
from moe_study.analysis.plots.load import effective_by_layer
from moe_study.analysis.results.intervals import interval_text
from moe_study.analysis.results.measure import FinishedRun, Kept, Measure, draw_parts, finished_runs, rows_of_part
from moe_study.analysis.specialisation.lazy import contributions, notes_on
from moe_study.analysis.specialisation.load import load_of
from moe_study.analysis.study import Part, Study
from moe_study.analysis.tables_out import Cells, markdown
from moe_study.design.routing import Selection

COLUMNS = ("key", "label", "seed", "layer", "expert", "share")
RUN_AND_LAYER = ["label", "seed", "layer"]
TINY = 1e-6  # a share that is rounding
HEAD = """\
# Load of the experts

How evenly experts share the validation set: the pairs of tokens and experts that were kept, or the weights of the
outputs where every token has every expert. *Effective*: the number of experts that would have this entropy if they
shared evenly (all of them where the load is even, 1 where one expert takes all); *busiest* and *least*: an expert's
share over an even one; *unused*: experts without a token; *dropped*: the part of the pairs for which a capacity had no
room, over all layers. Means over seeds with 95% intervals, described and not tested."""


def load_rows(study: Study) -> pd.DataFrame:
    """COLUMNS: a row for each finished run with a router, mixture layer and expert."""
    parts = [rows for run in finished_runs(study.parts) if len(rows := _rows_of_run(run))]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=list(COLUMNS))


def _rows_of_run(run: FinishedRun) -> pd.DataFrame:
    counts = run.folder.read_activations()
    if counts is None or not len(counts):
        return pd.DataFrame()
    found = contributions(counts, list(counts["layer"].unique()), run.folder.read_config().routing)
    shares = found[["layer", "expert", "share"]].astype({"share": np.float32})  # four digits are said of them
    return pd.DataFrame([run.place] * len(shares)).join(shares)[list(COLUMNS)]


def evenness(rows: pd.DataFrame) -> pd.DataFrame:
    """RUN_AND_LAYER, experts, effective, busiest, least and unused of each run and layer that has a load."""
    found = []
    for place, own in rows.groupby(RUN_AND_LAYER, sort=False):
        one = load_of(own["share"].to_numpy(dtype=float))
        if not np.isnan(one.effective_experts):
            lowest, highest = len(own) * one.share_E.min(), len(own) * one.share_E.max()
            found.append((*place, len(own), one.effective_experts, highest, lowest, one.unused))
    return pd.DataFrame(found, columns=[*RUN_AND_LAYER, "experts", "effective", "busiest", "least", "unused"])


def load_text(kept: Kept) -> str:
    """A table for each evaluation set: points, the lowest loss first, and their layers."""
    blocks = [HEAD, *notes_on(pd.concat([part.runs for part in kept.study.parts]))]
    for part in kept.study.parts:
        even = evenness(rows_of_part(kept.rows, part))
        if len(even):
            blocks += [f"## {part.name}"] if part.name else []
            blocks.append(markdown(_cells(even, part)).rstrip())
    return "\n\n".join(blocks) + "\n"


def _cells(even: pd.DataFrame, part: Part) -> Cells:
    dropped = _dropped(part)
    header = ["point", "layer", "seeds", "experts", "effective", "busiest", "least", "unused"]
    rows = []
    for label in dict.fromkeys(part.table["label"]):
        for layer, own in even[even["label"] == label].groupby("layer"):
            numbers = [interval_text(own[name], "") for name in ("effective", "busiest", "least")]
            unused = f"{own['unused'].mean():.1f}" if own["unused"].any() else "0"
            lost = dropped.get(label, 0.0)
            tail = [f"{100 * lost:.1f}%" if lost else "0"] if any(dropped.values()) else []
            experts = str(own["experts"].iloc[0])
            rows.append([part.marked(label), str(layer), str(len(own)), experts, *numbers, unused, *tail])
    return Cells([*header, *(["dropped"] if any(dropped.values()) else [])], rows, text_columns=(0,))


def _dropped(part: Part) -> dict[str, float]:
    """By label: the mean share of the wanted pairs that were not kept."""
    rates = part.runs.groupby("label")[["wanted_per_token", "kept_per_token"]].mean()
    share = 1 - rates["kept_per_token"] / rates["wanted_per_token"].where(rates["wanted_per_token"] > 0)
    return {str(label): max(0.0, float(value)) for label, value in share.dropna().items() if value > TINY}


def sentences(kept: Kept) -> Iterator[str]:
    """How even both sides of each planned comparison are."""
    for part in kept.study.parts:
        even, where = evenness(rows_of_part(kept.rows, part)), f" on {part.name}" if part.name else ""
        for comparison in part.comparisons:
            sides = [_in_words(even, label, part) for label in (comparison.point, comparison.against)]
            if all(sides):
                yield f"Effective experts{where}, mean over layers: {'; '.join(sides)}"


def _in_words(even: pd.DataFrame, label: str, part: Part) -> str:
    """`token top-1 3.980 [3.972, 3.988] of 4, the busiest at 1.12 times an even share`; empty without a load."""
    own = even[even["label"] == label]
    if not len(own):
        return ""
    by_seed = own.groupby("seed")[["experts", "effective", "busiest"]].mean()
    of, busiest = by_seed["experts"].mean(), by_seed["busiest"].mean()
    effective = interval_text(by_seed["effective"].to_numpy(), "")
    return f"{part.marked(label)} {effective} of {of:g}, the busiest at {busiest:.2f} times an even share"


def draw(kept: Kept, path: Path) -> Iterator[Path]:
    """A PNG for each evaluation set."""
    return draw_parts(
        kept, path, lambda part: effective_by_layer(evenness(rows_of_part(kept.rows, part)), styles_of(part))
    )


MEASURE = Measure(
    "load",
    "load of the experts",
    "moe-study results --sweep {sweep}",
    lambda study: {"": load_rows(study)},
    load_text,
    {"": sentences},
    draw,
    can=lambda row: row["routing.selection"] != Selection.DENSE,
)
