"""On which seeds points are ranked, so that no point gains by runs that it lacks.

A point whose worse seeds diverged would stand first if each point were judged by the seeds it has. So the seeds that
at least half of the points have finished are those of the ranking; a point that has all of them is judged by them
and no others, and a point that lacks one is set apart.
"""

import pandas as pd

from moe_study.analysis.frame import done


def ranking_seeds(frame: pd.DataFrame) -> frozenset[int]:
    """The seeds that at least half of the points with a result have finished."""
    finished = done(frame).drop_duplicates(["label", "seed"])
    points = finished["label"].nunique()
    counts = finished.groupby("seed")["label"].nunique()
    return frozenset(int(seed) for seed in counts[2 * counts >= points].index)


def runs_in_table(frame: pd.DataFrame, seeds: frozenset[int]) -> tuple[pd.DataFrame, frozenset[str]]:
    """The finished runs that stand for each point, and the labels of the points that have all of `seeds`.

    Complete points are represented by `seeds`; the others by all seeds they have.
    """
    runs = done(frame)
    have = {str(label): frozenset(map(int, own)) for label, own in runs.groupby("label")["seed"]}
    complete = frozenset(label for label, own in have.items() if seeds and own >= seeds)
    return runs[~runs["label"].isin(complete) | runs["seed"].isin(seeds)], complete
