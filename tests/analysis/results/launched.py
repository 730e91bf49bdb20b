"""Planted runs of a sweep that was launched with comparisons: what is kept, told and replicated."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from moe_study.analysis.results import keep, measures
from moe_study.analysis.study import Part
from moe_study.analysis.tables_out import to_csv
from moe_study.analysis.wording import to_frame
from moe_study.runs.members import Launch, PlannedComparison, record_launch
from moe_study.sweeps.claims import Claims
from tests.analysis import planted

SWEEP = "mine/own@cpu"
MARGIN = 0.02
PLACES = {"dense": 0, "one": 2, "two": 3, "frozen": 4, "sequence": 5}  # of points in planted.FIRST_LOOK
NEVER_TRAINED = ("0" * 16,)  # of a side that no point is called


def launch(
    root: Path,
    claims: Claims,
    *,
    seeds: Sequence[int] = range(5),
    effects: Sequence[float] = planted.EFFECTS,
    overrides: Sequence[str] = (),
    rng: int = 0,
) -> Path:
    """Plant runs in `root`, launched as SWEEP to compare the pairs that `claims` are of; `root`."""
    keys = [folder.name for folder in planted.plant(root, effects=effects, seeds=seeds, rng=rng)]
    n = len(seeds)

    def runs(side: str) -> tuple[str, ...]:
        return tuple(keys[n * PLACES[side] : n * (PLACES[side] + 1)]) if side in PLACES else NEVER_TRAINED

    pairs = dict.fromkeys((claim.left, claim.right) for claim in claims.claims)
    comparisons = tuple(PlannedComparison(*pair, *map(runs, pair), margin=MARGIN) for pair in pairs)
    record_launch(root, SWEEP, Launch(tuple(overrides), tuple(keys), comparisons, dict.fromkeys(keys, "a")))
    return root


def keep_unpictured(runs: Path, sweep: str, out: Path, claims: Claims, drawn: str = "") -> None:
    """Write out/SWEEP without its pictures, which take most of the time, but for that of the measure `drawn`."""
    unpictured = [one if one.name == drawn else replace(one, draw=None) for one in measures.MEASURES]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keep, "_pictures", lambda part, out: iter(()))
        patch.setattr(measures, "MEASURES", unpictured)
        keep.keep(runs, sweep, out, claims)


def comparisons_csv(part: Part) -> str:
    """What comparisons.csv of a kept part has to hold."""
    return to_csv(to_frame([*part.comparisons, *part.others], part.absent, part.leaking)).decode()
