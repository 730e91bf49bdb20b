"""Finished runs of which log.trace_every can keep nothing any more."""

from collections.abc import Iterable

from moe_study.design.config import RunConfig
from moe_study.design.routing import mixture_layers
from moe_study.errors import StudyError
from moe_study.runs.folder import RunFolder, State


def about_untraced(configs: Iterable[RunConfig]) -> str | None:
    """A sentence on the finished runs of `configs` that should have kept routes and have none; None where all have."""
    folders = [RunFolder.of(config) for config in configs if _wanted(config)]
    without = [folder for folder in folders if not folder.routes_folder.exists() and _is_done(folder)]
    if not without:
        return None
    runs = "1 run is done and has" if len(without) == 1 else f"{len(without)} runs are done and have"
    return (
        f"log.trace_every has nothing to do where a run is done: {runs} kept no routes, which is done during training;"
        f" to train again, remove what is there first (moe-study remove --results {without[0].path}"
        f"{' ...' if len(without) > 1 else ''})"
    )


def _wanted(config: RunConfig) -> bool:
    return config.log.trace_every is not None and bool(mixture_layers(config.routing, config.model.layers))


def _is_done(folder: RunFolder) -> bool:
    try:
        return folder.state() is State.DONE
    except StudyError:  # damaged, which others say
        return False
