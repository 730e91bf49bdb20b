"""Costs at equal loss in words that claim no more than the seeds carry, and as rows."""

import math
from collections.abc import Collection, Sequence

import pandas as pd

from moe_study.analysis.comparison import MIN_SEEDS_FOR_INTERVAL
from moe_study.analysis.effects.costs import Cost
from moe_study.analysis.effects.equal_cost import Refused
from moe_study.analysis.effects.equal_loss import Crossing, EqualLoss, Place
from moe_study.analysis.format import percent, with_leak_mark


def equal_loss_sentence(e: EqualLoss, leaking: Collection[str] = ()) -> str:
    """What a curve costs at the loss of a point, in one line."""
    curve = with_leak_mark(e.name, bool(set(e.asked.points) & set(leaking)))
    point = with_leak_mark(e.asked.point, e.asked.point in leaking)
    late = " (asked after results were there)" if e.asked.late else ""
    return f"{_says(e, curve, point)}{_off_curve(e)}{late}"


def share_text(e: EqualLoss) -> str:
    """The share of the point's cost with its interval, in few words; nothing where it is not known."""
    if not e.seeds:
        return ""
    return _estimate(e) if math.isnan(e.low) else f"{_estimate(e)} ({_span(e)})"


def _says(e: EqualLoss, curve: str, point: str) -> str:
    words = e.asked.cost.words
    unknown = f"what share of the {words} of {point} {curve} takes to reach its loss is not known"
    match e.refused:
        case Refused.UNKNOWN:
            none = ", and a dense model has no experts" if e.asked.cost is Cost.EXPERT_FLOPS else ""
            return f"{unknown}: that needs those of {point} and of two points that differ in them{none}"
        case Refused.DISORDER:
            return f"{unknown}: its times do not grow with its FLOPs, so they tell about the machine"
    if not e.seeds:
        return f"{unknown}: they have no finished seed in common"
    takes = f"{curve} takes {_estimate(e)} of the {words} of {point} to reach its loss"
    return f"{takes}{_interval(e)}{_claimed(e)}{_where(e)}{_turns(e)}"


def _estimate(e: EqualLoss) -> str:
    """Where the mean curve crosses, or on which side of it that would be."""
    if e.crossing is Crossing.ON:
        return _share(e.share)
    is_before = e.crossing is Crossing.BEFORE
    return f"less than {_share(e.places[0].share)}" if is_before else f"more than {_share(e.places[-1].share)}"


def _interval(e: EqualLoss) -> str:
    if len(e.seeds) < MIN_SEEDS_FOR_INTERVAL:
        return ", at one seed, so this may be chance"
    return f" ({_span(e)}, {percent(e.level)} interval, {len(e.seeds)} seeds)"


def _span(e: EqualLoss) -> str:
    """The confidence set; where it is open at an end, what is known of the other."""
    if e.low > 0 and math.isfinite(e.high):
        return f"{_share(e.low)} to {_share(e.high)}"
    if e.low > 0:
        return f"at least {_share(e.low)}"
    return f"at most {_share(e.high)}" if math.isfinite(e.high) else "any: these seeds do not tell"


def _claimed(e: EqualLoss) -> str:
    """Where the interval lies next to the share that is claimed."""
    if e.asked.at_most is None or math.isnan(e.low):
        return ""
    claimed = f"{e.asked.at_most:g} that is claimed"
    if e.low > e.asked.at_most:
        return f": more than the {claimed}"
    return f": within the {claimed}" if e.high <= e.asked.at_most else f": the {claimed} is not excluded"


def _where(e: EqualLoss) -> str:
    """The two places that the estimate stands on, and how much it owes to the line between them."""
    if not e.between:
        return ""
    before, after = e.between
    text = f"; on the line from {_labels(before)} to {_labels(after)}"
    if not e.bent:
        return f"{text}, whose bend two points do not tell"
    return f"{text} (on a parabola through a third point at {' or '.join(map(_share, e.bent))})"


def _turns(e: EqualLoss) -> str:
    """That a curve which turns may cross more than once."""
    if e.falls:
        return ""
    text = "; its loss does not fall all along"
    if len(e.pieces) < 2:
        return text
    pieces = ", ".join(f"{_share(low)} to {_share(high)}" for low, high in e.pieces)
    return f"{text}: the interval joins {pieces}"


def _off_curve(e: EqualLoss) -> str:
    return f" [not on the curve, since its cost is not known: {'; '.join(e.off_curve)}]" if e.off_curve else ""


def _labels(place: Place) -> str:
    return " and ".join(place.labels)


def _share(value: float) -> str:
    return f"{value:#.3g}".rstrip(".")


def equal_loss_frame(found: Sequence[EqualLoss], leaking: frozenset[str] = frozenset()) -> pd.DataFrame:
    """One row for each cost at equal loss, those that are not known too, with why in `refused`.

    `low` is 0 and `high` infinite where the set is open; `along` has each place of the curve as share: difference.
    """
    rows = [
        {
            "question": e.asked.question,
            "cost": e.asked.cost.value,
            "point": e.name,
            "to_reach": e.asked.point,
            "at": e.at,
            "crossing": e.crossing.value if e.seeds else "",
            "share": e.share,
            "low": e.low,
            "high": e.high,
            "level": e.level,
            "n": len(e.seeds),
            "at_most": math.nan if e.asked.at_most is None else e.asked.at_most,
            "along": "; ".join(f"{place.share:.6g}: {place.difference.mean:.6g}" for place in e.places),
            "bent": "; ".join(f"{share:.6g}" for share in e.bent),
            "pieces": "; ".join(f"{low:.6g} to {high:.6g}" for low, high in e.pieces),
            "asked_late": e.asked.late,
            "off_curve": "; ".join(e.off_curve),
            "refused": e.refused.value,
            "leaks": e.leaks,
            "sentence": equal_loss_sentence(e, leaking),
        }
        for e in found
    ]
    return pd.DataFrame(rows)
