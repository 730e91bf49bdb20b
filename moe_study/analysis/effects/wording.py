"""Effects, comparisons at equal cost, fronts, power and prices in words that claim no more than the seeds carry."""

from collections.abc import Collection, Iterable, Sequence

import numpy as np

from moe_study.analysis.comparison import Verdict
from moe_study.analysis.effects.contrasts import Effect
from moe_study.analysis.effects.costs import Cost
from moe_study.analysis.effects.equal_cost import EqualCost, Refused
from moe_study.analysis.effects.fronts import Front, FrontPoint
from moe_study.analysis.effects.grids import short_name
from moe_study.analysis.effects.leak_price import LeakPrice
from moe_study.analysis.effects.power import Power
from moe_study.analysis.effects.trends import Trend
from moe_study.analysis.format import count, percent, with_leak_mark
from moe_study.analysis.statistics import MOST_SEEDS, POWER
from moe_study.analysis.wording import UNTESTED, basis, plain_sentence, seeds_it_would_take, span

NATS = "nats per token"
VISIBLE = 5e-5  # nats: what four digits show
SHOWN = 3  # of a list within a sentence
RARELY = 0.05  # of seed resamples: below, that a point is on a front is not worth a word


def effect_sentence(effect: Effect) -> str:
    """What one main effect or interaction shows, in one line; with the cells that its grid lacks."""
    contrast = effect.contrast
    text = _interaction(effect) if effect.is_interaction else _main_effect(effect)
    if contrast.grid.carried:
        text += f" (with its cells go {first_of(list(map(short_name, contrast.grid.carried)), ', ')})"
    if effect.missing:
        text += f" [no point has {first_of(effect.missing)}]"
    return text + _late(contrast.late)


def first_of(words: Sequence[str], between: str = "; ") -> str:
    """The first SHOWN of a list, and how many more there are; labels have commas of their own."""
    more = len(words) - SHOWN
    return between.join([*words[:SHOWN], *([f"{more} more"] if more > 0 else [])])


def _main_effect(effect: Effect) -> str:
    (change,), over = effect.contrast.changes, effect.contrast.over
    after = with_leak_mark(change.after, effect.leaks)
    averaged = f" over {over} pairs of points" if over > 1 else ""
    return plain_sentence(effect, after, change.before, averaged, absent=_no_whole_seed(effect))


def _interaction(effect: Effect) -> str:
    first, second = effect.contrast.changes
    over = f" (over {effect.contrast.over} squares of points)" if effect.contrast.over > 1 else ""
    head = (
        f"{with_leak_mark(effect.name, effect.leaks)}{over}: the change from {first.before} to {first.after}"
    )
    where, than, d = f"at {second.after}", f"at {second.before}", effect.difference
    better = "lower" if d.mean < 0 else "higher"
    match effect.verdict:
        case Verdict.NO_PAIR:
            return _no_whole_seed(effect)
        case Verdict.ONE_PAIR:
            return f"{head} is {better} by {abs(d.mean):.4f} {where} than {than}, at one seed, so this may be chance"
        case Verdict.LOWER | Verdict.HIGHER:
            low, high = sorted((abs(effect.interval.low), abs(effect.interval.high)))
            return (
                f"{head} is {better} by {abs(d.mean):.4f} {NATS} {where} than {than} "
                f"({low:.4f} to {high:.4f}, {basis(effect.interval)})"
            )
        case Verdict.SAME:
            within = f"the same within {effect.margin:g} {NATS}"
            return f"{head} is {within} {where} and {than}: {span(effect.same_interval)}"
        case Verdict.NOT_PLANNED:
            return f"{head}, {where} against {than}: {span(d)}{UNTESTED}"
        case _:
            more = seeds_it_would_take(effect)
            return f"{head} cannot be told apart {where} and {than}: {span(effect.interval)}; {more}"


def _no_whole_seed(effect: Effect) -> str:
    return f"{effect.name} has no seed with a result of every point that it needs ({'; '.join(effect.points)})"


def equal_cost_sentence(c: EqualCost, leaking: Collection[str] = ()) -> str:
    """What a point shows against a family at the point's own cost, in one line."""
    point = with_leak_mark(c.point, c.point in leaking)
    family = with_leak_mark(c.family_name, bool(set(c.asked.points) & set(leaking)))
    cost, said = c.cost, f"{c.cost.words} ({c.cost.text(c.at)})"
    match c.refused:
        case Refused.BEYOND:
            low, high = (cost.text(value) for value in c.span)
            reach = f"is {low}" if low == high else f"goes from {low} to {high}"
            text = f"{point} at {said} is not compared with {family}, which {reach}: nothing is extrapolated"
        case Refused.UNKNOWN:
            text = f"{point} and {family} are not compared: the {cost.words} of one of them are not known"
            text += " (a dense model has no experts)" if cost is Cost.EXPERT_FLOPS else ""
        case Refused.DISORDER:
            text = (
                f"{point} and {family} are not compared at equal {cost.words}: the times of {family} do not grow with "
                "its FLOPs, so they tell about the machine"
            )
        case _:
            absent = f"{point} and {family} share no finished seed, so they cannot be compared"
            text = plain_sentence(c, point, family, f" at equal {said}", absent=absent) + _how(c)
    return text + _late(c.asked.late)


def trend_sentence(t: Trend) -> str:
    """How a difference changes per doubling of size, in one line, with the sizes that it stands on."""
    d = t.difference
    head = f"{with_leak_mark(t.name, t.leaks)}: per doubling of {t.size_words} the difference"
    moves = "falls" if d.mean < 0 else "rises"
    match t.verdict:
        case Verdict.NO_PAIR:
            return f"{t.name} has no seed with a result at every size of {t.asked.over} ({_levels(t)}), so no trend"
        case Verdict.ONE_PAIR:
            text = f"{head} {moves} by {abs(d.mean):.4f} {NATS}, at one seed, so this may be chance"
        case Verdict.LOWER | Verdict.HIGHER:
            low, high = sorted((abs(t.interval.low), abs(t.interval.high)))
            text = f"{head} {moves} by {abs(d.mean):.4f} {NATS} ({low:.4f} to {high:.4f}, {basis(t.interval)})"
        case Verdict.SAME:
            text = f"{head} moves by less than {t.margin:g} {NATS}: {span(t.same_interval)}"
        case Verdict.NOT_PLANNED:
            text = f"{head} moves by {span(d)}{UNTESTED}"
        case _:
            text = f"{head} cannot be told from one that stays: {span(t.interval)}; {seeds_it_would_take(t)}"
    return f"{text}; {_along(t)}{_late(t.asked.late)}"


def _levels(t: Trend) -> str:
    return ", ".join(level for level, _, _ in t.asked.pairs)


def _along(t: Trend) -> str:
    """The difference at the smallest and at the largest size, and how straight it is between them.

    Where what is decided is true of the line and not of the differences themselves, that is said.
    """
    first, last = t.rungs[0], t.rungs[-1]
    text = (
        f"it is {first.difference.mean:+.4f} at {count(first.size)} and {last.difference.mean:+.4f} at "
        f"{count(last.size)}"
    )
    if len(t.rungs) < 3:
        return text
    crooked = ": more than the margin, so this holds of the line and not from size to size"
    return f"{text}, up to {t.off_line:.4f} off the line{crooked if t.decided and t.off_line > t.margin else ''}"


def beyond_sentences(found: Iterable[EqualCost]) -> list[str]:
    """A line for each family and cost by which points lie beyond the family; leaking ones are left out."""
    groups: dict[tuple[Cost, str], list[EqualCost]] = {}
    for one in found:
        if one.refused is Refused.BEYOND and not one.leaks:
            groups.setdefault((one.cost, one.family_name), []).append(one)
    return [
        f"by {cost.words} beyond {family} ({' to '.join(cost.text(value) for value in own[0].span)}), so not compared: "
        f"{first_of([one.point for one in own])}"
        for (cost, family), own in groups.items()
    ]


def _how(c: EqualCost) -> str:
    """Where the family's loss at that cost came from, and what the interval leaves out."""
    if len(c.ends) == 1:
        apart = f", {percent(round(c.stretch, 4))} beyond it" if c.stretch > 0.0005 else ""
        return f"; its twin there is {c.ends[0]}{apart}"
    text = f"; on the line from {c.ends[0]} to {c.ends[1]}"
    if np.isnan(c.bend):
        return f"{text}, whose bend two points do not tell"
    return f"{text}, which may bend by {c.bend:.4f}" if c.bend > VISIBLE else text


def front_sentences(fronts: Sequence[Front]) -> list[str]:
    """A line for each front; costs by which the same points are on it share one."""
    groups: dict[tuple[object, ...], list[Front]] = {}
    for front in fronts:
        if front.on_front:
            key = tuple(map(_with_share, front.on_front)), frozenset(p.label for p in front.apart)
            groups.setdefault(key, []).append(front)
    return [front_sentence(own[0], [front.cost for front in own]) for own in groups.values()]


def front_sentence(front: Front, costs: Sequence[Cost] = ()) -> str:
    """Who is on a front, with the share of seed resamples, cheapest first; and who is on it in some of them."""
    *most, last = (cost.words for cost in costs or (front.cost,))
    by = f"{', '.join(most)} and {last}" if most else last
    off = sorted((p for p in front.points if not p.on_front and p.share >= RARELY), key=lambda p: -p.share)
    near = [_with_share(p) for p in off]
    text = f"by {by}: {'; '.join(map(_with_share, front.on_front))}"
    return text + (f". In some resamples: {first_of(near)}" if near else "")


def _with_share(point: FrontPoint) -> str:
    return point.label if np.isnan(point.share) else f"{point.label} ({point.share:.0%})"


def power_sentence(power: Power) -> str:
    """What these seeds could have seen, and how many a margin needs."""
    who = "a typical pair" if power.is_typical else f"{power.point} against {power.against}"
    tested = f"one of {power.family} hypotheses" if power.family > 1 else "tested alone"
    find, same = (_seeds(n) for n in (power.seeds_to_find, power.seeds_for_sameness))
    return (
        f"{who} ({tested}, {power.n} seeds, noise {power.sd:.4f}): a difference of {power.detectable:.4f} {NATS} would "
        f"be found with a chance of {percent(POWER)}; one of {power.margin:g} takes {find}, sameness within it {same}"
    )


def _seeds(n: int | None) -> str:
    return f"more than {MOST_SEEDS} seeds" if n is None else f"{n} seeds"


def price_sentence(price: LeakPrice) -> str:
    """What reading later tokens is worth to one point, in one line."""
    c, twin = price.comparison, f"its twin {price.twin} ({price.changed})"
    who = with_leak_mark(price.leaking, True)
    if not c.difference.n:
        return f"{who} and {twin} share no finished seed, so the price of reading later tokens is not known"
    if c.difference.n == 1:
        return f"{who}: later tokens are worth {price.nats:+.4f} {NATS} against {twin}, at the one seed they share"
    chosen = c.interval if c.family else c.difference
    low, high = price.ends
    reach = f"{low:.4f} to {high:.4f}, {basis(chosen)}"
    tail = "" if c.family else UNTESTED
    if low <= 0 <= high:
        return f"{who} cannot be told from {twin}: later tokens are worth {price.nats:+.4f} {NATS} ({reach}){tail}"
    verb = "gains" if price.nats > 0 else "loses"
    if price.nats < 0:
        reach = f"{-high:.4f} to {-low:.4f}, {basis(chosen)}"
    return f"{who} {verb} {abs(price.nats):.4f} {NATS} ({reach}) by reading later tokens, against {twin}{tail}"


def _late(late: bool) -> str:
    return " (asked after results were there)" if late else ""
