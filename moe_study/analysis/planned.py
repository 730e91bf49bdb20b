"""What a sweep file planned to test (`compare:`), as labels of the points that have been trained."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

import pandas as pd

from moe_study.analysis.comparison import Also, Asked
from moe_study.analysis.effects.contrasts import Contrast, contrasts_of, pair_identity
from moe_study.analysis.effects.costs import Cost
from moe_study.analysis.effects.equal_cost import AskedAtCost
from moe_study.analysis.effects.equal_loss import AskedReach
from moe_study.analysis.effects.families import name_of
from moe_study.analysis.effects.grids import Factor, Grid
from moe_study.analysis.effects.trends import AskedTrend
from moe_study.analysis.frame import done
from moe_study.runs.members import Members, PlannedComparison, PlannedEffect, PlannedTrend
from moe_study.runs.reaches import PlannedReach

Request = Asked | Contrast | AskedAtCost | AskedTrend  # what a report can be asked to test
Names = tuple[tuple[str, str], ...]  # (key, label) of every run that has a label, those that are done first


def planned_requests(members: Members, frame: pd.DataFrame) -> list[Request]:
    """All that is planned of the runs in `frame`: pairs, points at equal cost, effects, and trends.

    A number is tested once: an effect that is the difference of one pair is left to that pair where it is planned, too,
    and lends it its question; the pair knows by `also` that it is meant by both.
    """
    names = _names_of(frame)
    requests = _planned_pairs(members, names)
    places = {
        pair_identity(one.point, one.against): place for place, one in enumerate(requests) if isinstance(one, Asked)
    }
    for contrast in (one for planned in members.effects for one in _contrasts(planned, names)):
        place = places.setdefault(contrast.identity, len(requests))
        if place == len(requests):
            requests.append(contrast)
        else:
            requests[place] = _meant_by_both(requests[place], contrast)
    return [*requests, *(_trend(planned, names) for planned in members.trends)]


def _meant_by_both(kept: Request, same: Contrast) -> Request:
    """The request that stays, where an effect is the same number or its opposite."""
    first, weight = same.weights[0]
    if isinstance(kept, Contrast):
        sign = 1 if dict(kept.weights)[first] * weight > 0 else -1
    else:
        assert isinstance(kept, Asked)  # nothing else has the identity of a contrast
        sign = 1 if (kept.point == first) == (weight > 0) else -1
    return replace(kept, question=kept.question or same.question, also=(*kept.also, Also(same.written, sign)))


def _planned_pairs(members: Members, names: Names) -> list[Request]:
    """Each pair of points once, in the sweep file's order.

    Launches with seeds on the command line add to the same points: each launch tells which runs it meant, and the
    label of those is the side's. A side of which nothing is known yet goes by what the sweep file calls it.
    """
    current = {asked.identity: place for place, asked in enumerate(members.comparisons)}
    meant = [asked for launch in members.current for asked in launch.comparisons]
    found: dict[tuple[str, str, str], tuple[int, Request]] = {}
    for asked in meant:
        place = current.get(asked.identity)
        if place is not None:
            one = _at_cost(members.comparisons[place], names) if asked.at else _asked(asked, names)
            sides = (one.point, " ".join(one.points)) if isinstance(one, AskedAtCost) else (one.point, one.against)
            first, kept = found.setdefault((*sides, asked.at), (place, one))
            if one.written not in _spellings(kept):
                found[*sides, asked.at] = first, replace(kept, also=(*kept.also, Also(one.written, 1)))
    return [one for _, one in sorted(found.values(), key=lambda item: item[0])]


def _spellings(request: Request) -> list[str]:
    """How the sweep file has a request, each way that it does."""
    return [request.written, *(other.written for other in request.also)]


def _asked(asked: PlannedComparison, names: Names) -> Asked:
    left, right = (
        _label(names, keys) or text for keys, text in ((asked.left_runs, asked.left), (asked.right_runs, asked.right))
    )
    return Asked(left, right, asked.why, asked.margin, asked.late, f"{asked.left} against {asked.right}")


def _at_cost(asked: PlannedComparison, names: Names) -> AskedAtCost:
    """A point at equal cost to all points of the right side that have a run; the file's text where none has."""
    left = _label(names, asked.left_runs) or asked.left
    points = tuple(_labels(names, asked.right_runs)) or (asked.right,)
    written = f"{asked.left} against {asked.right} at {asked.at}"
    name = name_of(points, {label for _, label in names} - set(points))
    return AskedAtCost(Cost(asked.at), left, name, points, asked.why, asked.margin, asked.late, written)


def _contrasts(planned: PlannedEffect, names: Names) -> Iterator[Contrast]:
    """The main effects of one setting, or the interactions of two, over the cells that were planned."""
    factors = tuple(Factor((name,), levels) for name, levels in zip(planned.factors, planned.levels, strict=True))
    cells = {
        (cell.block, *cell.levels): _label(names, cell.runs)
        or f"{planned.text} at {' '.join(cell.levels)} {cell.block}"
        for cell in planned.cells
    }
    for contrast in contrasts_of(Grid(factors, cells, planned.carried)):
        written = f"{planned.text}: {' x '.join(change.after for change in contrast.changes)}"
        yield replace(contrast, question=planned.why, margin=planned.margin, late=planned.late, written=written)


def _trend(planned: PlannedTrend, names: Names) -> AskedTrend:
    pairs = tuple(
        (
            rung.level,
            _label(names, rung.left_runs) or f"{planned.left} at {rung.level}",
            _label(names, rung.right_runs) or f"{planned.right} at {rung.level}",
        )
        for rung in planned.rungs
    )
    return AskedTrend(
        planned.left,
        planned.right,
        planned.over,
        planned.by,
        pairs,
        planned.why,
        planned.margin,
        planned.late,
        planned.text,
    )


def planned_reaches(members: Members, frame: pd.DataFrame) -> list[AskedReach]:
    """The costs at equal loss that are planned of the runs in `frame`; they are described, so no request to test."""
    names = _names_of(frame)
    return [_reach(planned, names) for planned in members.reaches]


def _reach(planned: PlannedReach, names: Names) -> AskedReach:
    """Of all points of the curve that have a run; what nothing is known of goes by what the sweep file says."""
    points = tuple(_labels(names, planned.curve_runs)) or (f"the curve of {planned.text}",)
    return AskedReach(
        Cost(planned.by),
        points,
        _label(names, planned.point_runs) or f"the point of {planned.text}",
        planned.why,
        planned.at_most,
        planned.late,
        planned.text,
    )


def _names_of(frame: pd.DataFrame) -> Names:
    known = frame.loc[frame["point"].notna() & (frame["label"] != frame["key"]), ["key", "label", "state"]]
    ordered = pd.concat([done(known), known])
    return tuple(zip(map(str, ordered["key"]), map(str, ordered["label"]), strict=True))


def _label(names: Names, keys: Iterable[str]) -> str | None:
    """What the point of these runs is called; one that is done speaks first."""
    return next(iter(_labels(names, keys)), None)


def _labels(names: Names, keys: Iterable[str]) -> list[str]:
    """What the points of these runs are called, those that are done first."""
    wanted = set(keys)
    return list(dict.fromkeys(label for key, label in names if key in wanted))
