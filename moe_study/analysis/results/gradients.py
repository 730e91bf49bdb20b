"""results/NAME/gradients.parquet, .md and .png: gradient norms by part of the model, of a sweep's runs.

Recorded in training where the runs were asked to (log.gradients_every), and of finished models where that was measured
(posthoc/gradients.py): two things, which stand apart in every file.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from moe_study.analysis.comparison import Comparison
from moe_study.analysis.format import with_bounds
from moe_study.analysis.gradients import ONE_EXPERT, SHOWN, by_seed, joined, settled
from moe_study.analysis.plots.all import styles_of
from moe_study.analysis.plots.gradients import by_point, units_of
from moe_study.analysis.results.measure import Kept, Measure, draw_parts, finished_runs, rows_of_part
from moe_study.analysis.specialisation.finding_columns import FINDING_COLUMNS
from moe_study.analysis.statistics import t_interval
from moe_study.analysis.study import Part, Study
from moe_study.analysis.tables_out import Cells, markdown
from moe_study.runs.findings import all_findings
from moe_study.runs.gradients import COLUMNS, read_gradients

FINDING = "gradients"
TRAINING, FINISHED = "training", "finished"
WORDS = {
    TRAINING: "in training (second half)",
    FINISHED: "of finished models on validation batches",
}
HEAD = """\
# Gradient norms by part of the model

2-norms of the gradient of one step's batch, before clipping, layers joined; *one expert* is the mean over experts
that had a token. Geometric means over seeds with 95% intervals, described and not tested. A ratio is of the first
point's norm over the second's, paired by seed. A frozen router, and experts that there are not, have no column."""
Norms = dict[tuple[str, str], np.ndarray]  # one number per seed
ANSWERED = {"router": "the router's", ONE_EXPERT: "one expert's"}  # what readers ask for, in words
EXPLAINED = {
    TRAINING: "Recorded while the runs trained (log.gradients_every), balancing terms included: the geometric mean over"
    " the second half of the steps.",
    FINISHED: "Measured after training, not during it: the last weights, on batches of unseen text as large as a"
    " training step's, without dropout and balancing terms. *Agreement* is what two batches' gradients have in common:"
    " 1 where all batches give one gradient, 0 where there is nothing but noise.",
}


def gradient_rows(study: Study) -> pd.DataFrame:
    """The norms of every finished run that has any: key, label, seed, of (TRAINING, FINISHED), and COLUMNS."""
    parts = []
    for run in finished_runs(study.parts):
        if len(recorded := read_gradients(run.folder)):
            parts.append(recorded.assign(**run.place, of=TRAINING))
        for finding in all_findings(run.folder.findings_folder, FINDING, FINDING_COLUMNS[FINDING]):
            parts.append(finding.table.assign(**run.place, of=FINISHED))
    if not parts:
        return pd.DataFrame()
    rows = pd.concat(parts, ignore_index=True)
    numbers = [name for name in rows if rows[name].dtype == np.float64]
    names = ["key", "label", "seed", "of", *COLUMNS, *(["agreement"] if "agreement" in rows else [])]
    return rows.astype(dict.fromkeys(numbers, np.float32))[names]  # four digits are said of them


def gradients_text(kept: Kept) -> str:
    """Norms of every point, and ratios of every planned comparison, for each of what was measured."""
    blocks = [HEAD]
    for part in kept.study.parts:
        for of in WORDS:
            if len(summary := summary_of(kept.rows, part, of)):
                where = f", {part.name}" if part.name else ""
                blocks += [f"## {WORDS[of][:1].upper()}{WORDS[of][1:]}{where}", EXPLAINED[of]]
                blocks += [markdown(cells).rstrip() for cells in _tables(summary, part) if cells.rows]
                blocks += _without(summary, part)
    return "\n\n".join(blocks) + "\n"


def _without(summary: pd.DataFrame, part: Part) -> list[str]:
    """Which points have no norms: runs shared with sweeps that were trained before norms were kept."""
    measured = set(summary["label"])
    lacking = [part.marked(label) for label in dict.fromkeys(part.table["label"]) if label not in measured]
    return [f"Not measured: {'; '.join(lacking)}."] if lacking else []


def summary_of(rows: pd.DataFrame, part: Part, of: str) -> pd.DataFrame:
    """One row for each run and part of the model: label, seed, part, norm, and agreement of finished models."""
    own = rows_of_part(rows[rows["of"] == of], part)
    if not len(own):
        return pd.DataFrame(columns=["label", "seed", "part", "norm"])
    summary = settled(joined(own, ["key", "label", "seed", "step"]))
    if of == TRAINING:
        return summary
    product = own.assign(product=own["agreement"] * own["norm"] ** 2, square=own["norm"] ** 2)
    sums = product.groupby(["label", "seed", "part"])[["product", "square"]].sum()
    common = (sums["product"] / sums["square"].where(sums["square"] > 0)).rename("agreement").reset_index()
    return summary.merge(common, how="left", on=["label", "seed", "part"])


def sentences(kept: Kept) -> Iterator[str]:
    """What planned comparisons do to the gradient of the router, and to that of one expert: a sentence each.

    From what training recorded, where both sides did; else from finished models.
    """
    for part in kept.study.parts:
        found = {of: _norms(summary_of(kept.rows, part, of)) for of in WORDS}
        for name, words in ANSWERED.items():
            said: dict[str, list[str]] = {of: [] for of in WORDS}
            for comparison in part.comparisons:
                ratios = {of: _ratio(found[of], comparison, name) for of in WORDS}
                if of := next((of for of in WORDS if ratios[of]), None):
                    said[of].append(f"{ratios[of]} in {_pair(comparison, part)}")
            for of in (of for of in WORDS if said[of]):
                yield f"Norm of {words} gradient {WORDS[of]}, as a ratio: {'; '.join(said[of])}"


def _tables(summary: pd.DataFrame, part: Part) -> Iterator[Cells]:
    names = [name for name in SHOWN if name in set(summary["part"])]
    labels = [label for label in dict.fromkeys(part.table["label"]) if label in set(summary["label"])]
    marked = {label: part.marked(label) for label in labels}

    def of_points(value: str, digits: str) -> list[list[str]]:
        wide = {label: by_seed(summary, label, value) for label in labels}
        is_norm = value == "norm"
        return [[marked[label], *(_cell(wide[label], name, digits, is_norm) for name in names)] for label in labels]

    yield Cells(["norm", *names], of_points("norm", "#.3g"), text_columns=(0,))
    norms = _norms(summary)
    ratios = [[_pair(one, part), *(_ratio(norms, one, name) for name in names)] for one in part.comparisons]
    yield Cells(["ratio of norms", *names], [row for row in ratios if any(row[1:])], text_columns=(0,))
    if "agreement" in summary:
        names = [name for name in names if name != ONE_EXPERT]
        yield Cells(["agreement", *names], of_points("agreement", ".3f"), text_columns=(0,))


def _pair(comparison: Comparison, part: Part) -> str:
    return f"{part.marked(comparison.point)} over {part.marked(comparison.against)}"


def _cell(wide: pd.DataFrame, name: str, digits: str, is_norm: bool) -> str:
    if name not in wide.index:
        return ""
    values_S = wide.loc[name].dropna().to_numpy(float)
    if is_norm and not (values_S > 0).all():
        return f"0 to {values_S.max():{digits}}" if values_S.any() else "0"
    return _interval(values_S, digits, logarithmic=is_norm)


def _norms(summary: pd.DataFrame) -> Norms:
    """The norms that do not vanish, by part of the model and label; NaN for other seeds."""
    if not len(summary):
        return {}
    wide = summary[summary["norm"] > 0].groupby(["part", "label", "seed"])["norm"].mean().unstack("seed")
    return dict(zip(wide.index, wide.to_numpy(float), strict=True))


def _ratio(norms: Norms, comparison: Comparison, name: str) -> str:
    """The ratio of a comparison's norms of one part; empty where a side has none, or a gradient that vanishes."""
    sides = (name, comparison.point), (name, comparison.against)
    if not norms.keys() >= set(sides):
        return ""
    ratio_S = norms[sides[0]] / norms[sides[1]]
    return _interval(ratio_S[~np.isnan(ratio_S)], ".2f", logarithmic=True)


def _interval(values_S: np.ndarray, digits: str, *, logarithmic: bool) -> str:
    if not len(values_S):
        return ""
    found = t_interval(np.log(values_S) if logarithmic else values_S)
    mean, _, low, high = (float(np.exp(one)) if logarithmic else float(one) for one in found)
    return with_bounds(mean, low, high, digits)


def draw(kept: Kept, path: Path) -> Iterator[Path]:
    """Of what training recorded where it did, else of finished models; a PNG for each evaluation set."""
    return draw_parts(kept, path, lambda part: _figure(kept.rows, part))


def _figure(rows: pd.DataFrame, part: Part) -> Figure | None:
    styles = styles_of(part)
    summaries = {of: summary_of(rows, part, of) for of in WORDS}
    of = max(WORDS, key=lambda of: len(set(summaries[of]["label"]) & set(styles)))  # training, of as many points
    shown = {label: style for label, style in styles.items() if label in set(summaries[of]["label"])}
    return by_point(summaries[of], shown, units_of(part.runs), WORDS[of]) if shown else None


MEASURE = Measure(
    "gradients",
    "gradient norms by part of the model",
    "moe-study results --sweep {sweep} --gradients",
    lambda study: {"": gradient_rows(study)},
    gradients_text,
    {"": sentences},
    draw,
)
