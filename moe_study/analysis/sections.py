"""What a Study says beyond its comparisons, in a few lines for each section, and as rows for files.

A section that has nothing to say has no heading. What was planned stands with the answers; here stand descriptions, and
the points that read later tokens stand last, with their mark.
"""

from collections.abc import Callable, Iterator, Sequence

import pandas as pd

from moe_study.analysis.absent import without
from moe_study.analysis.effects.costs import Cost
from moe_study.analysis.effects.equal_loss_wording import equal_loss_frame, equal_loss_sentence
from moe_study.analysis.effects.grids import MOST_POINTS
from moe_study.analysis.effects.rows import (
    effects_frame,
    equal_cost_frame,
    leak_price_frame,
    pareto_frame,
    power_frame,
    trends_frame,
)
from moe_study.analysis.effects.wording import (
    beyond_sentences,
    effect_sentence,
    equal_cost_sentence,
    first_of,
    front_sentences,
    power_sentence,
    price_sentence,
)
from moe_study.analysis.study import Part, Study
from moe_study.analysis.wording import UNTESTED

SHOWN = 4  # lines of a section; the files have all
ORDER = (Cost.FLOPS, Cost.ACTIVE_PARAMS, Cost.TOTAL_PARAMS, Cost.SECONDS)  # of what is shown
DIFFERENCE = ["verdict", "mean", "low", "high", "n"]
EFFECTS = ["kind", "effect", "before", "after", "at_before", "at_after", *DIFFERENCE, "over", "missing", "leaks"]
EQUAL_COST = ["cost", "point", "against", "at", "between", *DIFFERENCE, "bend", "refused", "leaks"]
EQUAL_LOSS = ["cost", "point", "to_reach", "share", "low", "high", "n", "at_most", "along", "bent", "refused", "leaks"]
TRENDS = ["point", "against", "by", "along", *DIFFERENCE, "off_line", "leaks"]
PARETO = ["cost", "point", "value", "loss", "loss_low", "loss_high", "on_front", "share", "beaten_by", "standing"]
POWER = ["point", "against", "n", "sd", "margin", "detectable", "seeds_to_find", "seeds_for_sameness"]
LEAK_PRICE = ["leaking", "twin", "changed", "nats", "low", "high", "n", "tested"]


def sections(study: Study) -> Iterator[str]:
    """The lines of every section, headings first, and indented what stands under them."""
    for heading, lines in SECTIONS.items():
        found = [(part, line) for part in study.parts for line in lines(part)]
        if found:
            yield f"{heading}:"
            for part, line in found:
                where = f"[{part.name}] " if part.name else ""
                yield f"  {where}{line.replace(UNTESTED, '')}"  # the heading says so


def section_tables(part: Part) -> Iterator[tuple[str, pd.DataFrame, list[str]]]:
    """(name, rows, the columns that people read) of every table of a part that has rows."""
    for name, frame, columns in (
        ("effects", effects_frame([*part.effects, *part.other_effects]), EFFECTS),
        ("equal_cost", equal_cost_frame([*part.equal_costs, *part.other_equal_costs], part.leaking), EQUAL_COST),
        ("equal_loss", equal_loss_frame(part.reaches, part.leaking), EQUAL_LOSS),
        ("trends", trends_frame(part.trends), TRENDS),
        ("pareto", pareto_frame(part.fronts), PARETO),
        ("power", power_frame(part.powers), POWER),
        ("leak_price", leak_price_frame(part.leak_prices), LEAK_PRICE),
    ):
        if len(frame):
            yield name, frame, columns


def _effects(part: Part) -> list[str]:
    """The largest main effects and the largest interactions."""
    if len(part.losses) > MOST_POINTS:
        return [f"not looked for among more than {MOST_POINTS} points; compare: in the sweep file may ask for effects"]
    known = [effect for effect in part.other_effects if effect.difference.n]
    known.sort(key=lambda effect: (effect.leaks, -abs(effect.difference.mean)))
    shown = [
        *[effect for effect in known if not effect.is_interaction][:SHOWN],
        *[effect for effect in known if effect.is_interaction][: SHOWN // 2],
    ]
    return [*map(effect_sentence, shown), *_more(len(known) - len(shown), "effects.csv")]


def _equal_costs(part: Part) -> list[str]:
    """A line for each point and family between two of whose points it lies, at the first cost in ORDER at which it
    does (one that has a twin of its cost is compared with it, and stands in the file alone); then who lies beyond."""
    between = [one for one in part.other_equal_costs if one.difference.n and len(one.ends) > 1]
    between.sort(key=lambda one: ORDER.index(one.cost))
    first = {(one.point, one.asked.points): one for one in reversed(between)}.values()
    shown = sorted(first, key=lambda one: (one.leaks, one.difference.mean))
    lines = _first([equal_cost_sentence(one, part.leaking) for one in shown], "equal_cost.csv")
    return [*lines, *beyond_sentences(part.other_equal_costs)[: SHOWN // 2]]


def _equal_losses(part: Part) -> list[str]:
    """All that the sweep file asks for, each with its question."""
    lines = []
    for one in part.reaches:
        said = f"{equal_loss_sentence(one, part.leaking)}{without(one.asked.labels, part.absent)}"
        lines.append(f"{said} | {one.asked.question}" if one.asked.question else said)
    return lines


def _fronts(part: Part) -> list[str]:
    lines = front_sentences(part.fronts)
    apart = list(dict.fromkeys(p.label for front in part.fronts for p in front.apart))
    named = [part.marked(label) for label in apart]
    return [*lines, *([f"set apart: {first_of(named)}"] if lines and named else [])]


def _powers(part: Part) -> list[str]:
    return [power_sentence(power) for power in part.powers if power.is_typical]


def _prices(part: Part) -> list[str]:
    return _first([price_sentence(price) for price in part.leak_prices], "leak_price.csv")


def _first(lines: Sequence[str], file: str) -> list[str]:
    return [*lines[:SHOWN], *_more(len(lines) - SHOWN, file)]


def _more(count: int, file: str) -> list[str]:
    return [f"and {count} more, in {file}"] if count > 0 else []


SECTIONS: dict[str, Callable[[Part], list[str]]] = {
    "Effects of crossed settings, described and not tested": _effects,
    "At equal cost, described and not tested": _equal_costs,
    "Cost at equal loss, described with intervals of 95%, each alone, and not tested": _equal_losses,
    "Pareto fronts (in brackets: share of seed resamples in which a point is on it)": _fronts,
    "The price of reading later tokens": _prices,
    "What this study could have seen": _powers,
}
