"""`moe-study report`: the page of a study, put together and written."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moe_study.analysis.frame import done
from moe_study.analysis.page.answers import Answer, Described, answers, described, reach_of
from moe_study.analysis.page.charts import Chart, Charts, Group, Look, looks_of
from moe_study.analysis.page.configurations import configurations, records, runs_table
from moe_study.analysis.page.cost_charts import add_cost_charts
from moe_study.analysis.page.document import document
from moe_study.analysis.page.embedded import columns
from moe_study.analysis.page.experts import Inside, inside_of
from moe_study.analysis.page.inside_charts import add_inside_charts
from moe_study.analysis.page.loss_charts import add_loss_charts
from moe_study.analysis.page.question import question_of
from moe_study.analysis.page.tables import Table, leak_marker, tables_of
from moe_study.analysis.plots.all import readable, styles_of
from moe_study.analysis.report import heading
from moe_study.analysis.study import Part, Study
from moe_study.analysis.table_text import marks_by_label
from moe_study.analysis.wording import HOW_TO_READ
from moe_study.errors import StudyError
from moe_study.files import write_text_atomic

MOST_ANSWERS = 60  # told one by one; the table of comparisons holds the others
MOST_ABSENT = 300  # runs without a result that are told


@dataclass(frozen=True)
class PartOfPage:
    """One evaluation set."""

    id: str
    name: str  # empty where there is one
    answers: Sequence[Answer]
    more_answers: int
    described: Sequence[Described]
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
    reach = reach_of(study.parts)
    parts = [_part(part, f"p{number}-", data, reach) for number, part in enumerate(study.parts)]
    marks = {label: held for part in study.parts for label, held in marks_by_label(part.table).items()}
    leaking = frozenset(label for part in study.parts for label in part.leaking)
    absent = [run.sentence for run in study.absent]
    said = heading(study, sum(one.decided for one in study.tested), len(study.tested))
    content = {
        "question": question_of(sweep, runs),
        "sweep": sweep,
        "facts": _facts(study),
        "heading": said.removeprefix("Answers: ").removesuffix(":"),
        "reach": f"{reach:.3f}",
        "how_to_read": HOW_TO_READ,
        "others": sum(len(part.others) for part in study.parts),
        "parts": parts,
        "configurations": configurations(study, marks),
        "runs": runs_table(study, marks),
        "records": records(study, marks),
        "absent": absent[:MOST_ABSENT],
        "more_absent": max(0, len(absent) - MOST_ABSENT),
        "gaps": list(_gaps(study, sweep)),
        "problems": study.problems,
        "has_leaks": bool(leaking),
    }
    return document(content, data, leak_marker(study.frame["label"].unique(), leaking))


def _part(part: Part, prefix: str, data: dict[str, Any], reach: float) -> PartOfPage:
    drawn = readable(part)
    charts = Charts(prefix, looks_of(styles_of(drawn)), sorted({int(seed) for seed in drawn.runs["seed"]}))
    add_loss_charts(charts, drawn)
    add_cost_charts(charts, part)
    names = {look.label: look.name for look in charts.looks}
    insides = []
    for number, probe in enumerate(part.probes):
        try:
            add_inside_charts(charts, probe)
        except StudyError as error:  # what was found of its runs does not fit together; the rest of the page stands
            part.problems.append(f"probe {probe.name}: {error}")
        if (inside := inside_of(part, probe, f"{prefix}inside-{number}", names)) is not None:
            insides.append(inside)
    data["sets"].update({name: columns(frame) for name, frame in charts.data.items()})
    data["charts"].update({chart.id: _whole(charts, chart) for group in charts.groups for chart in group.charts})
    data["inside"].update({inside.id: inside.data for inside in insides})
    part.problems.extend(problem for problem in drawn.problems if problem not in part.problems)
    answered = list(answers(part, reach))
    return PartOfPage(
        prefix,
        part.name,
        answered[:MOST_ANSWERS],
        max(0, len(answered) - MOST_ANSWERS),
        described(part),
        list(tables_of(part, prefix)),
        charts.looks,
        part.runs["label"].nunique() - drawn.runs["label"].nunique(),
        charts.seeds,
        [group for group in charts.groups if group.charts],
        insides,
    )


def _whole(charts: Charts, chart: Chart) -> dict[str, Any]:
    own = chart.spec.get("params", [])
    return {**chart.spec, "params": [*charts.params, *own]}


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
    if routed and not any("shares" in probe.found for part in routed for probe in part.probes):
        yield f"What experts follow, and texts: nothing was measured; moe-study specialise{name}"
    if routed and not any("knockout" in probe.found for part in routed for probe in part.probes):
        yield f"What breaks without an expert: nothing was measured; moe-study knockout{name}"
    for part in study.parts:
        mixtures = part.runs[part.runs["routing.selection"] != "dense"]
        measured = {one.key for probe in part.probes for one in probe.found.get("shares", ())}
        if measured and (missing := len(set(mixtures["key"]) - measured)):
            yield f"{missing} of {len(mixtures)} runs with experts were not measured; moe-study specialise{name}"
