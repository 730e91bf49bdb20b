"""`moe-study plots`: what the finished runs in a folder decide, their table, and pictures."""

import argparse
from pathlib import Path
from typing import Any

from moe_study.commands.arguments import add_comparing, add_runs
from moe_study.commands.places import check_out_folder
from moe_study.commands.publishing import add_wandb, publish_if_asked

DESCRIPTION = "Print what the finished runs decide and their table, and draw the pictures."


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Add `plots` to the sub-commands of moe-study."""
    parser: argparse.ArgumentParser = commands.add_parser("plots", help=DESCRIPTION, description=DESCRIPTION)
    add_runs(parser)
    parser.add_argument("--out", type=Path, default=Path("plots"), help="where pictures and table go (plots)")
    add_comparing(parser)
    add_wandb(parser)
    parser.set_defaults(command=run)
    return parser


def run(options: argparse.Namespace) -> None:
    """Draw, write and print."""
    from moe_study.analysis.report import draw

    check_out_folder(options.out)
    wishes = {"reference": options.reference, "rank_leaking": options.rank_leaking, "margin": options.margin}
    written = draw([Path(options.runs_dir)], options.out, sweep=options.sweep, **wishes)
    publish_if_asked(options, written, options.out, "tables")
