"""Downstream scores of a study's points (runs/scores.py), side by side: over seeds, and against a reference.

Two points are compared question by question and seed by seed: answers are paired by what stands for the question, over
the seeds that both have. The interval of the difference is a bootstrap that draws questions and seeds anew, each for
itself (Owen 2007, "The pigeonhole bootstrap"; a little too wide where it errs), since another question and another seed
could both have turned out otherwise. With one seed it draws questions alone.

Shape suffixes: I questions, S seeds, R draws.
"""

import math
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from moe_study.analysis.format import NOTHING, number
from moe_study.analysis.frame import done, each
from moe_study.analysis.tables_out import Cells
from moe_study.runs.findings import Finding
from moe_study.runs.folder import RunFolder
from moe_study.runs.scores import all_scores

RESAMPLES = 2000
LEVEL = 0.95
COLUMNS = (
    *("task", "items", "metric", "label", "seeds", "value", "stderr", "seed_sd", "chance", "higher_is_better"),
    *("difference", "difference_low", "difference_high", "pairs", "passes", "leaks"),
)
HOW_TO_READ = (
    "score: mean over seeds, ± its standard error over questions; sd: of the score over seeds; chance: of guessing"
    " among the choices; Δ: over the seeds and questions that both have, with its 95% bootstrap interval over both;"
    " each interval alone: among many rows some exclude 0 by chance"
)
GROWING = "growing prefixes: each token's probability is from a pass over the tokens before it alone"


class _Run(NamedTuple):
    """One run's answers to one task."""

    seed: int
    finding: Finding


@dataclass(frozen=True)
class _Asked:
    """One task with the same questions to all points."""

    task: str
    points: Mapping[str, Sequence[_Run]]  # by label


def score_table(
    frame: pd.DataFrame,
    reference: str,
    only: Collection[tuple[str, str]] | None = None,
    problems: list[str] | None = None,
) -> pd.DataFrame:
    """COLUMNS: one row for each task, metric and point that was scored; empty where nothing was.

    `frame` as in load_frame, labelled; `only`: these (task, fingerprint of its questions). stderr and differences are
    nan for metrics that are no mean over questions, differences also for the reference itself. `pairs` counts the seeds
    that both have; 0 where they share none, and each point stands with all of its own. Damaged scores are left out, and
    `problems` gets a sentence for each.
    """
    leaks = {run.label: bool(run.leaks) for run in each(done(frame))}
    rows = [row for asked in _asked(frame, only, problems) for row in _rows(asked, reference, leaks)]
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype({"items": int, "seeds": int, "pairs": "Int64"})


def _asked(
    frame: pd.DataFrame, only: Collection[tuple[str, str]] | None, problems: list[str] | None
) -> Iterator[_Asked]:
    found: dict[tuple[str, str], dict[str, list[_Run]]] = defaultdict(lambda: defaultdict(list))
    for run in each(done(frame)):
        for finding in all_scores(RunFolder(run.folder), problems):
            questions = finding.facts["task"], finding.identity.probe_fingerprint
            if only is None or questions in only:
                found[questions][run.label].append(_Run(int(run.seed), finding))
    for (task, _), points in found.items():
        yield _Asked(task, points)


def _rows(asked: _Asked, reference: str, leaks: Mapping[str, bool]) -> Iterator[dict[str, Any]]:
    for metric in _shared_metrics(asked):
        answers = {label: _answers(runs, metric) for label, runs in asked.points.items()}
        for label, runs in asked.points.items():
            row = {"task": asked.task, "metric": metric, "label": label, "leaks": leaks[label]}
            row |= _score(runs, metric) | {"stderr": _standard_error(answers[label])}
            if label != reference and reference in answers:
                row |= _difference(answers[label], answers[reference])
            yield row


def _shared_metrics(asked: _Asked) -> list[str]:
    """Those that every run has: another version of the harness may know others."""
    found = [run.finding.facts["metrics"] for runs in asked.points.values() for run in runs]
    return [metric for metric in found[0] if all(metric in metrics for metrics in found)]


def _score(runs: Sequence[_Run], metric: str) -> dict[str, Any]:
    """What does not take single answers."""
    facts = [run.finding.facts for run in runs]
    own = [found["metrics"][metric] for found in facts]
    values = [found["value"] for found in own]
    return {
        "items": facts[0]["items"],
        "seeds": len(values),
        "value": float(np.mean(values)),
        "seed_sd": float(np.std(values, ddof=1)) if len(values) > 1 else math.nan,
        "higher_is_better": own[0]["higher_is_better"],
        "chance": facts[0]["chance"] if metric.startswith("acc") else None,
        "passes": "; ".join(dict.fromkeys(found["passes"] for found in facts if found["passes"])),
    }


def _answers(runs: Sequence[_Run], metric: str) -> pd.DataFrame:
    """Questions down, seeds across; empty for a metric that is no mean over questions."""
    columns = {}
    for run in runs:
        if not run.finding.facts["metrics"][metric]["is_mean"]:
            return pd.DataFrame()
        table = run.finding.table
        columns[run.seed] = table[table["metric"] == metric].set_index("item")["value"]
    return pd.DataFrame(columns)


def _standard_error(answers: pd.DataFrame) -> float:
    over_seeds = answers.mean(axis=1).to_numpy() if len(answers) else np.empty(0)
    return float(over_seeds.std(ddof=1) / math.sqrt(len(over_seeds))) if len(over_seeds) > 1 else math.nan


def _difference(own: pd.DataFrame, other: pd.DataFrame) -> dict[str, Any]:
    """Of the means over questions that both were asked, with its bootstrap interval."""
    if not len(own) or not len(other):
        return {}
    seeds = [seed for seed in own if seed in other]
    pairs = own[seeds] - other[seeds] if seeds else (own.mean(axis=1) - other.mean(axis=1)).to_frame()
    difference_IS = pairs.dropna().to_numpy()
    low, high = bootstrap_interval(difference_IS)
    mean = float(difference_IS.mean()) if len(difference_IS) else math.nan
    return {"difference": mean, "difference_low": low, "difference_high": high, "pairs": len(seeds)}


def bootstrap_interval(values_IS: np.ndarray, level: float = LEVEL) -> tuple[float, float]:
    """Percentile interval of the mean over rows and columns drawn anew; the same values give the same one."""
    questions, seeds = values_IS.shape
    if questions < 2:
        return math.nan, math.nan
    draw = np.random.default_rng(0)
    weight_RI = draw.multinomial(questions, np.full(questions, 1 / questions), RESAMPLES) / questions
    weight_RS = draw.multinomial(seeds, np.full(seeds, 1 / seeds), RESAMPLES) / seeds
    mean_R = ((weight_RI @ values_IS) * weight_RS).sum(axis=1)
    low, high = np.quantile(mean_R, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def score_cells(table: pd.DataFrame, reference: str, marks: Mapping[str, str], notes: Sequence[str] = ()) -> Cells:
    """The table as people read it: task by task, the best score first."""
    best = table["value"].where(table["higher_is_better"].eq(False), -table["value"])
    ordered = table.assign(best=best).sort_values(["task", "items", "metric", "best"], kind="stable")
    header = ["task", "metric", "point", "seeds", "score", "sd", "chance", f"Δ to {reference}", "passes"]
    rows, rules, last = [], [], None
    for row in each(ordered):
        group = row.task, row.items, row.metric
        if last not in (None, group):
            rules.append(len(rows))
        last = group
        rows.append(
            [
                f"{row.task} ({row.items})",
                row.metric,
                f"{row.label} {marks.get(row.label, '')}".rstrip(),
                str(row.seeds),
                number(row.value, "{:.4g}") + ("" if math.isnan(row.stderr) else f" ± {row.stderr:.4f}"),
                number(row.seed_sd, "{:.4f}"),
                number(row.chance, "{:.3g}"),
                _difference_words(row),
                row.passes or NOTHING,
            ]
        )
    told = [HOW_TO_READ, *([GROWING] if table["passes"].str.contains("growing").any() else []), *notes]
    return Cells(header, rows, told, text_columns=(0, 1, 2, 8), rules=rules)


def _difference_words(row: Any) -> str:
    if row.difference is None or math.isnan(row.difference):
        return NOTHING
    return f"{row.difference:+.4f} ({row.difference_low:+.4f} to {row.difference_high:+.4f})"
