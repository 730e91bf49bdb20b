"""`moe-study train`: what python train.py does in a clone, for an installed package."""

import argparse
from typing import Any

DESCRIPTION = "Train one run, or with -m a sweep: as python train.py in a clone."


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Add `train` to the sub-commands of moe-study; its options, --help among them, are those of Hydra."""
    parser: argparse.ArgumentParser = commands.add_parser("train", help=DESCRIPTION, add_help=False, prefix_chars="\0")
    parser.add_argument("arguments", nargs="*")
    parser.set_defaults(command=run)
    return parser


def run(options: argparse.Namespace) -> int:
    """Hand everything over; the exit code."""
    from moe_study.launch import entry

    return entry.main(arguments=options.arguments)
