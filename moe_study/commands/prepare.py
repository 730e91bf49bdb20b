"""`moe-study prepare`: make the corpora of a configuration or sweep ready."""

import argparse
import json
from typing import Any

from moe_study.commands.plan import add_overrides

DESCRIPTION = "Make the corpora of a configuration or sweep ready."


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Add `prepare` to the sub-commands of moe-study."""
    parser: argparse.ArgumentParser = commands.add_parser("prepare", help=DESCRIPTION, description=DESCRIPTION)
    add_overrides(parser)
    parser.set_defaults(command=run)
    return parser


def run(options: argparse.Namespace) -> None:
    """Prepare each corpus once, and say where it is."""
    from moe_study.data import prepare_data
    from moe_study.design.config import IMAGE_RECIPES
    from moe_study.design.plain import to_plain
    from moe_study.sweeps.plan import plan_overrides

    runs = plan_overrides(options.overrides).runs
    corpora = {json.dumps(to_plain(run.config.data), sort_keys=True): run.config.data for run in runs}
    for data in corpora.values():
        ready = prepare_data(data, progress=True)
        what = "classes" if data.recipe in IMAGE_RECIPES else "token ids"
        print(f"{data.name} is ready in {data.root}/ ({ready.vocab_size} {what})")
