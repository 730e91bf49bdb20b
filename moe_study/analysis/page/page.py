"""`moe-study report`: the page of a study, put together and written."""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moe_study.analysis.comparison import Comparison, Verdict
from moe_study.analysis.frame import done
from moe_study.analysis.page.charts import Chart, Charts, Group, Look, looks_of
from moe_study.analysis.page.configurations import configurations, records, runs_table
from moe_study.analysis.page.document import document
from moe_study.analysis.page.embedded import columns
from moe_study.analysis.page.experts import Inside, inside_of
from moe_study.analysis.page.inside_charts import add_inside_charts
from moe_study.analysis.page.loss_charts import add_loss_charts
from moe_study.analysis.page.question import question_of
from moe_study.analysis.page.tables import Table, answer_rows, comparisons_table, points_table
from moe_study.analysis.plots.all import readable, styles_of
from moe_study.analysis.report import heading, without
from moe_study.analysis.study import Part, Study
from moe_study.analysis.wording import HOW_TO_READ
from moe_study.errors import StudyError
from moe_study.files import write_text_atomic

MOST_ANSWERS = 60  # told one by one; the table of comparisons holds the others
MOST_ABSENT = 300  # runs without a result that are told
CHIPS = {
    Verdict.LOWER: "lower",
    Verdict.HIGHER: "higher",
    Verdict.SAME: "the same",
    Verdict.UNCLEAR: "not decided",
    Verdict.ONE_PAIR: "one pair",
    Verdict.NO_PAIR: "no pair",
    Verdict.NOT_PLANNED: "not tested",
}


@dataclass(frozen=True)
class Forest:
    """An interval as a small picture, in parts of a width of 1."""

    low: float
    high: float
    mean: float
    zero: float
    margin_low: float
    margin_high: float
    says: str


@dataclass(frozen=True)
class Answer:
    """What one comparison shows."""

    chip: str
    decided: bool
    question: str
    sentence: str
    forest: Forest | None


@dataclass(frozen=True)
class PartOfPage:
    """One evaluation set."""

    id: str
    name: str  # empty where there is one
    answers: Sequence[Answer]
    more_answers: int
    tables: Sequence[Table]
    looks: Sequence[Look]
    left_out: int  # points that are not drawn
    seeds: Sequence[int]
    groups: Sequence[Group]
    insides: Sequence[Inside]


def write_page(study: Study, out: Path, runs: Sequence[Path], sweep: str | None = None) -> Path:
    """Write the page of a study to the file `out`, and return it.

    Errors: StudyError where no run is done.
    """
    if not study.parts:
        raise StudyError("no run is done yet, so there is nothing to report")
    write_text_atomic(out, page(study, runs, sweep))
    return out


def page(study: Study, runs: Sequence[Path], sweep: str | None = None) -> str:
    """The page's HTML."""
    data: dict[str, Any] = {"sets": {}, "charts": {}, "inside": {}}
    parts = [_part(part, f"p{number}-", data) for number, part in enumerate(study.parts)]
    leaking = frozenset(label for part in study.parts for label in part.leaking)
    absent = [run.sentence_with(leaking) for run in study.absent]
    said = heading(study, sum(c.decided for c in study.comparisons), len(study.comparisons))
    content = {
        "question": question_of(sweep, runs),
        "sweep": sweep,
        "facts": _facts(study),
        "heading": said.removeprefix("Answers: ").removesuffix(":"),
        "how_to_read": HOW_TO_READ,
        "others": sum(len(part.others) for part in study.parts),
        "parts": parts,
        "configurations": configurations(study, leaking),
        "runs": runs_table(study, leaking),
        "records": records(study, leaking),
        "absent": absent[:MOST_ABSENT],
        "more_absent": max(0, len(absent) - MOST_ABSENT),
        "gaps": list(_gaps(study, sweep)),
        "problems": study.problems,
        "has_leaks": bool(leaking),
    }
    return document(content, data)


def _part(part: Part, prefix: str, data: dict[str, Any]) -> PartOfPage:
    drawn = readable(part)
    charts = Charts(prefix, looks_of(styles_of(drawn)), sorted({int(seed) for seed in drawn.runs["seed"]}))
    add_loss_charts(charts, drawn)
    names = {look.label: look.name for look in charts.looks}
    insides = []
    for number, probe in enumerate(drawn.probes):
        add_inside_charts(charts, probe)
        if (inside := inside_of(drawn, probe, f"{prefix}inside-{number}", names)) is not None:
            insides.append(inside)
    data["sets"].update({name: columns(frame) for name, frame in charts.data.items()})
    data["charts"].update({chart.id: _whole(charts, chart) for group in charts.groups for chart in group.charts})
    data["inside"].update({inside.id: inside.data for inside in insides})
    part.problems.extend(problem for problem in drawn.problems if problem not in part.problems)
    answers = list(_answers(part))
    return PartOfPage(
        prefix,
        part.name,
        answers[:MOST_ANSWERS],
        max(0, len(answers) - MOST_ANSWERS),
        [table for table in (points_table(part, prefix), comparisons_table(part, prefix)) if table.rows],
        charts.looks,
        part.runs["label"].nunique() - drawn.runs["label"].nunique(),
        charts.seeds,
        [group for group in charts.groups if group.charts],
        insides,
    )


def _whole(charts: Charts, chart: Chart) -> dict[str, Any]:
    own = chart.spec.get("params", [])
    return {**chart.spec, "params": [*charts.params, *own]}


def _answers(part: Part) -> Iterator[Answer]:
    rows = list(answer_rows(part))
    reach = max((value for c, _ in rows for value in _ends(c)), default=1.0) or 1.0
    for c, sentence in rows:
        question = c.asked.question if c.asked.written else ""
        chip = CHIPS[c.verdict]
        yield Answer(chip, c.decided, question, f"{sentence}{without(part, c)}", _forest(c, reach))


def _interval(c: Comparison) -> tuple[float, float]:
    shown = c.same_interval if c.verdict is Verdict.SAME else c.interval if c.family else c.difference
    return shown.low, shown.high


def _ends(c: Comparison) -> list[float]:
    """How far from zero the picture of a comparison reaches."""
    values = [*_interval(c), c.difference.mean, c.margin]
    return [abs(value) for value in values if not math.isnan(value)]


def _forest(c: Comparison, reach: float) -> Forest | None:
    low, high = _interval(c)
    mean = c.difference.mean
    if math.isnan(mean):
        return None
    if math.isnan(low):
        low = high = mean

    def at(value: float) -> float:
        return round(0.5 + 0.48 * value / reach, 4)

    says = f"difference {mean:+.4f}, interval {low:+.4f} to {high:+.4f}, margin {c.margin:g}"
    return Forest(at(low), at(high), at(mean), at(0), at(-c.margin), at(c.margin), says)


def _facts(study: Study) -> list[tuple[str, str]]:
    """What was read, in a line."""
    runs = done(study.frame)
    points = sum(part.runs["label"].nunique() for part in study.parts)
    seeds = sorted({int(seed) for seed in runs["seed"]})
    return [
        ("runs", f"{len(runs)} of {len(study.frame)} done"),
        ("points", str(points)),
        ("seeds", ", ".join(map(str, seeds)) if len(seeds) <= 12 else str(len(seeds))),
        ("written", time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())),
    ]


def _gaps(study: Study, sweep: str | None) -> Iterator[str]:
    """What the page could show and was not measured, and the command that measures it."""
    name = f" --sweep {sweep}" if sweep else ""
    routed = [part for part in study.parts if (part.runs["routing.selection"] != "dense").any()]
    if routed and not any(len(probe.shares) for part in routed for probe in part.probes):
        yield f"What experts follow, and texts: nothing was measured; moe-study specialise{name}"
    if routed and not any(len(probe.knockout) for part in routed for probe in part.probes):
        yield f"What breaks without an expert: nothing was measured; moe-study knockout{name}"
    for part in study.parts:
        mixtures = part.runs[part.runs["routing.selection"] != "dense"]
        measured = {one.key for probe in part.probes for one in probe.found.get("shares", ())}
        if measured and (missing := len(set(mixtures["key"]) - measured)):
            yield f"{missing} of {len(mixtures)} runs with experts were not measured; moe-study specialise{name}"
