"""`moe-study plan`: the runs of a sweep or grid, with their state and cost. Starts nothing."""

import argparse
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from moe_study.analysis.format import aligned, count

if TYPE_CHECKING:
    from moe_study.sweeps.plan import Plan, PlannedRun

DESCRIPTION = "List the runs of a sweep or grid, with their state and cost."


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Add `plan` to the sub-commands of moe-study."""
    parser: argparse.ArgumentParser = commands.add_parser("plan", help=DESCRIPTION, description=DESCRIPTION)
    add_overrides(parser)
    parser.set_defaults(command=run)
    return parser


def add_overrides(parser: argparse.ArgumentParser) -> None:
    """The argument of every command that works on configurations."""
    help_text = "as for train.py: data=openwebtext, +sweep=NAME, ..."
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help=help_text)


def run(options: argparse.Namespace) -> int:
    """Print the plan; 1 if it has invalid points that nobody asked to skip."""
    from moe_study.sweeps.plan import plan_overrides

    planned = plan_overrides(options.overrides)
    for line in plan_lines(planned):
        print(line)
    return 1 if planned.invalid and not planned.skip_invalid else 0


def plan_lines(planned: "Plan") -> Iterator[str]:
    from moe_study.design.accounting import flops_per_token, num_active_params, num_params
    from moe_study.launch.data import about_other_data

    rows = [("run", "state", "params", "active", "FLOPs/token", "tokens", "")]
    for run in planned.runs:
        config = run.config
        sizes = (num_params(config), num_active_params(config), flops_per_token(config))
        tokens = config.total_steps * config.tokens_per_step
        cells = [count(number) for number in (*sizes, tokens)]
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
    missing = planned.to_start()
    flops = sum(run.train_flops for run in missing)
    yield f"{len(planned.runs)} run(s), {len(missing)} to train: {count(flops)} FLOPs{_hours(planned, missing)}"
    if planned.invalid:
        yield f"{len(planned.invalid)} invalid point(s){' (skipped)' if planned.skip_invalid else ''}:"
        yield planned.invalid_listing()
    yield from _comparison_lines(planned)
    yield from planned.warnings()
    if (sentence := about_other_data(run.config for run in planned.runs)) is not None:
        yield sentence


def _comparison_lines(planned: "Plan") -> Iterator[str]:
    """What will be tested, a line each."""
    if planned.comparisons:
        tested = "tested as one family" if len(planned.comparisons) > 1 else "tested"
        yield f"{len(planned.comparisons)} comparison(s), {tested}; all others are described without a verdict:"
        rows = []
        for asked in planned.comparisons:
            margin = "" if asked.margin is None else f"margin {asked.margin:g}"
            rows.append(("", asked.left, "against", asked.right, f"{len(asked.left_runs)} seed(s)", margin, asked.why))
        yield from aligned(rows)


def _hours(planned: "Plan", missing: Sequence["PlannedRun"]) -> str:
    """An estimate for one run at a time, from what the finished runs in the same folder took."""
    from moe_study.runs.overview import flops_per_second

    speed = flops_per_second(planned.runs[0].config.log.runs_dir) if planned.runs else None
    if not speed or not missing:
        return ""
    hours = sum(run.train_flops for run in missing) / speed / 3600
    return f", about {hours:.1f} hours one after the other at the speed of the finished runs"
