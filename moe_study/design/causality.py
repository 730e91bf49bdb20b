"""Which routings look at later tokens: what a point's type declares.

A decision at position t may depend on tokens up to t of its own sequence, and on nothing else. What can leak follows
from four parts (the selection itself, what the router reads, a capacity, a shuffle) and from sizes: a limit that never
binds keeps nobody out, and where every expert is taken nothing is chosen. The audit measures the same by replacing
tokens; the two must agree.
"""

from collections.abc import Iterator

from moe_study.design.config import RunConfig
from moe_study.design.routing import (
    FIXED_ROUTERS,
    SOFTMAXES,
    ChoiceScope,
    Context,
    Gate,
    Group,
    Priority,
    Routing,
    Selection,
    Unit,
    picks_per_unit,
)
from moe_study.design.selections import Pass, capacity_binds, facts_of, most_picks, takes_everyone
from moe_study.design.verdict import CAUSAL, EVERYTHING, MIXES, OTHERS_FUTURE, OWN_FUTURE, Verdict


def verdict(routing: Routing, context: int, sequences: int | None = None) -> Verdict:
    """The declared verdict of a point over windows of `context` tokens, in evaluation mode.

    `sequences` is the most that one pass holds; None: any number.
    """
    size, found = Pass(context, sequences), CAUSAL
    for experts in _expert_counts(routing):
        found |= facts_of(routing).reads(routing, experts, size)
        found |= _context(routing, experts, size) | _capacity(routing, experts, size) | _shuffle(routing, experts, size)
    has_later, has_others = context > 1, sequences is None or sequences > 1
    return Verdict(
        found.own_future and has_later,
        found.others_future and has_later and has_others,
        found.mixes_batch and has_others,
    )


def verdict_of(config: RunConfig) -> Verdict:
    """The declared verdict of a run's routing at the sizes it is trained and evaluated with."""
    return verdict(config.routing, *size_of(config))


def size_of(config: RunConfig) -> Pass:
    """What the largest forward pass of a run holds, in training or evaluation."""
    run = config.run
    return Pass(config.model.context, max(run.micro_batch or run.batch_size, run.eval_batch))


def of_task(found: Verdict, task: str) -> Verdict:
    """What a routing's verdict means in a task. No part of an image comes later: only mixing of images counts."""
    return Verdict(mixes_batch=found.mixes_batch) if task == "images" else found


def depends_on_length(routing: Routing, context: int, sequences: int | None = None) -> bool:
    """Whether a shorter window may be treated in another way than the beginning of a longer one, though no later
    token is read: the number of tokens decides who is kept, or how decisions are permuted.
    """
    size = Pass(context, sequences)

    def nobody_leaks(n: int) -> bool:
        """Whom a limit of the batch leaves out is no leak where all ask for all, or where there is one sequence."""
        return takes_everyone(routing, n) or sequences == 1

    return any(
        (nobody_leaks(n) and routing.capacity.group is Group.BATCH and capacity_binds(routing, n, size))
        or _shuffle(routing, n, size) != CAUSAL
        for n in _expert_counts(routing)
    )


def why_it_cannot_go_on(routing: Routing, context: int, measured: Verdict = CAUSAL) -> str:
    """Why a text cannot be gone on with token by token, as the beginning of a sentence; empty where it can.

    It can where a beginning is treated alike whatever follows it and whoever stands beside it. `measured` is what an
    audit has found besides what is declared.
    """
    found = verdict(routing, context) | measured
    if found.leaks:
        return "the routing of this model reads later tokens"
    if found.mixes_batch:
        return "the routing of this model reads other sequences of the batch"
    if depends_on_length(routing, context):
        return "the routing of this model depends on how many tokens it is given"
    return ""


def decides_alone(routing: Routing) -> bool:
    """Whether a token's decision reads that token and nothing else, so that it is the same in any company.

    Others can be causal and yet need what came before: a mean over it, or who had come first under a capacity.
    """
    own = routing.unit is Unit.TOKEN and routing.context is Context.OWN and routing.selection is not Selection.SOFT
    chooses = routing.selection is Selection.EXPERT_CHOICE and routing.choice_scope is not ChoiceScope.CUTOFF
    return own and not chooses and routing.capacity.factor is None and not routing.shuffle


def _expert_counts(routing: Routing) -> Iterator[int]:
    """N of the mixture layers, after the granularity split; none of a dense model."""
    if routing.selection is not Selection.DENSE:
        counts = (routing.num_experts,) if isinstance(routing.num_experts, int) else routing.num_experts
        yield from {experts * routing.granularity for experts in counts}


def _is_constant(routing: Routing, experts: int) -> bool:
    """Whether every decision is the same whatever is read: all experts, with weights that nothing can change."""
    if routing.router in FIXED_ROUTERS:
        return picks_per_unit(routing) == experts
    always_one = routing.gate in SOFTMAXES or (routing.gate is Gate.SIGMOID and routing.renormalise)
    return experts == 1 and takes_everyone(routing, experts) and always_one


def _context(routing: Routing, experts: int, size: Pass) -> Verdict:
    if _is_constant(routing, experts) or min(routing.segment_length or size.context, size.context) == 1:
        return CAUSAL
    if routing.context is Context.UNIT_MEAN and routing.unit is not Unit.TOKEN:
        return OWN_FUTURE
    if routing.context is Context.PREVIOUS_SEGMENT and routing.first_segment == "own_mean":
        return OWN_FUTURE  # in the first segment only
    return CAUSAL


def _capacity(routing: Routing, experts: int, size: Pass) -> Verdict:
    if not capacity_binds(routing, experts, size):
        return CAUSAL
    limit = routing.capacity
    by_position = (
        limit.priority is Priority.TOKEN_MAJOR
        or (limit.priority is Priority.CHOICE_MAJOR and most_picks(routing, experts) == 1)
        or experts == 1  # all probabilities are 1
    )
    if by_position and takes_everyone(routing, experts):
        return CAUSAL  # the first tokens are kept, whatever they are
    own = CAUSAL if by_position else OWN_FUTURE
    if limit.group is Group.BATCH:  # earlier rows come first, with all their positions
        return own | OTHERS_FUTURE
    return own


def _shuffle(routing: Routing, experts: int, size: Pass) -> Verdict:
    """Any decision may be handed to any position of any sequence."""
    if not routing.shuffle or _is_constant(routing, experts):
        return CAUSAL
    last = _last_read(routing, size.context)
    if last is None:
        return CAUSAL
    return EVERYTHING if last > 0 else MIXES  # what only reads a first token was made before any position was left


def _last_read(routing: Routing, context: int) -> int | None:
    """The last position that any decision reads; a label counts as known before the first, None: nothing is read."""
    if routing.unit is Unit.TOKEN or routing.context is Context.UNIT_MEAN:
        return context - 1
    if routing.context is Context.LABEL:
        return 0
    if routing.context is Context.PREFIX:
        assert routing.prefix_length is not None  # validated
        return routing.prefix_length - 1
    segment = context if routing.segment_length is None else min(routing.segment_length, context)
    last_segment = (context - 1) // segment
    if routing.context is Context.FIRST_TOKEN:
        return last_segment * segment
    if last_segment > 0:
        return last_segment * segment - 1  # the end of the segment before the last
    return context - 1 if routing.first_segment == "own_mean" else None
