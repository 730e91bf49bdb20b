"""What was tested, the other way round: where a sweep file asks for a number and for its opposite, one is tested."""

from dataclasses import replace
from typing import TypeVar

from moe_study.analysis.comparison import Asked, Comparison, OneTested, Tested
from moe_study.analysis.effects.contrasts import Change, Contrast, Effect
from moe_study.analysis.statistics import Interval

OneInterval = TypeVar("OneInterval", bound=Interval)


def turned(tested: OneTested) -> OneTested:
    """The same test of the second minus the first: every number has the other sign, and every p value is the same."""
    intervals = {name: _opposite(getattr(tested, name)) for name in ("difference", "interval", "same_interval")}
    return replace(tested, **intervals, **_asked(tested))


def _opposite(interval: OneInterval) -> OneInterval:
    return replace(interval, mean=-interval.mean, low=-interval.high, high=-interval.low)


def _asked(tested: Tested) -> dict[str, Asked | Contrast]:
    """What had been asked, turned: points change places, and of an effect the values of its first setting do."""
    if isinstance(tested, Comparison):
        return {"asked": replace(tested.asked, point=tested.against, against=tested.point)}
    if isinstance(tested, Effect):
        contrast = tested.contrast
        first, *rest = contrast.changes
        weights = tuple((label, -weight) for label, weight in contrast.weights)
        changes = (Change(first.factor, first.after, first.before), *rest)
        return {"contrast": replace(contrast, changes=changes, weights=weights)}
    return {}
