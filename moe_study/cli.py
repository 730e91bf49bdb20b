"""moe-study: prepare data, look at a plan, at the state of runs, and at results.

Torch is never imported here, and everything else only by the command that needs it.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from moe_study.commands.audit import add_parser as add_audit_parser
from moe_study.commands.sparsify import add_parser as add_sparsify_parser
from moe_study.guard import guarded

if TYPE_CHECKING:
    from moe_study.sweeps.plan import Plan, PlannedRun

DESCRIPTION = """\
Studies of mixture-of-experts language models. Training itself is python train.py.

  moe-study prepare data=parliament_news      download, tokenize and index a corpus
  moe-study plan +sweep=first_look            what a sweep would train, and what it would cost
  moe-study status --sweep first_look         what is done, running, failed and why
  moe-study audit +sweep=first_look           which points look at later tokens, declared and measured
  moe-study sparsify runs/KEY                 a dense run with some of its experts off: perplexity against FLOPs
  moe-study plots --sweep first_look          table and pictures of the finished runs
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit code."""
    options = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], int | None] = options.command

    def run() -> int | None:
        try:
            return command(options)
        except BrokenPipeError:  # the reader has seen enough: moe-study status | head
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0

    return guarded(run)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="moe-study", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, function: Callable[[argparse.Namespace], int | None], text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(command=function)
        return command

    for name, function, text in (
        ("prepare", prepare, "Make the corpora of a configuration or sweep ready."),
        ("plan", plan, "List the runs of a sweep or grid, with their state and cost."),
    ):
        command = add(name, function, text)
        help_text = "as for train.py: data=openwebtext, +sweep=NAME, ..."
        command.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help=help_text)
    for name, function, text in (
        ("status", status, "Say what has become of the runs in a folder."),
        ("plots", plots, "Draw the pictures of the finished runs and print the perplexity table."),
    ):
        command = add(name, function, text)
        command.add_argument("runs_dir", nargs="?", default="runs", help="the folder that holds the runs (runs)")
        command.add_argument("--sweep", metavar="NAME", help="only the runs of this sweep, as last launched")
        if function is plots:
            command.add_argument("--out", type=Path, default=Path("plots"), help="where pictures and table go (plots)")
            command.add_argument("--reference", metavar="LABEL", help="point to compare with (the smallest dense one)")
            command.add_argument("--rank-leaking", action="store_true", help="rank points that read later tokens too")
    add_audit_parser(commands)
    add_sparsify_parser(commands)
    return parser


def prepare(options: argparse.Namespace) -> None:
    from moe_study.data import prepare_data
    from moe_study.design.config import IMAGE_RECIPES, to_plain

    runs = _plan(options.overrides).runs
    corpora = {json.dumps(to_plain(run.config.data), sort_keys=True): run.config.data for run in runs}
    for data in corpora.values():
        ready = prepare_data(data, progress=True)
        what = "classes" if data.recipe in IMAGE_RECIPES else "token ids"
        print(f"{data.name} is ready in {data.root}/ ({ready.vocab_size} {what})")


def plan(options: argparse.Namespace) -> int:
    planned = _plan(options.overrides)
    for line in _plan_lines(planned):
        print(line)
    return 1 if planned.invalid and not planned.skip_invalid else 0


def status(options: argparse.Namespace) -> None:
    from moe_study.runs.overview import look, report

    for line in report(look(options.runs_dir, options.sweep)):
        print(line)


def plots(options: argparse.Namespace) -> None:
    from moe_study.analysis.report import draw

    wishes = {"reference": options.reference, "rank_leaking": options.rank_leaking}
    draw([Path(options.runs_dir)], options.out, sweep=options.sweep, **wishes)


def _plan(overrides: Sequence[str]) -> "Plan":
    from moe_study.sweeps.compose import open_composer, project_root
    from moe_study.sweeps.plan import plan_command

    with open_composer() as composer:
        return plan_command(composer, overrides, project_root())


def _plan_lines(planned: "Plan") -> Iterator[str]:
    from moe_study.design.accounting import flops_per_token, num_active_params, num_params

    rows = [("run", "state", "params", "active", "FLOPs/token", "tokens", "")]
    for run in planned.runs:
        config = run.config
        sizes = (num_params(config), num_active_params(config), flops_per_token(config))
        tokens = config.total_steps * config.tokens_per_step
        cells = [_short(number) for number in (*sizes, tokens)]
        label = planned.label(run)
        if run.matched is not None:
            label += f" (matched {run.matched.quantity} to {run.matched.residual:+.2%})"
        rows.append((run.key, run.state.value, *cells, label))  # type: ignore[arg-type]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    for row in rows:
        left = [cell.ljust(width) for cell, width in zip(row[:2], widths[:2], strict=True)]
        right = [cell.rjust(width) for cell, width in zip(row[2:-1], widths[2:], strict=True)]
        yield "  ".join([*left, *right, row[-1]]).rstrip()
    yield ""
    if planned.duplicates or planned.excluded:
        yield f"left out: {planned.excluded} excluded, {planned.duplicates} given twice"
    missing = planned.to_start()
    flops = sum(run.train_flops for run in missing)
    yield f"{len(planned.runs)} run(s), {len(missing)} to train: {_short(flops)} FLOPs{_hours(planned, missing)}"
    if planned.invalid:
        yield f"{len(planned.invalid)} invalid point(s){' (skipped)' if planned.skip_invalid else ''}:"
        yield planned.invalid_listing()


def _hours(planned: "Plan", missing: Sequence["PlannedRun"]) -> str:
    """An estimate for one run at a time, from what the finished runs in the same folder took."""
    from moe_study.runs.overview import flops_per_second

    speed = flops_per_second(planned.runs[0].config.log.runs_dir) if planned.runs else None
    if not speed or not missing:
        return ""
    hours = sum(run.train_flops for run in missing) / speed / 3600
    return f", about {hours:.1f} hours one after the other at the speed of the finished runs"


def _short(number: float) -> str:
    """1234567 as 1.23M."""
    for size, unit in ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return f"{number:.0f}"


if __name__ == "__main__":
    sys.exit(main())
