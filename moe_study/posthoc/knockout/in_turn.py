"""Runs asked one after the other; one that cannot be is left out with its sentence."""

import time
from collections.abc import Callable
from typing import Any, TypeVar

import pandas as pd

from moe_study.analysis.format import duration
from moe_study.analysis.frame import each
from moe_study.errors import StudyError
from moe_study.runs.folder import RunFolder

Found = TypeVar("Found")


def ask_in_turn(
    runs: pd.DataFrame, ask: Callable[[RunFolder, Any], Found], done: str, say: Callable[[str], None]
) -> tuple[list[tuple[Any, Found]], list[str]]:
    """(rows of a frame with what `ask` finds in their folders; a sentence for each run left out).

    A line for each goes through `say`: that it is `done` ("asked"), and in what time.
    """
    found: list[tuple[Any, Found]] = []
    left_out = []
    for place, run in enumerate(each(runs), start=1):
        name, started = f"{run.label}, seed {run.seed:g} ({run.key})", time.perf_counter()
        try:
            found.append((run, ask(RunFolder(run.folder), run)))
            outcome = f"{done} in {duration(time.perf_counter() - started)}"
        except StudyError as error:
            left_out.append(f"{name}: {error}")
            outcome = "left out"
        say(f"[{place}/{len(runs)}] {name}: {outcome}")
    return found, left_out
