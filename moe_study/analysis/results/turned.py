"""What was tested, the other way round: where a sweep file asks for a number and for its opposite, one is tested."""

from dataclasses import replace
from typing import Any, TypeVar

from moe_study.analysis.comparison import Comparison, Tested
from moe_study.analysis.effects.contrasts import Change, Contrast, Effect
from moe_study.analysis.statistics import Interval

OneInterval = TypeVar("OneInterval", bound=Interval)


def turned(tested: Tested) -> Tested:
    """The same test of the second minus the first: every number has the other sign, and every p value is the same."""
    names = ("difference", "interval", "same_interval")
    opposite: dict[str, Any] = {name: _opposite(getattr(tested, name)) for name in names}
    if isinstance(tested, Comparison):
        return replace(tested, **opposite, asked=replace(tested.asked, point=tested.against, against=tested.point))
    if isinstance(tested, Effect):
        return replace(tested, **opposite, contrast=_turned_contrast(tested.contrast))
    return replace(tested, **opposite)


def _opposite(interval: OneInterval) -> OneInterval:
    return replace(interval, mean=-interval.mean, low=-interval.high, high=-interval.low)


def _turned_contrast(contrast: Contrast) -> Contrast:
    """Of the first setting that changes, the values change places."""
    first, *rest = contrast.changes
    weights = tuple((label, -weight) for label, weight in contrast.weights)
    return replace(contrast, changes=(Change(first.factor, first.after, first.before), *rest), weights=weights)
