"""`moe-study audit`: declared against measured causality of every point, and the size of trained leaks."""

import argparse
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from moe_study.analysis.format import aligned
from moe_study.commands.plan import add_overrides
from moe_study.design.config import RunConfig
from moe_study.design.verdict import Verdict
from moe_study.errors import StudyError

if TYPE_CHECKING:
    from moe_study.audit.audit import Audit
    from moe_study.posthoc.leak_cost import Cost
    from moe_study.sweeps.plan import Plan

DESCRIPTION = """\
Measure what reaches the output at a position: later tokens of the sequence, later tokens of other sequences, other
sequences at all. Replaces tokens in small sharpened float64 models of each point and compares with what the point's
type declares; the exit code is 1 where the two disagree.

  moe-study audit +sweep=first_look
  moe-study audit routing=sequence_top2
  moe-study audit --cost runs/KEY      perplexity of a trained leaking model, also under its causal relatives
"""


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Add `audit` to the sub-commands of moe-study."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "audit",
        help="Measure which tokens reach which positions of every point, and what a leak is worth.",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_overrides(parser)
    parser.add_argument("--trials", type=int, metavar="N", help="models to measure for each point (32)")
    parser.add_argument(
        "--cost",
        action="append",
        default=[],
        metavar="RUN",
        help="a trained run to price the leak of: its folder, key, or the beginning of its key; may be repeated",
    )
    parser.add_argument("--runs-dir", default="runs", help="where --cost looks for keys (runs)")
    parser.set_defaults(command=run)
    return parser


def run(options: argparse.Namespace) -> int:
    """Print the tables; 1 if a declared and a measured verdict disagree."""
    if options.trials is not None and options.trials < 1:
        raise StudyError(f"--trials {options.trials} must be at least 1")
    if options.cost:
        if options.overrides:
            raise StudyError("--cost takes trained runs: leave out the overrides, or --cost")
        for name in options.cost:
            print_lines(cost_lines(name, options.runs_dir))
        return 0
    return print_audits(options.overrides, options.trials)


def print_audits(overrides: Sequence[str], trials: int | None) -> int:
    from moe_study.audit.audit import TRIALS, audit
    from moe_study.sweeps.plan import plan_overrides

    plan = plan_overrides(overrides)
    plan.check()
    audits = {label: audit(config, trials or TRIALS) for label, config in distinct_points(plan)}
    print_lines(audit_lines(audits))
    return 0 if all(result.agrees for result in audits.values()) else 1


def distinct_points(plan: "Plan") -> Iterator[tuple[str, RunConfig]]:
    """Points that differ in model or routing, each with what tells it apart; seeds and sizes of data do not."""
    seen = set()
    for planned in plan.runs:
        point = planned.config.model, planned.config.routing
        if point not in seen:
            seen.add(point)
            words = [word for word in plan.label(planned).split(" ") if not word.startswith(("run.", "log."))]
            yield " ".join(words) or "(defaults)", planned.config


def audit_lines(audits: dict[str, "Audit"]) -> Iterator[str]:
    """One line a point."""
    rows = [("point", "declared", "measured", "agree", "first leak", "largest change")]
    for label, result in audits.items():
        measured = result.measured
        reached = measured.own_future | measured.others_future | measured.mixes_batch
        rows.append(
            (
                label,
                words_of(result.declared),
                words_of(measured.verdict) + _length_words(result),
                "yes" if result.agrees else "NO",
                "-" if measured.first_leak is None else f"position {measured.first_leak}",
                f"{reached.change:.1e}",
            )
        )
    yield from aligned(rows)
    wrong = sum(not result.agrees for result in audits.values())
    trials = max(result.measured.trials for result in audits.values())
    yield ""
    yield f"{len(audits)} point(s), {trials} models each; {wrong or 'none'} measured other than declared"


def words_of(verdict: Verdict) -> str:
    """`causal`, or what leaks: `own future, mixes batch`."""
    parts = {
        "own future": verdict.own_future,
        "others' future": verdict.others_future,
        "mixes batch": verdict.mixes_batch,
    }
    return ", ".join(words for words, holds in parts.items() if holds) or "causal"


def _length_words(result: "Audit") -> str:
    return ", depends on the length" if result.depends_on_length else ""


def cost_lines(name: str, runs_dir: str) -> Iterator[str]:
    from moe_study.posthoc.leak_cost import cost_of_leak
    from moe_study.runs.listing import find_run

    folder = find_run(runs_dir, name)
    costs = cost_of_leak(folder)
    yield f"{folder.path}"
    yield from aligned([("evaluated", "reads later tokens", "perplexity", "bits per byte"), *map(_cost_row, costs)])


def _cost_row(cost: "Cost") -> tuple[str, str, str, str]:
    evaluation = cost.evaluation
    leaks = not cost.change
    return (
        cost.change or "as trained",
        "yes" if leaks else "no",
        f"{evaluation.perplexity:.3f}",
        f"{evaluation.bits_per_byte:.4f}",
    )


def print_lines(lines: Iterator[str]) -> None:
    for line in lines:
        print(line)
