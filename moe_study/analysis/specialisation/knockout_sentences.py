"""What breaks without an expert, in sentences that claim no more than intervals and nulls carry."""

from collections.abc import Iterator, Sequence

import numpy as np

from moe_study.analysis.format import with_leak_mark
from moe_study.analysis.specialisation.knockout import ALL_LAYERS, ALPHA, DomainChange, Kind
from moe_study.analysis.specialisation.knockout_points import (
    FEWEST_SEEDS,
    KindOverSeeds,
    KnockedPoint,
    LayerOverSeeds,
    RunOfPoint,
    needed_pairs,
)
from moe_study.analysis.specialisation.sentences import LEAK_NOTE
from moe_study.analysis.statistics import Interval

WHAT = {
    Kind.REMOVE: "an expert removed",
    Kind.REROUTE: "its tokens sent to their next best",
    Kind.SWAP: "two experts swapped",
    Kind.LOSE_BEST: "each token without its best",
    Kind.ONE_EXPERT: "all tokens to one",
    Kind.RANDOM_ROUTES: "random routes",
}
MOST_NAMED = 6  # pairs of a run
HOW_TO_READ = (
    "how much more the removal of an expert costs the domain that it costs most than all others together, nats per"
    " token beyond as many picks removed at random, mean over experts, less its mean where domains are dealt out anew"
    " over documents; in brackets the 95% interval over seeds, each alone. Shown: both the t test over seeds and that"
    f" null reach {ALPHA:g}; p is the larger of the two, Holm-adjusted over a question's points and layers. Not shown"
    " does not mean absent"
)
NEEDED = (
    "needed: removing the expert costs the domain more than as many picks at random, and both the cost and what is"
    f" beyond random are larger than in every other domain, whole documents resampled, at {ALPHA:g} after Holm over all"
    " experts, domains and layers of the run; the cost in nats per token, in brackets its 95% interval"
)
OVERALL = (
    "change of the loss over all tokens, nats per token, mean over experts and seeds with the 95% interval over seeds;"
    " after the slash the same done to random experts of equal load"
)


def knockout_sentences(points: Sequence[KnockedPoint]) -> Iterator[str]:
    """What breaks, then a question for each label with its points; then what a reader must know."""
    if not points:
        return
    yield "What breaks when routes are changed?"
    for point in points:
        yield from (f"  {line}" for line in _broken(point))
    yield f"({OVERALL})"
    labels = dict.fromkeys(row.label for point in points for row in point.layers)
    for label in labels:
        yield f"Which expert is needed for which {label}?"
        for point in (point for point in points if any(row.label == label for row in point.layers)):
            yield f"  {_answer(point, label)}"
            yield from (f"    {line}" for line in _experts(point, label))
    if labels:
        yield f"({HOW_TO_READ})"
        yield f"({NEEDED})"
    if any(point.leaks for point in points):
        yield LEAK_NOTE


def _name(point: KnockedPoint) -> str:
    return with_leak_mark(point.label, point.leaks)


def _broken(point: KnockedPoint) -> Iterator[str]:
    for layer in dict.fromkeys(row.layer for row in point.kinds):
        where = "all layers" if layer == ALL_LAYERS else f"layer {layer}"
        rows = sorted((row for row in point.kinds if row.layer == layer), key=lambda row: list(Kind).index(row.kind))
        parts = [f"{WHAT[row.kind]} {_beside(row)}" for row in rows]
        yield f"{_name(point)}, {where}: {', '.join(parts)}"


def _beside(row: KindOverSeeds) -> str:
    null = "" if np.isnan(row.null.mean) else f" / {row.null.mean:z.3f}"
    return f"{_interval(row.change, 3)}{null}"


def _answer(point: KnockedPoint, label: str) -> str:
    rows = [row for row in point.layers if row.label == label]
    if not point.tested:
        numbers = ", ".join(f"{row.excess.mean:z.4f} in layer {row.layer}" for row in rows)
        return f"{_name(point)}: one {label} loses more by {numbers} (one seed: described, not tested)"
    parts = [f"{'shown' if row.shown else 'not shown'} in layer {row.layer} {_measured(row)}" for row in rows]
    return f"{_name(point)}: that one {label} loses more is {', '.join(parts)} ({len(point.runs)} seeds)"


def _measured(row: LayerOverSeeds) -> str:
    p = "" if np.isnan(row.p_adjusted) else f", p {row.p_adjusted:.2g}"
    return f"({_interval(row.excess, 4)}{p}; {row.pairs.mean:.1f} pairs needed per seed)"


def _interval(of: Interval, digits: int) -> str:
    ends = "" if of.n < FEWEST_SEEDS else f" [{of.low:z.{digits}f}, {of.high:z.{digits}f}]"
    return f"{of.mean:z.{digits}f}{ends}"


def _experts(point: KnockedPoint, label: str) -> Iterator[str]:
    """A line for each seed that has a needed expert, and one for the others together."""
    named = {run.seed: _needed(run, label) for run in point.runs}
    yield from (f"seed {seed}: {text}" for seed, text in named.items() if text)
    if none := [str(seed) for seed, text in named.items() if not text]:
        yield f"seed{'s' if len(none) > 1 else ''} {', '.join(none)}: no expert is needed for one {label} alone"


def _needed(run: RunOfPoint, label: str) -> str:
    parts = []
    for layer in run.layers:
        pairs = sorted(needed_pairs(run, label, layer), key=lambda row: -row.excess)
        more = f" and {len(pairs) - MOST_NAMED} more" if len(pairs) > MOST_NAMED else ""
        if pairs:
            parts.append(f"layer {layer}: {', '.join(_pair(row) for row in pairs[:MOST_NAMED])}{more}")
    return "; ".join(parts)


def _pair(row: DomainChange) -> str:
    return (
        f"expert {row.expert} for {row.domain} ({row.change:z.3f} [{row.low:z.3f}, {row.high:z.3f}], at random"
        f" {row.null_mean:z.3f}, elsewhere at most {row.off_target:z.3f} in {row.off_target_domain})"
    )
