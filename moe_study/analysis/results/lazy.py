"""results/NAME/lazy.parquet and lazy.md: how many experts are lazy, and the loss without them."""

from collections.abc import Iterator
from typing import Any

import pandas as pd

from moe_study.analysis.results.measure import Kept, Measure, finished_runs, rows_of_part
from moe_study.analysis.specialisation.finding_columns import FINDING_COLUMNS
from moe_study.analysis.specialisation.lazy import (
    DROP_COLUMNS,
    EXPERT_COLUMNS,
    lazy_cells,
    lazy_sentences,
    limits,
    notes_on,
)
from moe_study.analysis.study import Part, Study
from moe_study.analysis.tables_out import markdown
from moe_study.design.routing import Selection
from moe_study.runs.findings import all_findings

EXPERTS, DROPS = "lazy_experts", "lazy_drops"  # findings, which stand one under the other: `table` says which
RUN = ("key", "label", "seed", "table")
HEAD = """\
# Lazy experts, and the loss without them

What an expert contributes is its share of its layer's output weight over an even share (1: all contribute alike): of
the weights with which tokens take its output where every token has every expert, else of the pairs of tokens and
experts. Lazy is below {limits} of an even share. Losses are those of validation text with experts gone from all layers
at once, less that of the whole model, nats per token; *least* and *most*: contribution of the least and the most used
expert, mean over layers, which is 1 by construction where tokens take outputs by the weights of dispatch, or experts
choose equally many tokens: there the first experts stand for the least. Slots *alike*: mean cosine of two slots'
parameters of one expert; *apart*: of two experts'. Means over seeds with 95% intervals, described and not tested."""


def lazy_rows(study: Study) -> pd.DataFrame:
    """What every finished run was found to have: RUN, and the columns of both findings; none where none was asked."""
    rows: list[dict[Any, Any]] = []
    for run in finished_runs(study.parts):
        for name in (EXPERTS, DROPS):
            found = all_findings(run.folder.findings_folder, name, FINDING_COLUMNS[name])
            tables = [finding.table for finding in found]
            place = {**run.place, "table": name}
            rows += [{**place, **row} for table in tables[-1:] for row in table.to_dict("records")]
    columns = dict.fromkeys((*RUN, *EXPERT_COLUMNS, *DROP_COLUMNS))
    return pd.DataFrame(rows, columns=list(columns))


def lazy_text(kept: Kept) -> str:
    """The table of each evaluation set."""
    blocks: list[str] = []
    notes = notes_on(pd.concat([part.runs for part in kept.study.parts]))
    for part, experts, drops in _parts(kept):
        blocks += [HEAD.format(limits=limits(drops)), *notes] if not blocks else []
        blocks += [f"## {part.name}"] if part.name else []
        blocks.append(markdown(lazy_cells(experts, drops, part.leaking)).rstrip())
    return "\n\n".join(blocks) + "\n"


def sentences(kept: Kept) -> Iterator[str]:
    """Which points have lazy experts."""
    for part, experts, drops in _parts(kept):
        where = f"{part.name}: " if part.name else ""
        for line in lazy_sentences(experts, drops, part.leaking):
            yield f"{where}{line}"


def _parts(kept: Kept) -> Iterator[tuple[Part, pd.DataFrame, pd.DataFrame]]:
    """(part, what experts contribute, losses without some) of every evaluation set of which there is any."""
    for part in kept.study.parts:
        if len(own := rows_of_part(kept.rows, part)):
            yield part, own[own["table"] == EXPERTS], own[own["table"] == DROPS]


MEASURE = Measure(
    "lazy",
    "lazy experts",
    "moe-study results --sweep {sweep} --lazy",
    lambda study: {"": lazy_rows(study)},
    lazy_text,
    {"": sentences},
    can=lambda row: row["routing.selection"] != Selection.DENSE,
)
