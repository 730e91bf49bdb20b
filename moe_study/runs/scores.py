"""What a run scored on downstream tasks: RUN/scores/TASK-FINGERPRINT/items.parquet, kept as findings are.

The table has a row for each answer: item (what stands for the question, the same for every run), metric, value, and
weight (how much the answer counts: words of a text; nan where all count alike). The facts:

    task, harness (version of lm-evaluation-harness), task_version, items (number), metrics ({name: {value, stderr,
    higher_is_better, is_mean}}, as the harness has worked them out), chance (of acc; null where a task has no choices),
    label (what a router by label was told of texts that do not say it; null where nothing), passes (how a routing that
    leaks was read: posthoc/lm_eval/passes.py; empty for one pass)
"""

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from moe_study.runs.columns import Holds
from moe_study.runs.findings import Finding, all_findings, find_finding, write_finding
from moe_study.runs.folder import RunFolder
from moe_study.runs.traces import TraceIdentity

if TYPE_CHECKING:
    import pandas as pd

NAME = "items"
COLUMNS = {"item": Holds.TEXT, "metric": Holds.TEXT, "value": Holds.NUMBER, "weight": Holds.NUMBER}
OF_METRIC = {"value": int | float, "higher_is_better": bool | None, "is_mean": bool}


def score_identity(folder: RunFolder, weights: str | None, task: str, fingerprint: str) -> TraceIdentity:
    """What a score is known by: the run and its weights, the task and its questions (`fingerprint`)."""
    return TraceIdentity(folder.key, weights, re.sub(r"[^\w.-]+", "_", task), fingerprint)


def write_score(folder: RunFolder, identity: TraceIdentity, table: "pd.DataFrame", facts: dict[str, Any]) -> None:
    """Keep a score in the place of an older one of the same task and questions."""
    write_finding(folder.scores_folder, identity, NAME, table[list(COLUMNS)], facts)


def find_score(folder: RunFolder, identity: TraceIdentity, facts: dict[str, Any]) -> Finding | None:
    """The score of that identity with those facts; None where there is none."""
    found = find_finding(folder.scores_folder, identity, NAME, facts, COLUMNS)
    return found if found is not None and _is_whole(found.facts) else None


def all_scores(folder: RunFolder, problems: list[str] | None = None) -> Iterator[Finding]:
    """Every score in the run's folder, by task; damaged ones are left out, with a sentence in `problems`."""
    for found in all_findings(folder.scores_folder, NAME, COLUMNS, problems):
        if _is_whole(found.facts):
            yield found
        elif problems is not None:
            where = found.identity.folder_in(folder.scores_folder)
            problems.append(f"{where} is damaged: its facts are not a score's; delete it, then score the run again")


def _is_whole(facts: Mapping[str, Any]) -> bool:
    """Whether the facts are there that tables take, each of its type."""
    metrics = facts.get("metrics")
    return (
        isinstance(facts.get("task"), str)
        and isinstance(facts.get("items"), int)
        and isinstance(facts.get("chance"), int | float | None)
        and isinstance(facts.get("passes"), str)
        and isinstance(metrics, Mapping)
        and all(isinstance(own, Mapping) and _has(own, OF_METRIC) for own in metrics.values())
    )


def _has(values: Mapping[str, Any], types: Mapping[str, Any]) -> bool:
    return all(isinstance(values.get(name), kind) for name, kind in types.items())
