"""What a run scored on downstream tasks: RUN/scores/TASK-FINGERPRINT/items.parquet, kept as findings are.

The table has a row for each answer: item (what stands for the question, the same for every run), metric, value, and
weight (how much the answer counts: words of a text; nan where all count alike). The facts:

    task, harness (version of lm-evaluation-harness), task_version, items (number), metrics ({name: {value, stderr,
    higher_is_better, is_mean}}, as the harness has worked them out), chance (of acc; null where a task has no choices),
    label (what a router by label was told of texts that do not say it; null where nothing), passes (how a routing that
    leaks was read: posthoc/lm_eval/passes.py; empty for one pass)
"""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from moe_study.runs.findings import Finding, all_findings, find_finding, write_finding
from moe_study.runs.folder import RunFolder
from moe_study.runs.traces import TraceIdentity

if TYPE_CHECKING:
    import pandas as pd

NAME = "items"
COLUMNS = ("item", "metric", "value", "weight")


def score_identity(folder: RunFolder, weights: str | None, task: str, fingerprint: str) -> TraceIdentity:
    """What a score is known by: the run and its weights, the task and its questions (`fingerprint`)."""
    return TraceIdentity(folder.key, weights, re.sub(r"[^\w.-]+", "_", task), fingerprint)


def write_score(folder: RunFolder, identity: TraceIdentity, table: "pd.DataFrame", facts: dict[str, Any]) -> None:
    """Keep a score in the place of an older one of the same task and questions."""
    write_finding(folder.scores_folder, identity, NAME, table[list(COLUMNS)], facts)


def find_score(folder: RunFolder, identity: TraceIdentity, facts: dict[str, Any]) -> Finding | None:
    """The score of that identity with those facts; None where there is none."""
    return find_finding(folder.scores_folder, identity, NAME, facts)


def all_scores(folder: RunFolder) -> Iterator[Finding]:
    """Every score in the run's folder, by task."""
    yield from all_findings(folder.scores_folder, NAME)
