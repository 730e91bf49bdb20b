"""Lazy experts: how evenly experts share the work of a trained run, and what the loss is without those that do little.

An expert's contribution is its share of the layer's output weight over an even share: 1 where all contribute alike. Of
soft and merged experts, and where every token has every expert, the share is of combine (or gate) weights summed over
tokens, as Soft MoE's authors sum them to ask what each expert adds to the outputs (2308.00951, on the model's
inspection); where tokens go without some experts, it is of pairs of tokens and experts. An expert is LAZY below a tenth
of an even share: a bound of ours, free of the number of experts. In that paper an expert is lazy in another sense, too:
its slots are alike, so that they give the same information; `slots_alike` is for that. Dispatch weights of a slot sum
to 1, so what is dispatched is even whatever a soft router does, and so is what experts contribute where tokens take
outputs by these very weights (combine=dispatch, Mixture of Tokens). A lagged soft layer sends each sequence's first
chunk through expert 0 (model/moe/soft.py), which so contributes more than an even share whatever the router does:
about 1 + (N - 1) q of it where q is a chunk's share of the sequence. Texts on lagged points say so.

Two frames of each run, made by posthoc/knockout/lazy.py:

experts    EXPERT_COLUMNS: a row for each layer that decides and expert; rows: what is dispatched to it, its share of
           expert rows over an even one (of merged experts: of tokens that weigh it most); slots_alike: mean cosine of
           two slots of the expert, slots_apart: of one of its slots and another expert's (nan where there is no pair)
drops      DROP_COLUMNS: a row for each reading of the validation text with experts gone from all layers at once, their
           picks or weights zero and those of others as they were: none; those below `limit` (lazy); the `dropped` least
           of each layer (least); as many at random (random, a row for each draw). share: what the dropped contributed,
           of the whole, mean over layers; loss, nats per token; change: less that of none
"""

from collections.abc import Iterator, Sequence
from enum import StrEnum

import numpy as np
import pandas as pd

from moe_study.analysis.format import with_bounds, with_leak_mark
from moe_study.analysis.statistics import t_interval
from moe_study.analysis.tables_out import Cells
from moe_study.design.routing import FIXED_ROUTERS, ChoiceScope, Routing, Selection, SoftForm, picks_per_unit
from moe_study.design.selections import facts_of

LAZY = 0.1  # of an even share
DIGITS = 5  # of a contribution that are more than rounding of float32 weights
FIRST_CHUNK = """\
A Soft MoE that lags has no slots yet for the first chunk of a sequence and sends it through expert 0 as it is. So
expert 0 has more than an even share, and the load is less even, whatever the router does: where that is even, expert 0
contributes 1 + (N - 1) q of an even share, with N experts and q a chunk's share of the sequence."""
EXPERT_COLUMNS = ("layer", "expert", "experts", "share", "contribution", "rows", "slots_alike", "slots_apart")
DROP_COLUMNS = ("kind", "dropped", "draw", "limit", "share", "loss", "change")
RUN = ["label", "seed"]


class Drop(StrEnum):
    """Which experts are gone."""

    NONE = "none"
    LAZY = "lazy"
    LEAST = "least"
    RANDOM = "random"


def every_token_has_every_expert(routing: Routing, experts: int) -> bool:
    """Whether weights, and no choice, tell what the `experts` of a layer contribute.

    Also where K is N: then each has every token, by picks, and all of them would contribute alike whatever a router
    does.
    """
    if routing.router in FIXED_ROUTERS:
        return False  # weights say no more than picks
    facts, all_taken = facts_of(routing), picks_per_unit(routing) >= experts
    is_limited = routing.capacity.factor is not None or routing.choice_scope is ChoiceScope.CUTOFF
    return not facts.leaves_out or (facts.takes_k and all_taken and not is_limited)


def notes_on(runs: pd.DataFrame) -> list[str]:
    """What a reader has to know of the points in `runs` (a study's frame) to read their load: paragraphs."""
    lags = (runs["routing.selection"] == Selection.SOFT) & (runs["routing.soft.form"] == SoftForm.CHUNK_LAGGED)
    return [FIRST_CHUNK] if lags.any() else []


def contributions(activations: pd.DataFrame, layers: Sequence[int], routing: Routing) -> pd.DataFrame:
    """layer, expert, experts, share, contribution and rows, of a run's activation counts (runs/activations.py)."""
    own = activations[activations["layer"].isin(layers)]
    sums = own.groupby(["layer", "expert"])[["weight", "count"]].sum().reset_index()
    by_layer = sums.groupby("layer")
    experts = by_layer["expert"].transform("size")

    def share_of(name: str) -> "pd.Series[float]":
        whole = by_layer[name].transform("sum")
        return sums[name] / whole.where(whole > 0)

    by_weight = experts.map(lambda number: every_token_has_every_expert(routing, int(number)))
    share = share_of("weight").where(by_weight, share_of("count"))
    found = {"experts": experts, "share": share, "contribution": share * experts, "rows": share_of("count") * experts}
    return sums[["layer", "expert"]].assign(**found)


def below(experts: pd.DataFrame, limit: float) -> dict[int, list[int]]:
    """The experts of each layer that contribute less than `limit`; layers without one are not there."""
    found = experts[experts["contribution"] < limit]
    return {int(str(layer)): own["expert"].tolist() for layer, own in found.groupby("layer")}


def least(experts: pd.DataFrame, number: int) -> dict[int, list[int]]:
    """The `number` experts of each layer that contribute least, but never all; rounding apart, of equals the first."""
    chosen = {}
    for layer, own in experts.groupby("layer"):
        ordered = own["expert"].to_numpy()[np.argsort(own["contribution"].round(DIGITS), kind="stable")].tolist()
        chosen[int(str(layer))] = ordered[: min(number, len(ordered) - 1)]
    return {layer: own for layer, own in chosen.items() if own}


def numbers_to_drop(experts: int) -> list[int]:
    """1, 2, 4, ... and half of the experts; none of one."""
    half = experts // 2
    powers = (2**power for power in range(half.bit_length()))
    return [*(number for number in powers if number < half), *([half] if half else [])]


# Over seeds -------------------------------------------------------------------------------------------------------


def lazy_cells(experts: pd.DataFrame, drops: pd.DataFrame, leaking: frozenset[str] = frozenset()) -> Cells:
    """A row for each point, means over seeds with 95% intervals; both frames with label and seed."""
    header = ["point", "lazy", "least", "most", "without the lazy"]
    header += ["without the least of each layer", "one at random", "without the least half", "half at random"]
    header += ["slots alike", "slots apart"]
    rows = [[with_leak_mark(label, label in leaking), *_cells(*own)] for label, *own in _points(experts, drops)]
    shown = [place for place, _ in enumerate(header) if any(row[place] for row in rows)]
    return Cells([header[place] for place in shown], [[row[place] for place in shown] for row in rows])


def lazy_sentences(experts: pd.DataFrame, drops: pd.DataFrame, leaking: frozenset[str] = frozenset()) -> Iterator[str]:
    """Which points have lazy experts, and what their removal does to the loss; then all that have none."""
    without = []
    for label, own, gone in _points(experts, drops):
        name = with_leak_mark(label, label in leaking)
        lazy_S, total = _lazy(own, gone), int(own.groupby("seed").size().iloc[0])
        if lazy_S.any():
            change = _interval(_change(gone, Drop.LAZY), "+.3f")
            yield (
                f"{name}: {_interval(lazy_S, '.1f')} of {total} experts are lazy (under"
                f" {limits(gone)} of an even share); without them the loss changes by {change}"
            )
        else:
            without.append(f"{name} ({_interval(_extreme(own, 'min'), '.2f')})")
    if without:
        yield (
            f"no expert is lazy (under {limits(drops)} of an even share; in brackets what the least contributes):"
            f" {'; '.join(without)}"
        )


def limits(drops: pd.DataFrame) -> str:
    """Below which part of an even share experts count as lazy; as a rule it is one for all runs."""
    return " or ".join(f"{limit:g}" for limit in sorted(drops["limit"].unique()))


def _points(experts: pd.DataFrame, drops: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame, pd.DataFrame]]:
    for label in dict.fromkeys(experts["label"]):
        yield label, experts[experts["label"] == label], drops[drops["label"] == label]


def _cells(own: pd.DataFrame, gone: pd.DataFrame) -> list[str]:
    total = int(own.groupby("seed").size().iloc[0])
    counts = sorted(gone.loc[gone["kind"] == Drop.LEAST, "dropped"].unique())
    lazy_S = _lazy(own, gone)
    cells = [f"{_interval(lazy_S, '.1f') if lazy_S.any() else 0} of {total}"]
    cells += [_interval(_extreme(own, which), ".2f") for which in ("min", "max")]
    cells.append(_interval(_change(gone, Drop.LAZY), "+.3f") if lazy_S.any() else "")
    one, half = counts[:1], counts[-1:] if len(counts) > 1 else []
    for numbers in (one, half):
        for kind in (Drop.LEAST, Drop.RANDOM):
            cells.append(_interval(_change(gone, kind, *numbers), "+.3f") if numbers else "")
    for name in ("slots_alike", "slots_apart"):
        cells.append(_interval(own.groupby("seed")[name].mean(), ".2f"))
    return cells


def _lazy(own: pd.DataFrame, gone: pd.DataFrame) -> "pd.Series[float]":
    """How many experts of all layers are lazy, by seed."""
    limit = own["seed"].map(gone.groupby("seed")["limit"].first())
    return (own["contribution"] < limit).astype(float).groupby(own["seed"]).sum()


def _extreme(own: pd.DataFrame, which: str) -> "pd.Series[float]":
    """The least (or most) that an expert contributes, mean over layers, by seed."""
    by_layer = own.groupby(["seed", "layer"])["contribution"].agg(which)
    return by_layer.groupby("seed").mean()


def _change(gone: pd.DataFrame, kind: Drop, dropped: int | None = None) -> "pd.Series[float]":
    """Of the loss, by seed; mean over draws."""
    rows = gone[(gone["kind"] == kind) & (gone["dropped"].eq(dropped) if dropped is not None else True)]
    return rows.groupby("seed")["change"].mean()


def _interval(by_seed: "pd.Series[float]", digits: str) -> str:
    values_S = by_seed.dropna().to_numpy(float)
    if not len(values_S):
        return ""
    mean, _, low, high = (float(one) for one in t_interval(values_S))
    return with_bounds(mean, low, high, digits)
