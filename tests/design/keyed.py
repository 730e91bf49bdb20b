"""Runs that tests of keys and spellings share."""

from typing import Any

from moe_study.design.config import DataConfig, ModelConfig, RunConfig, RunSettings
from moe_study.design.plain import with_values
from moe_study.design.routing import Routing, Selection
from tests.design.points import toy

DENSE_ROUTING = Routing(selection=Selection.DENSE)
DIGITS = RunConfig(
    task="images",
    model=ModelConfig(layers=2, heads=2, width=8, context=16, patch=7),
    data=DataConfig(recipe="digits"),
    run=RunSettings(steps=3),
)


def changed(**values: Any) -> RunConfig:
    """The toy run with settings changed; a dotted name is written with two underscores for each dot."""
    return with_values(toy(), {name.replace("__", "."): value for name, value in values.items()})


def local_files(**options: Any) -> dict[str, Any]:
    return {"data__recipe": "local_files", "data__options": options}


def hub_parquet(**source: Any) -> dict[str, Any]:
    return {"data__recipe": "hub_parquet", "data__options": {"sources": [{"files": ["*.parquet"], **source}]}}
