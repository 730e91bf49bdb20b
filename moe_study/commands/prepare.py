"""`moe-study prepare`: make the corpora of a configuration or sweep ready."""

import argparse
import json
from typing import Any

from moe_study.commands.plan import add_overrides
from moe_study.design.config import DataConfig

DESCRIPTION = "Make the corpora of a configuration or sweep ready."


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Add `prepare` to the sub-commands of moe-study."""
    parser: argparse.ArgumentParser = commands.add_parser("prepare", help=DESCRIPTION, description=DESCRIPTION)
    add_overrides(parser)
    parser.set_defaults(command=run)
    return parser


def run(options: argparse.Namespace) -> None:
    """Prepare each corpus once; say where it is, what it was made of, and what of it is of no use to these runs."""
    from moe_study.data import PreparedCorpus, prepare_data, summary
    from moe_study.design.plain import to_plain
    from moe_study.sweeps.plan import plan_overrides

    plan = plan_overrides(options.overrides)
    plan.check()
    corpora: dict[str, tuple[DataConfig, set[int]]] = {}  # with the contexts that they are used at
    for planned in plan.runs:
        data = planned.config.data
        _, contexts = corpora.setdefault(json.dumps(to_plain(data), sort_keys=True), (data, set()))
        contexts.add(planned.config.model.context)
    for data, contexts in corpora.values():
        ready = prepare_data(data, progress=True)
        if isinstance(ready, PreparedCorpus):
            for line in summary(ready, sorted(contexts)):
                print(line)
        what = "token ids" if isinstance(ready, PreparedCorpus) else "classes"
        print(f"{data.name} is ready in {data.root}/ ({ready.vocab_size} {what})")
