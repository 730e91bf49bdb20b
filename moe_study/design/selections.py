"""What is particular about each way of selecting experts: one row of facts for each member of `Selection`.

Accounting, validation, declared causality, balancing and labels read these rows, so that a new rule needs one more
here, and code only where it computes.

In the signatures, `experts` is N of one layer after the granularity split, and a `Pass` says how much is routed at
once.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from moe_study.design.routing import (
    Choices,
    ChoiceScope,
    Group,
    Routing,
    Selection,
    SoftForm,
    SoftWeights,
    picks_per_unit,
)
from moe_study.design.verdict import CAUSAL, EVERYTHING, MIXES, OWN_FUTURE, Verdict


class Pass(NamedTuple):
    """How much one forward pass holds."""

    context: int  # positions of a sequence
    sequences: int | None  # the most there are; None: any number

    def tokens(self, of_batch: bool) -> float:
        """Tokens of a sequence, or of the batch; infinitely many where the number of sequences is open."""
        if not of_batch:
            return self.context
        return math.inf if self.sequences is None else self.context * self.sequences


def _reads_nothing_later(routing: Routing, experts: int, size: Pass) -> Verdict:
    return CAUSAL


@dataclass(frozen=True)
class SelectionFacts:
    """The facts of one rule."""

    words: str  # its name in tables, with {unit}, {of_unit} (empty for tokens), {k}, {threshold} and {multiple}
    rows: Callable[[Routing, int, int], float]  # (routing, experts, context) -> nominal expert rows per token
    reads: Callable[[Routing, int, Pass], Verdict] = _reads_nothing_later  # what the choice itself depends on
    takes_k: bool = False  # uses routing.k
    own_picks: bool = False  # each unit takes some experts by itself: a capacity can limit it, a shuffle permute it
    any_number: bool = False  # k is what units take on average: one by itself takes any number, and may take none
    fixed_routers: bool = False  # goes with routers that give no scores
    gates_after_pick: bool = True  # a softmax may run over a unit's own picks, of which there is always one
    leaves_out: bool = False  # a token goes without some experts, by their scores: it can have a next best one
    counts_picks: bool = False  # load is by itself counted by all picks, which a bias can move; otherwise by the first


# Nominal expert rows per token ------------------------------------------------------------------------------


def _k_rows(routing: Routing, experts: int, context: int) -> float:
    return picks_per_unit(routing)


def _threshold_rows(routing: Routing, experts: int, context: int) -> float:
    """The budget where one is set, and otherwise the upper bound: the true figure is measured."""
    return routing.threshold_budget if routing.threshold_budget is not None else most_picks(routing, experts)


def _soft_rows(routing: Routing, experts: int, context: int) -> float:
    soft = routing.soft
    slots = experts * soft.slots_per_expert
    if soft.dispatch is SoftWeights.IDENTITY:
        return 1.0
    if soft.form is SoftForm.PREFIX:
        return slots
    if soft.form is SoftForm.ACROSS_BATCH:
        assert soft.group_size is not None  # validated
        return slots / soft.group_size
    if soft.form is SoftForm.SEQUENCE:
        return slots / context
    assert soft.chunk_length is not None  # validated
    chunks = -(-context // soft.chunk_length)
    if soft.form is SoftForm.CHUNK:
        return slots * chunks / context
    return ((chunks - 1) * slots + min(soft.chunk_length, context)) / context  # the first chunk's tokens: expert 0


# What the choice itself depends on --------------------------------------------------------------------------


def _choice_reads(routing: Routing, experts: int, size: Pass) -> Verdict:
    scope, k = routing.choice_scope, picks_per_unit(routing)
    if scope is ChoiceScope.CUTOFF:
        return CAUSAL
    if scope is ChoiceScope.POSITION:
        tokens = math.inf if size.sequences is None else size.sequences
    else:
        tokens = size.tokens(of_batch=scope is ChoiceScope.BATCH)
    if k >= experts or (math.isfinite(tokens) and choice_slots(k, experts, int(tokens)) >= tokens):
        return CAUSAL  # every expert takes every token
    return {ChoiceScope.SEQUENCE: OWN_FUTURE, ChoiceScope.BATCH: EVERYTHING, ChoiceScope.POSITION: MIXES}[scope]


def _soft_reads(routing: Routing, experts: int, size: Pass) -> Verdict:
    soft = routing.soft
    if soft.chunk_length == 1 or soft.group_size == 1:
        return CAUSAL  # nothing to average with
    if soft.dispatch is SoftWeights.IDENTITY and soft.combine is SoftWeights.IDENTITY:
        return CAUSAL  # token i is slot i: nothing is averaged
    return {
        SoftForm.SEQUENCE: OWN_FUTURE,
        SoftForm.CHUNK: OWN_FUTURE,
        SoftForm.CHUNK_LAGGED: CAUSAL,
        SoftForm.PREFIX: CAUSAL,
        SoftForm.ACROSS_BATCH: MIXES,
    }[soft.form]


# The table --------------------------------------------------------------------------------------------------

SELECTIONS: dict[Selection, SelectionFacts] = {
    Selection.DENSE: SelectionFacts("dense {multiple:.3g}x", lambda routing, experts, context: 1.0),
    Selection.TOP_K: SelectionFacts(
        "{unit} top-{k:g}",
        _k_rows,
        takes_k=True,
        own_picks=True,
        fixed_routers=True,
        leaves_out=True,
        counts_picks=True,
    ),
    Selection.THRESHOLD: SelectionFacts(
        "{unit} threshold {threshold:g}", _threshold_rows, own_picks=True, leaves_out=True
    ),
    Selection.POSITIVE: SelectionFacts(
        "{unit} positive {k:g}",
        _k_rows,
        takes_k=True,
        own_picks=True,
        any_number=True,
        gates_after_pick=False,
        leaves_out=True,
    ),
    Selection.ALL: SelectionFacts("{of_unit}all experts", lambda routing, experts, context: experts),
    Selection.EXPERT_CHOICE: SelectionFacts(
        "expert choice", _k_rows, _choice_reads, takes_k=True, gates_after_pick=False, leaves_out=True
    ),
    Selection.SOFT: SelectionFacts("soft", _soft_rows, _soft_reads),
    Selection.MERGE: SelectionFacts("{unit} merge", lambda routing, experts, context: 1.0, gates_after_pick=False),
}
TAKING_K = tuple(selection for selection, facts in SELECTIONS.items() if facts.takes_k)
PICKING = tuple(selection for selection, facts in SELECTIONS.items() if facts.own_picks)


def one_of(values: Iterable[str]) -> str:
    """Values as a sentence lists them: "a, b or c"."""
    *others, last = values
    return f"{', '.join(others)} or {last}" if others else last


def facts_of(routing: Routing) -> SelectionFacts:
    """The row of a point's rule."""
    return SELECTIONS[routing.selection]


# What follows from a rule's numbers, for what is declared and what is computed ----------------------------------


def own_choices(routing: Routing) -> Choices:
    """Which choices the balancing loss counts where a point does not say."""
    return Choices.ALL if facts_of(routing).counts_picks else Choices.FIRST


def counted_choices(routing: Routing) -> Choices:
    """Which choices the balancing loss counts."""
    return own_choices(routing) if routing.balance.choices is None else routing.balance.choices


def spreads_all_choices(routing: Routing) -> bool:
    """Whether the load of all choices can be uneven at all: it cannot where every expert takes as many tokens."""
    return facts_of(routing).own_picks or (
        routing.selection is Selection.EXPERT_CHOICE and routing.choice_scope is ChoiceScope.CUTOFF
    )


def most_picks(routing: Routing, experts: int) -> int:
    """The most experts that one unit can take by itself.

    Under a threshold of at most 1/N this is one: the highest of N probabilities is at least 1/N.
    """
    facts = facts_of(routing)
    if facts.takes_k and not facts.any_number:
        return picks_per_unit(routing)
    one = routing.selection is Selection.THRESHOLD and routing.threshold_budget is None
    return 1 if one and routing.threshold * experts <= 1 else experts


def takes_everyone(routing: Routing, experts: int) -> bool:
    """Whether every unit takes every expert, whatever its scores."""
    facts = facts_of(routing)
    return not facts.any_number and (experts == 1 or (facts.takes_k and picks_per_unit(routing) == experts))


def capacity_slots(routing: Routing, experts: int, tokens: int) -> int:
    """Pairs that one expert takes from a group of `tokens`: max(ceil(factor * K * tokens / N), minimum).

    K is 1 for a threshold, as in XMoE.
    """
    capacity, fair_picks = routing.capacity, picks_per_unit(routing) if facts_of(routing).takes_k else 1
    assert capacity.factor is not None  # asked only where there is one
    wanted = capacity.factor * fair_picks * tokens / experts
    return max(math.ceil(round(wanted, 6)), capacity.minimum)  # 1.1 * 100 / 10 is a little over 11


def capacity_binds(routing: Routing, experts: int, size: Pass) -> bool:
    """Whether an expert can be asked for more tokens than it takes: it is asked for each token at most once."""
    if routing.capacity.factor is None:
        return False
    tokens = size.tokens(of_batch=routing.capacity.group is Group.BATCH)
    if math.isinf(tokens):
        fair_picks = picks_per_unit(routing) if facts_of(routing).takes_k else 1
        return routing.capacity.factor * fair_picks < experts
    return capacity_slots(routing, experts, int(tokens)) < tokens


def choice_slots(k: int, experts: int, tokens: int) -> int:
    """Tokens that one expert takes of those it chooses from (selection=expert_choice): ceil(k * tokens / N)."""
    return min(tokens, -(-k * tokens // experts))
