"""Which routings look at later tokens: what a point's type declares.

The audit measures the same three facts by replacing values; the two must agree for every committed
configuration. `facts` behind each branch: a decision at position t may depend on tokens up to t of its own
sequence, and on nothing else.
"""

from dataclasses import dataclass

from moe_study.design.routing import (
    ChoiceScope,
    Context,
    Gate,
    Group,
    Priority,
    Routing,
    Selection,
    SoftForm,
    SoftWeights,
    Unit,
    picks_per_unit,
)


@dataclass(frozen=True)
class Verdict:
    """What can reach the output at position t of a sequence."""

    own_future: bool = False  # later tokens of the same sequence
    others_future: bool = False  # later tokens of other sequences in the batch
    mixes_batch: bool = False  # anything at all of other sequences in the batch

    @property
    def leaks(self) -> bool:
        """True when perplexity is no autoregressive one: some later token is read."""
        return self.own_future or self.others_future

    def __or__(self, other: "Verdict") -> "Verdict":
        return Verdict(
            self.own_future or other.own_future,
            self.others_future or other.others_future,
            self.mixes_batch or other.mixes_batch,
        )


CAUSAL = Verdict()
OWN_FUTURE = Verdict(own_future=True)
MIXES = Verdict(mixes_batch=True)
EVERYTHING = Verdict(True, True, True)


def verdict(routing: Routing) -> Verdict:
    """The declared verdict of a point, in evaluation mode."""
    if routing.selection is Selection.DENSE:
        return CAUSAL
    if routing.selection is Selection.SOFT:
        return _soft(routing)
    return _context(routing) | _selection(routing) | _capacity(routing) | _shuffle(routing)


def of_task(found: Verdict, task: str) -> Verdict:
    """What a routing's verdict means in a task. No part of an image comes later: only mixing of images counts."""
    return Verdict(mixes_batch=found.mixes_batch) if task == "images" else found


def _soft(routing: Routing) -> Verdict:
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


def _context(routing: Routing) -> Verdict:
    if _no_choice(routing) or routing.segment_length == 1:
        return CAUSAL
    if routing.context is Context.UNIT_MEAN and routing.unit is not Unit.TOKEN:
        return OWN_FUTURE
    if routing.context is Context.PREVIOUS_SEGMENT and routing.first_segment == "own_mean":
        return OWN_FUTURE  # in the first segment only
    return CAUSAL


def _selection(routing: Routing) -> Verdict:
    if routing.selection is not Selection.EXPERT_CHOICE or picks_per_unit(routing) >= _most_experts(routing):
        return CAUSAL  # K = N: every expert takes every token
    return {
        ChoiceScope.SEQUENCE: OWN_FUTURE,
        ChoiceScope.BATCH: EVERYTHING,
        ChoiceScope.POSITION: MIXES,
        ChoiceScope.CUTOFF: CAUSAL,
    }[routing.choice_scope]


def _capacity(routing: Routing) -> Verdict:
    capacity = routing.capacity
    if not _capacity_binds(routing):
        return CAUSAL
    one_pick = routing.selection is Selection.TOP_K and picks_per_unit(routing) == 1
    by_position = capacity.priority is Priority.TOKEN_MAJOR or (
        capacity.priority is Priority.CHOICE_MAJOR and one_pick
    )
    own = CAUSAL if by_position else OWN_FUTURE
    if capacity.group is Group.BATCH:  # earlier rows come first, with all their positions
        return own | Verdict(others_future=True, mixes_batch=True)
    return own


def _capacity_binds(routing: Routing) -> bool:
    """Whether an expert can be asked for more tokens than it takes: it is asked for each token at most once."""
    if routing.capacity.factor is None:
        return False
    picks = picks_per_unit(routing) if routing.selection is Selection.TOP_K else 1
    return routing.capacity.factor * picks < _most_experts(routing)


def _shuffle(routing: Routing) -> Verdict:
    if not routing.shuffle or _no_choice(routing):
        return CAUSAL
    if routing.unit is Unit.SEQUENCE and routing.context in (Context.FIRST_TOKEN, Context.LABEL):
        return MIXES  # another sequence's decision, which was made before its first position was left
    return EVERYTHING


def _no_choice(routing: Routing) -> bool:
    """One expert whose weight is always 1: whatever the router reads does not matter."""
    return _most_experts(routing) == 1 and (routing.gate is not Gate.SIGMOID or routing.renormalise)


def _most_experts(routing: Routing) -> int:
    most = routing.num_experts if isinstance(routing.num_experts, int) else max(routing.num_experts)
    return most * routing.granularity
