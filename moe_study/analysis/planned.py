"""The comparisons that a sweep file planned (`compare:`), as labels of the points that have been trained."""

from collections.abc import Iterable

import pandas as pd

from moe_study.analysis.comparison import Asked
from moe_study.analysis.effects.contrasts import Contrast
from moe_study.analysis.effects.equal_cost import AskedAtCost
from moe_study.analysis.frame import done
from moe_study.runs.members import Members, PlannedComparison

Request = Asked | Contrast | AskedAtCost  # what a report can be asked to test


def planned_requests(members: Members, frame: pd.DataFrame) -> list[Request]:
    """All that is planned of the runs in `frame`."""
    return [*planned_comparisons(members, frame)]


def planned_comparisons(members: Members, frame: pd.DataFrame) -> list[Asked]:
    """What is `planned` of the runs in `frame`, each pair of points once, in the sweep file's order.

    Launches with seeds on the command line add to the same points: each launch tells which runs it meant, and the label
    of those is the side's. A side of which nothing is known yet goes by what
    the sweep file calls it.
    """
    current = {(asked.left, asked.right): place for place, asked in enumerate(members.comparisons)}
    meant = [asked for launch in members.current for asked in launch.comparisons]
    found: dict[tuple[str, str], tuple[int, Asked]] = {}
    for asked in meant:
        place = current.get((asked.left, asked.right))
        if place is not None:
            one = _asked(asked, frame)
            found.setdefault((one.point, one.against), (place, one))
    return [one for _, one in sorted(found.values(), key=lambda item: item[0])]


def _asked(asked: PlannedComparison, frame: pd.DataFrame) -> Asked:
    left, right = (
        _label(frame, keys) or text for keys, text in ((asked.left_runs, asked.left), (asked.right_runs, asked.right))
    )
    return Asked(left, right, asked.why, asked.margin, asked.late, f"{asked.left} against {asked.right}")


def _label(frame: pd.DataFrame, keys: Iterable[str]) -> str | None:
    """What `frame` calls the point of these runs; one that is done speaks first."""
    own = frame[frame["key"].isin(list(keys)) & frame["point"].notna() & (frame["label"] != frame["key"])]
    known = pd.concat([done(own), own])
    return str(known["label"].iloc[0]) if len(known) else None
