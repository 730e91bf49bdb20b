"""Which comparisons a set of runs is there to answer: the reference, the dense twins, one change at a time."""

from collections.abc import Iterable
from typing import Any

import pandas as pd

from moe_study.analysis.frame import done, each
from moe_study.analysis.records import records
from moe_study.design.differences import differing
from moe_study.design.identity import is_of_point
from moe_study.errors import StudyError

TWIN_TOLERANCE = 0.05  # a dense point whose parameters are this close is a point's twin

Pair = tuple[str, str]  # labels of a point and of what it is compared with
Settings = dict[str, dict[str, Any]]  # of each point, by label: the settings that make it


def ranked(frame: pd.DataFrame, rank_leaking: bool = False) -> pd.DataFrame:
    """The finished runs whose losses may be ranked: those whose routing reads no later token."""
    runs = done(frame)
    return runs if rank_leaking else runs[~runs["leaks"].astype(bool)]


def default_reference(frame: pd.DataFrame) -> str:
    """The dense point with the fewest parameters; without one, the ranked point with the fewest."""
    frame = frame[["state", "leaks", "routing.selection", "num_params", "label"]]  # of a hundred columns
    points = ranked(frame)
    dense = points[points["routing.selection"] == "dense"]
    chosen = dense if len(dense) else points if len(points) else done(frame)
    if not len(chosen):
        raise StudyError("no run is done yet; there is nothing to compare")
    return str(chosen.sort_values(["num_params", "label"])["label"].iloc[0])


def default_questions(frame: pd.DataFrame, reference: str, rank_leaking: bool = False) -> dict[str, list[Pair]]:
    """Pairs of labels by question, each pair once, points with the lower mean loss first.

    Every point against the reference; every mixture against its dense twins, those of equal active parameters
    (as executed) or equal total ones (within TWIN_TOLERANCE); and points that differ in one setting only.
    """
    runs = ranked(frame, rank_leaking)
    by_loss = runs.groupby("label")["validation_loss"].mean().sort_values(kind="stable").index
    points = runs[~runs["label"].duplicated()].set_index("label", drop=False).loc[by_loss]
    asked = {
        f"Against {reference}": [(point, reference) for point in points["label"]],
        "Against the dense twin of equal active or total parameters": _twins(points),
        "One setting apart": _single_changes(points),
    }
    seen: set[frozenset[str]] = set()
    return {question: found for question, pairs in asked.items() if (found := _new_pairs(pairs, seen))}


def _twins(points: pd.DataFrame) -> list[Pair]:
    points = points[["label", "routing.selection", "executed_active_params", "num_params"]]
    dense = points[points["routing.selection"] == "dense"]
    pairs = []
    for point in each(points[points["routing.selection"] != "dense"]):
        for size in (point.executed_active_params, point.num_params):
            gap = (dense["num_params"] / size - 1).abs()
            if len(gap) and gap.min() <= TWIN_TOLERANCE:
                pairs.append((point.label, str(gap.idxmin())))
    return pairs


def _single_changes(points: pd.DataFrame) -> list[Pair]:
    names, settings = list(points["label"]), settings_of(points)
    return [
        (point, other)
        for place, point in enumerate(names)
        for other in names[place + 1 :]
        if len(differing_settings(settings, point, other)) == 1
    ]


def settings_of(runs: pd.DataFrame) -> Settings:
    """The settings of every point, without what is not part of it."""
    names = [str(column) for column in runs if is_of_point(str(column))]
    points = runs.loc[~runs["label"].duplicated(), ["label", *names]]
    return {row.pop("label"): row for row in records(points)}


def differing_settings(settings: Settings, point: str, other: str) -> tuple[str, ...]:
    """The settings in which two points differ by themselves; what follows another setting is not counted beside it."""
    return differing(settings[point], settings[other], tuple(settings[point]))


def _new_pairs(pairs: Iterable[Pair], seen: set[frozenset[str]]) -> list[Pair]:
    """Without pairs of a point with itself and those in `seen`, whichever way round; adds the rest to it."""
    found = []
    for pair in pairs:
        if pair[0] != pair[1] and frozenset(pair) not in seen:
            seen.add(frozenset(pair))
            found.append(pair)
    return found
