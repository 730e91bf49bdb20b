"""Effects, comparisons at equal cost, fronts, power and prices as rows, one DataFrame each, for CSV and pages.

Each has a column `sentence`; those of what can be tested have the columns of comparisons.csv (see wording.to_frame).
"""

from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from moe_study.analysis.absent import AbsentRun
from moe_study.analysis.effects.contrasts import Effect
from moe_study.analysis.effects.equal_cost import EqualCost
from moe_study.analysis.effects.fronts import Front
from moe_study.analysis.effects.leak_price import LeakPrice
from moe_study.analysis.effects.power import Power
from moe_study.analysis.effects.trends import Trend
from moe_study.analysis.effects.wording import (
    effect_sentence,
    equal_cost_sentence,
    power_sentence,
    price_sentence,
    trend_sentence,
)
from moe_study.analysis.wording import tested_columns

COUNTS = ("n", "family", "seeds_needed", "seeds_to_find", "seeds_for_sameness", "over", "seeds")


def effects_frame(effects: Sequence[Effect]) -> pd.DataFrame:
    """One row for each main effect or interaction; `before` and `after` are levels, those of an interaction's second
    factor stand in `at_before` and `at_after`."""
    return _frame(_effect(effect) for effect in effects)


def _effect(effect: Effect) -> dict[str, Any]:
    first, *second = effect.contrast.changes
    return {
        "question": effect.contrast.question,
        "kind": "interaction" if effect.is_interaction else "main effect",
        "effect": effect.name,
        "before": first.before,
        "after": first.after,
        "at_before": second[0].before if second else "",
        "at_after": second[0].after if second else "",
        "over": effect.contrast.over,
        **tested_columns(effect, effect.contrast.late),
        "missing": "; ".join(effect.missing),
        "points": "; ".join(effect.points),
        "leaks": effect.leaks,
        "sentence": effect_sentence(effect),
    }


def equal_cost_frame(found: Sequence[EqualCost], leaking: frozenset[str] = frozenset()) -> pd.DataFrame:
    """One row for each comparison at equal cost, those that are refused too, with why in `refused`."""
    return _frame(_equal_cost(one, leaking) for one in found)


def _equal_cost(c: EqualCost, leaking: frozenset[str]) -> dict[str, Any]:
    return {
        "question": c.asked.question,
        "cost": c.cost.value,
        "point": c.point,
        "against": c.family_name,
        "at": c.at,
        "from": " ".join(f"{value:g}" for value in c.span),
        "between": "; ".join(c.ends),
        "weight": c.weight,
        "bend": c.bend,
        **tested_columns(c, c.asked.late),
        "refused": c.refused.value,
        "leaks": c.leaks,
        "sentence": equal_cost_sentence(c, leaking),
    }


def trends_frame(found: Sequence[Trend]) -> pd.DataFrame:
    """One row for each trend: the change per doubling of size, and the differences that it goes through in `along`."""
    return _frame(
        {
            "question": t.asked.question,
            "point": t.asked.left,
            "against": t.asked.right,
            "setting": t.asked.over,
            "by": t.asked.by,
            "along": "; ".join(f"{r.size:g}: {r.difference.mean:.6g}" for r in t.rungs),
            "off_line": t.off_line,
            **tested_columns(t, t.asked.late),
            "points": "; ".join(f"{left} − {right}" for _, left, right in t.asked.pairs),
            "leaks": t.leaks,
            "sentence": trend_sentence(t),
        }
        for t in found
    )


def pareto_frame(fronts: Sequence[Front]) -> pd.DataFrame:
    """One row for each point and cost: its loss with its t interval, whether it is on the front, and in what share of
    seed resamples."""
    return _frame(row for front in fronts for row in _front(front))


def _front(front: Front) -> Iterator[dict[str, Any]]:
    for p in front.points:
        if p.standing == front.ranked:
            where = "on the front" if p.on_front else f"beaten by {p.beaten_by}"
            firmly = "" if pd.isna(p.share) else f"; on the front in {p.share:.0%} of seed resamples"
            sentence = f"{p.label} is {where} by {front.cost.words}{firmly}"
        else:
            sentence = f"{p.label} is set apart: {p.standing}"
        yield {
            "cost": front.cost.value,
            "point": p.label,
            "value": p.cost,
            "loss": p.loss.mean,
            "loss_low": p.loss.low,
            "loss_high": p.loss.high,
            "level": p.loss.level,
            "n": p.loss.n,
            "on_front": p.on_front,
            "share": p.share,
            "beaten_by": p.beaten_by,
            "standing": p.standing,
            "sentence": sentence,
        }


def power_frame(powers: Sequence[Power]) -> pd.DataFrame:
    """One row for each tested hypothesis, and one for a typical pair of points."""
    return _frame(
        {
            "point": "typical pair" if power.is_typical else power.point,
            "against": power.against,
            "n": power.n,
            "sd": power.sd,
            "margin": power.margin,
            "family": power.family,
            "alpha": power.alpha,
            "detectable": power.detectable,
            "seeds_to_find": power.seeds_to_find,
            "seeds_for_sameness": power.seeds_for_sameness,
            "sentence": power_sentence(power),
        }
        for power in powers
    )


def leak_price_frame(prices: Sequence[LeakPrice]) -> pd.DataFrame:
    """One row for each leaking point and causal twin: what later tokens are worth, twin minus leaking point."""
    return _frame(
        {
            "leaking": price.leaking,
            "twin": price.twin,
            "changed": price.changed,
            "nats": price.nats,
            "low": price.ends[0],
            "high": price.ends[1],
            "level": (price.comparison.interval if price.comparison.family else price.comparison.difference).level,
            "n": price.comparison.difference.n,
            "tested": price.comparison.family > 0,
            "sentence": price_sentence(price),
        }
        for price in prices
    )


def with_absent(frame: pd.DataFrame, absent: Sequence[AbsentRun]) -> pd.DataFrame:
    """The rows, and one more for each run without a result, so that no file hides one."""
    more = pd.DataFrame({"sentence": [f"without a result: {run.sentence}" for run in absent]}, dtype=object)
    return pd.concat([frame, more], ignore_index=True) if len(more) and len(frame) else frame


def _frame(rows: Any) -> pd.DataFrame:
    frame = pd.DataFrame(list(rows))
    return frame.astype({name: "Int64" for name in COUNTS if name in frame})
