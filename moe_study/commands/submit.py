"""`moe-study submit`: send a sweep to SLURM and return."""

import argparse
from typing import Any

DESCRIPTION = "Send what is missing of a sweep to SLURM and return: train -m hydra/launcher=slurm, without waiting."
SETTINGS = ("hydra/launcher=slurm", "hydra.launcher.wait=false")


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Add `submit` to the sub-commands of moe-study."""
    parser: argparse.ArgumentParser = commands.add_parser("submit", help=DESCRIPTION, description=DESCRIPTION)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="as for train.py: +sweep=NAME, ...")
    parser.set_defaults(command=run)
    return parser


def run(options: argparse.Namespace) -> int:
    """Submit; the exit code."""
    from moe_study.launch import entry

    return entry.main(arguments=["-m", *SETTINGS, *options.overrides])
