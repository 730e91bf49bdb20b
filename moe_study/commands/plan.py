"""`moe-study plan`: the runs of a sweep or grid, with their state and cost. Starts nothing."""

import argparse
import json
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from moe_study.analysis.format import aligned, count

if TYPE_CHECKING:
    from moe_study.sweeps.plan import Plan

DESCRIPTION = "List the runs of a sweep or grid, with their state and cost."


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Add `plan` to the sub-commands of moe-study."""
    parser: argparse.ArgumentParser = commands.add_parser("plan", help=DESCRIPTION, description=DESCRIPTION)
    add_overrides(parser)
    parser.add_argument("--json", action="store_true", help="everything as JSON, for programs")
    parser.set_defaults(command=run)
    return parser


def add_overrides(parser: argparse.ArgumentParser) -> None:
    """The argument of every command that works on configurations."""
    help_text = "as for train.py: data=openwebtext, +sweep=NAME, ..."
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help=help_text)


def run(options: argparse.Namespace) -> int:
    """Print the plan; 1 if it cannot be trained: no runs are left, or invalid points that nobody asked to skip."""
    from moe_study.sweeps.plan import plan_overrides

    planned = plan_overrides(options.overrides)
    if options.json:
        print(json.dumps(as_plain(planned), indent=2, ensure_ascii=False))
    else:
        for line in plan_lines(planned):
            print(line)
    return 0 if planned.problem is None else 1


def plan_lines(planned: "Plan") -> Iterator[str]:
    """What `plan` prints."""
    from moe_study.launch.cost import cost_of, size_of
    from moe_study.launch.data import about_other_data

    rows = [("run", "state", "params", "active", "FLOPs/token", "tokens", "")]
    for run in planned.runs:
        cells = [count(number) for number in size_of(run.config)]
        label = planned.label(run)
        if run.matched is not None:
            label += f" (matched {run.matched.quantity} to {run.matched.residual:+.2%})"
        rows.append((run.key, run.state.value, *cells, label))  # type: ignore[arg-type]
    yield from aligned(rows, right=range(2, 6))
    yield ""
    for same in planned.same_points():
        yield same.headline
        yield from (f"  {point}" for point in same.points)
    if planned.duplicates or planned.excluded:
        yield f"left out: {planned.excluded} excluded, {planned.duplicates} the same as others"
    states = Counter(run.state.value for run in planned.runs)
    cost = cost_of(planned)
    by_state = ", ".join(f"{number} {state}" for state, number in states.items())
    yield f"{len(planned.runs)} run(s) ({by_state}), {cost.runs} to train: {count(cost.flops)} FLOPs"
    yield from cost.sentences()
    if planned.invalid:
        yield f"{len(planned.invalid)} invalid point(s){' (skipped)' if planned.skip_invalid else ''}:"
        yield planned.invalid_listing()
    yield from _comparison_lines(planned)
    yield from planned.warnings()
    if (sentence := about_other_data(run.config for run in planned.runs)) is not None:
        yield sentence


def _comparison_lines(planned: "Plan") -> Iterator[str]:
    """What will be tested, a line each."""
    rows = []
    for asked in planned.comparisons:
        margin = "" if asked.margin is None else f"margin {asked.margin:g}"
        against = f"at equal {asked.at} against" if asked.at else "against"
        rows.append(("", asked.left, against, asked.right, f"{len(asked.left_runs)} seed(s)", margin, asked.why))
    for effect in planned.effects:
        margin = "" if effect.margin is None else f"margin {effect.margin:g}"
        levels = " x ".join(", ".join(own) for own in effect.levels)
        rows.append(("", effect.text, "over", levels, f"{len(effect.cells)} point(s)", margin, effect.why))
    for trend in planned.trends:
        margin = "" if trend.margin is None else f"margin {trend.margin:g}"
        levels = ", ".join(rung.level for rung in trend.rungs)
        rows.append(("", trend.text, "at", levels, f"{len(trend.rungs)} size(s)", margin, trend.why))
    if rows:
        tested = "tested as one family" if len(rows) > 1 else "tested"
        yield f"{len(rows)} comparison(s), {tested}; all others are described without a verdict:"
        yield from aligned(rows)
    if planned.reaches:
        yield f"{len(planned.reaches)} cost(s) at equal loss, described and not tested:"
        yield from aligned([("", reach.text, _claimed(reach.at_most), reach.why) for reach in planned.reaches])


def _claimed(at_most: float | None) -> str:
    return "" if at_most is None else f"claimed: at most {at_most:g}"


def as_plain(planned: "Plan") -> dict[str, Any]:
    """The plan for programs: runs with their sizes, invalid points, comparisons, and what the missing ones cost."""
    from moe_study.launch.cost import cost_of, size_of

    runs = [
        {
            "key": run.key,
            "state": run.state.value,
            "point": planned.label(run),
            "overrides": list(run.overrides),
            "reason": run.reason or None,
            **size_of(run.config)._asdict(),
            "train_flops": run.train_flops,
            "folder": str(run.folder.path),
        }
        for run in planned.runs
    ]
    invalid = [{"overrides": list(point.overrides), "reason": point.reason} for point in planned.invalid]
    return {
        "sweep": planned.name,
        "states": dict(Counter(run["state"] for run in runs)),
        "runs": runs,
        "invalid": invalid,
        "excluded": planned.excluded,
        "duplicates": planned.duplicates,
        "to_train": cost_of(planned).as_plain(),
        "comparisons": [
            {"left": one.left, "right": one.right, "why": one.why, "at": one.at or None} for one in planned.comparisons
        ],
        "effects": [{"effect": one.text, "levels": one.levels, "why": one.why} for one in planned.effects],
        "trends": [
            {"trend": one.text, "levels": [rung.level for rung in one.rungs], "why": one.why} for one in planned.trends
        ],
        "reaches": [{"reach": one.text, "at_most": one.at_most, "why": one.why} for one in planned.reaches],
        "warnings": planned.warnings(),
    }
