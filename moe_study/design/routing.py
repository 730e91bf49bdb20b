"""One point of the design space: who decides, what the decision reads, and what is done with it.

Every axis is free of the others unless a combination has no meaning; `validation.py` then says so in words.
Nothing here imports torch: planning a sweep must not wait for it.
"""

from dataclasses import dataclass, field
from enum import StrEnum


class Selection(StrEnum):
    """How experts are picked from the router's scores."""

    DENSE = "dense"  # no router: one feed-forward network
    TOP_K = "top_k"  # each unit picks its K best experts
    THRESHOLD = "threshold"  # each unit picks until the probability mass reaches t (XMoE, 2403.18926)
    POSITIVE = "positive"  # each unit picks the experts of positive score, k on average (ReMoE, 2412.14711)
    ALL = "all"  # every expert, weighted by the gate
    EXPERT_CHOICE = "expert_choice"  # each expert picks its tokens (2202.09368)
    SOFT = "soft"  # experts work on weighted averages of tokens (Soft MoE, 2308.00951)
    MERGE = "merge"  # the experts' weights are averaged, one merged expert a unit (SMEAR, Lory)


class Unit(StrEnum):
    """Who shares one decision."""

    TOKEN = "token"
    SEGMENT = "segment"  # `segment_length` tokens
    SEQUENCE = "sequence"  # the whole context window


class Context(StrEnum):
    """What the router reads."""

    OWN = "own"  # the token's own hidden state
    UNIT_MEAN = "unit_mean"  # mean over the whole unit: the study paper's; later tokens reach earlier ones
    PREFIX = "prefix"  # mean over the first `prefix_length` tokens, which a learned prior routes
    RUNNING_MEAN = "running_mean"  # mean over the tokens up to and including this one
    PREVIOUS_SEGMENT = "previous_segment"  # mean over the segment before this one
    FIRST_TOKEN = "first_token"  # the unit's first token
    LABEL = "label"  # a label that comes with the sequence (its language or topic)


class Scope(StrEnum):
    LAYER = "layer"  # every layer decides for itself
    GLOBAL = "global"  # the first mixture layer decides, all others follow


class RouterKind(StrEnum):
    LINEAR = "linear"
    MLP = "mlp"
    COSINE = "cosine"  # of a low-dimensional projection and the experts' embeddings (X-MoE, 2204.09179)
    HASH = "hash"  # of the token id (Hash Layers, 2106.04426)
    LABEL = "label"  # label i goes to experts iK, ..., iK + K - 1 (mod N)


FIXED_ROUTERS = (RouterKind.HASH, RouterKind.LABEL)  # give no scores: experts are looked up


class RouterState(StrEnum):
    LEARNED = "learned"
    FROZEN = "frozen"  # keeps its initial weights: no gradient, no weight decay
    REDRAWN = "redrawn"  # drawn anew at every training step


class Gate(StrEnum):
    """How scores become the weights of the picked experts."""

    SOFTMAX_THEN_PICK = "softmax_then_pick"  # probabilities over all N (Switch)
    PICK_THEN_SOFTMAX = "pick_then_softmax"  # softmax over the picked logits (Mixtral)
    DOUBLE_SOFTMAX = "double_softmax"  # softmax over the picked probabilities (the study paper's sequence gate)
    SIGMOID = "sigmoid"  # each score by itself
    RELU = "relu"  # the score itself, and 0 below 0 (ReMoE, 2412.14711, eq. 4)


AFTER_PICK = (Gate.PICK_THEN_SOFTMAX, Gate.DOUBLE_SOFTMAX)  # gates whose softmax runs over a unit's own picks
SOFTMAXES = (Gate.SOFTMAX_THEN_PICK, *AFTER_PICK)  # gates by which a single expert always has weight 1


class Priority(StrEnum):
    """Who is kept when an expert is over its capacity."""

    TOKEN_MAJOR = "token_major"  # by position; all of a token's picks before the next token's
    CHOICE_MAJOR = "choice_major"  # by rank, then position: all first choices before any second (GShard)
    RANK_PROBABILITY = "rank_probability"  # by rank, then the higher probability (XMoE)
    BATCH_PRIORITY = "batch_priority"  # tokens sorted by their highest probability (V-MoE)


BY_PROBABILITY = (Priority.RANK_PROBABILITY, Priority.BATCH_PRIORITY)  # priorities that compare probabilities


class Group(StrEnum):
    """Over which tokens something is counted or shared."""

    SEQUENCE = "sequence"
    BATCH = "batch"  # all sequences of one forward pass


class ChoiceScope(StrEnum):
    """From which tokens an expert chooses (selection=expert_choice)."""

    SEQUENCE = "sequence"
    BATCH = "batch"
    POSITION = "position"  # the tokens at one position, across the batch
    CUTOFF = "cutoff"  # all tokens over a moving-average cutoff that is updated after the forward pass


class SoftForm(StrEnum):
    """Which tokens a slot averages (selection=soft)."""

    SEQUENCE = "sequence"  # the paper's
    CHUNK = "chunk"  # inside each chunk of `chunk_length`
    CHUNK_LAGGED = "chunk_lagged"  # the tokens before the current chunk; the first chunk takes expert 0
    PREFIX = "prefix"  # the tokens up to this one: exact, and expensive
    ACROSS_BATCH = "across_batch"  # Mixture of Tokens (2310.15961): one position across a group of sequences


class SoftWeights(StrEnum):
    """Ablations of the Soft MoE paper, section 3.5."""

    SOFT = "soft"
    UNIFORM = "uniform"
    IDENTITY = "identity"  # token i is slot i
    DISPATCH = "dispatch"  # combine only: the weights each token was averaged with (Mixture of Tokens)


@dataclass(frozen=True)
class Capacity:
    """A limit on the tokens an expert takes; none when `factor` is None (dropless)."""

    factor: float | None = None  # an expert takes at most ceil(factor * K * tokens / N) tokens of a group
    priority: Priority = Priority.TOKEN_MAJOR
    group: Group = Group.SEQUENCE
    minimum: int = 1


class Choices(StrEnum):
    """Which of the experts that a decision takes count as its load in the balancing loss."""

    FIRST = "first"  # the one of the highest score (GShard, 2006.16668; XMoE, 2403.18926)
    ALL = "all"  # every one that is taken, before any capacity (DeepSeekMoE, 2401.06066, eq. 12-14)


@dataclass(frozen=True)
class Balance:
    """Weights of the balancing terms; 0 is off. Each is reported apart from the language-model loss."""

    switch: float = 0.0  # N * sum_e f_e P_e (Switch, 2101.03961, eq. 4-6)
    z: float = 0.0  # mean squared logsumexp of the logits (ST-MoE, 2202.08906, eq. 5)
    bias_rate: float = 0.0  # loss-free bias step (2408.15664)
    scope: str = "micro_batch"  # over which tokens f_e is counted: micro_batch | batch
    choices: Choices | None = None  # what f_e counts of each; None: all of top-k's, the first of any other rule's


@dataclass(frozen=True)
class Soft:
    """Settings of selection=soft."""

    form: SoftForm = SoftForm.SEQUENCE
    slots_per_expert: int = 1
    chunk_length: int | None = None
    group_size: int | None = None  # sequences mixed by form=across_batch
    dispatch: SoftWeights = SoftWeights.SOFT
    combine: SoftWeights = SoftWeights.SOFT
    normalise: bool = True  # logits are scaled cosines (Soft MoE, section 2.3); false: plain products


@dataclass(frozen=True)
class Routing:
    """One point of the design space. Defaults: token top-1 of 4 experts, as in Switch, dropless."""

    selection: Selection = Selection.TOP_K
    unit: Unit = Unit.TOKEN
    segment_length: int | None = None
    context: Context = Context.OWN
    prefix_length: int | None = None
    first_segment: str = "prior"  # prior: learned logits | own_mean: the published form, which leaks
    label: str = "language"  # which label: language | topic
    scope: Scope = Scope.LAYER
    router: RouterKind = RouterKind.LINEAR
    router_depth: int = 1  # hidden layers of router=mlp
    router_width: float = 1.0  # their units, in widths of the model
    router_state: RouterState = RouterState.LEARNED
    router_noise: float = 0.0  # standard deviation of Gaussian noise on the logits, in training only
    shuffle: bool = False  # control: permute decisions among units, so that only the usage is kept
    num_experts: int | tuple[int, ...] = 4  # N, or one N for each mixture layer
    k: int = 1
    threshold: float = 0.9
    threshold_budget: float | None = None  # steer t until this many experts per token are kept
    choice_scope: ChoiceScope = ChoiceScope.SEQUENCE
    gate: Gate = Gate.SOFTMAX_THEN_PICK
    renormalise: bool = False  # divide the picked weights by their sum
    expert_size: int | None = None  # hidden units of one expert; None: ffn_multiplier * model.ffn_size
    ffn_multiplier: float = 1.0
    granularity: int = 1  # split every expert g ways: N*g experts of size/g, K*g picked
    shared_experts: int = 0  # experts of the same size that every token takes, with weight 1
    layers: str | tuple[int, ...] = "all"  # all | every_second | a list of block indices from 0
    capacity: Capacity = field(default_factory=Capacity)
    balance: Balance = field(default_factory=Balance)
    soft: Soft = field(default_factory=Soft)


def mixture_layers(routing: Routing, num_layers: int) -> tuple[int, ...]:
    """Indices (from 0) of the blocks whose feed-forward network is a mixture.

    `every_second` starts at the second block, as in XMoE and GShard. Out-of-range lists are left to validation.
    """
    if routing.selection is Selection.DENSE:
        return ()
    if routing.layers == "all":
        return tuple(range(num_layers))
    if routing.layers == "every_second":
        return tuple(range(1, num_layers, 2))
    assert not isinstance(routing.layers, str)  # validated
    return tuple(sorted(set(routing.layers)))


def decides(routing: Routing, num_layers: int, layer: int) -> bool:
    """Whether the mixture at block `layer` has a router of its own: with scope=global only the first one has."""
    return routing.scope is not Scope.GLOBAL or layer == mixture_layers(routing, num_layers)[0]


def experts_of_layer(routing: Routing, num_layers: int, layer: int) -> int:
    """N of the mixture at block `layer`, after the granularity split."""
    if isinstance(routing.num_experts, int):
        return routing.num_experts * routing.granularity
    return routing.num_experts[mixture_layers(routing, num_layers).index(layer)] * routing.granularity


def picks_per_unit(routing: Routing) -> int:
    """K after the granularity split (selection=top_k, expert_choice and positive)."""
    return routing.k * routing.granularity


def router_sizes(routing: Routing, width: int, experts: int) -> list[int]:
    """Inputs, hidden layers and outputs of a linear or MLP router in a model of that width."""
    hidden = [round(routing.router_width * width)] * routing.router_depth if routing.router is RouterKind.MLP else []
    return [width, *hidden, experts]


def whole_hidden(routing: Routing, dense_hidden: int) -> int:
    """Hidden units of one expert before the granularity split; of the network itself when it is dense."""
    return routing.expert_size if routing.expert_size is not None else round(routing.ffn_multiplier * dense_hidden)


def expert_hidden(routing: Routing, dense_hidden: int) -> int:
    """Hidden units of one expert, after the granularity split; of the network itself when it is dense."""
    whole = whole_hidden(routing, dense_hidden)
    return whole if routing.selection is Selection.DENSE else whole // routing.granularity


def cosine_dimensions(experts: int) -> int:
    """Dimensions in which router=cosine compares tokens with N experts: half of N (X-MoE, 2204.09179, section 4.1).

    At least 2, because in one dimension a cosine is a sign and has no gradient.
    """
    return max(2, experts // 2)


def has_prior(routing: Routing) -> bool:
    """Whether the router holds learned logits for tokens that have nothing earlier to read."""
    return routing.context is Context.PREFIX or (
        routing.context is Context.PREVIOUS_SEGMENT and routing.first_segment == "prior"
    )
