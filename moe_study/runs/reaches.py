"""What a sweep file asks at equal loss (`reach:` in compare), with the runs that are meant."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class PlannedReach:
    """The cost that a curve of points takes to have the loss of one point, which a sweep file asks for."""

    text: str  # as the sweep file has it, in one line, with the cost
    by: str  # which cost, of members.COSTS
    curve_runs: tuple[str, ...] = ()  # keys, in the order of the file
    point_runs: tuple[str, ...] = ()
    why: str = ""  # the question that it answers
    at_most: float | None = None  # what is claimed, as a share of the point's cost
    late: bool = False  # stated when runs of both sides were done already


def over_launches(asked: PlannedReach, launches: Iterable[Sequence[PlannedReach]]) -> PlannedReach:
    """With the runs that any of the launches meant by it."""
    same = [reach for reaches in launches for reach in reaches if reach.text == asked.text]
    curve, point = (dict.fromkeys(key for own in runs for key in own) for runs in (
        [reach.curve_runs for reach in same], [reach.point_runs for reach in same]
    ))  # fmt: skip
    return replace(asked, curve_runs=tuple(curve), point_runs=tuple(point))


def with_lateness(asked: PlannedReach, earlier: Iterable[PlannedReach], done: Collection[str]) -> PlannedReach:
    """As it was when it was first asked for; else late where both sides have runs among the keys `done`."""
    curve, point = set(asked.curve_runs), set(asked.point_runs)
    for before in earlier:
        if before.by == asked.by and curve & set(before.curve_runs) and point & set(before.point_runs):
            return replace(asked, late=before.late)
    return replace(asked, late=bool(curve & set(done) and point & set(done)))


def without_runs(reach: PlannedReach, keys: Collection[str]) -> PlannedReach:
    """Without the runs of these keys."""
    curve, point = (tuple(key for key in runs if key not in keys) for runs in (reach.curve_runs, reach.point_runs))
    return replace(reach, curve_runs=curve, point_runs=point)
