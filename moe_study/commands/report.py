"""`moe-study report`: a whole study as one HTML file."""

import argparse
from pathlib import Path
from typing import Any

from moe_study.commands.arguments import add_comparing, add_runs
from moe_study.commands.places import check_out_file
from moe_study.commands.publishing import add_wandb, publish_if_asked

DESCRIPTION = """\
Write what the finished runs say into one HTML file, which opens from disk without a network: the question and its
answers, tables to sort, plots to zoom, what experts follow, texts coloured by expert, every configuration, and what is
missing. It shows what `moe-study specialise` and `moe-study knockout` found, and computes nothing with a model.

  moe-study report --sweep first_look                      plots/report.html
  moe-study report --sweep first_look --out mine.html
"""


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Add `report` to the sub-commands of moe-study."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "report",
        help="Write a whole study into one HTML file that opens from disk.",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_runs(parser)
    default = Path("plots", "report.html")
    parser.add_argument("--out", type=Path, default=default, metavar="FILE", help=f"the file to write ({default})")
    add_comparing(parser)
    add_wandb(parser)
    parser.set_defaults(command=run)
    return parser


def run(options: argparse.Namespace) -> None:
    """Read, write, and say where it lies."""
    from moe_study.analysis.page.page import write_page
    from moe_study.analysis.study import read_study

    check_out_file(options.out, "report.html")
    runs = [Path(options.runs_dir)]
    study = read_study(runs, options.sweep, options.reference, options.rank_leaking, options.margin)
    written = write_page(study, options.out, runs, options.sweep)
    finished = int(study.frame["state"].eq("done").sum())
    size = f"{written.stat().st_size / 1e6:.1f} MB"
    print(f"{written}: {finished} of {len(study.frame)} runs, {size}; open it in a browser")
    publish_if_asked(options, [written], written.parent, "report")
