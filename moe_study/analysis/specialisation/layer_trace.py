"""What one layer of one trained run did with the tokens of a probe: the input of every measure.

Shapes: T tokens, P picks (token, expert), D documents. A token may have any number of picks, none too.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from moe_study.errors import DataError

Ints = NDArray[np.integer]
Floats = NDArray[np.floating]
Labels = Mapping[str, tuple[Ints, tuple[str, ...]]]  # name -> (codes, what the codes stand for); -1 is "no label"

MISSING = -1
LARGEST = 2**31  # of numbers that can be multiplied by another code
WEIGHTINGS = ("picks", "gate")


@dataclass(frozen=True)
class LayerTrace:
    """Picks of one layer, beside the tokens, documents and labels that they were made for.

    The picks of token t are start_T1[t] : start_T1[t + 1]. Documents are numbered 0 .. D - 1, whatever the corpus
    calls them; a document is what labels are exchanged and resampled by, so it must be the unit that was drawn.
    Layers of one run share the arrays of its tokens. Numbers of any size are taken, as a compact file holds them, and
    widened, so that no product of them overflows.

    Errors: DataError where the arrays do not fit together.
    """

    token_T: Ints  # token ids
    document_T: Ints
    position_T: Ints  # within the document
    start_T1: Ints
    expert_P: Ints
    weight_P: Floats  # gate weights
    kept_P: NDArray[np.bool_]  # False where a capacity dropped the pick
    experts: int
    entropy_T: Floats  # of the router's probabilities, nats
    margin_T: Floats  # between the last chosen and the best expert left out
    document_labels: Labels = field(default_factory=dict)  # codes by document
    token_labels: Labels = field(default_factory=dict)  # codes by token

    def __post_init__(self) -> None:
        for name in ("token_T", "document_T", "position_T", "start_T1", "expert_P"):
            object.__setattr__(self, name, np.asarray(getattr(self, name), dtype=np.int64))
        for name in ("weight_P", "entropy_T", "margin_T"):
            object.__setattr__(self, name, np.asarray(getattr(self, name), dtype=np.float64))
        tokens, picks = len(self.token_T), len(self.expert_P)
        for name in ("document_T", "position_T", "entropy_T", "margin_T"):
            _need(len(getattr(self, name)) == tokens, f"{name} has not one value for each of the {tokens:,} tokens")
        for name in ("weight_P", "kept_P"):
            _need(len(getattr(self, name)) == picks, f"{name} has not one value for each of the {picks:,} picks")
        _need(len(self.start_T1) == tokens + 1, "start_T1 has not one value more than there are tokens")
        _need(
            self.start_T1[0] == 0 and self.start_T1[-1] == picks and bool(np.all(np.diff(self.start_T1) >= 0)),
            "start_T1 does not run from 0 to the number of picks without a step back",
        )
        _need(
            not picks or (self.expert_P.min() >= 0 and self.expert_P.max() < self.experts), "a pick has no such expert"
        )
        _need(not tokens or self.document_T.min() >= 0, "a document has a negative number")
        for name, (codes_D, values) in self.document_labels.items():
            _need(len(codes_D) >= self.documents, f"the label {name} has not one value for each document")
            _need(not len(codes_D) or codes_D.max() < len(values), f"a code of the label {name} has no name")
        for name, (codes_T, values) in self.token_labels.items():
            _need(len(codes_T) == tokens, f"the label {name} has not one value for each token")
            _need(not tokens or codes_T.max() < len(values), f"a code of the label {name} has no name")

    @property
    def documents(self) -> int:
        return int(self.document_T.max()) + 1 if len(self.document_T) else 0

    @property
    def picks_T(self) -> Ints:
        """Number of picks of each token."""
        return np.diff(self.start_T1)

    @property
    def token_of_P(self) -> Ints:
        """The token of each pick."""
        return np.repeat(np.arange(len(self.token_T)), self.picks_T)

    def label(self, name: str) -> tuple[Ints, tuple[str, ...]]:
        """(codes by token, names) of a label of documents or of tokens. Errors: DataError where there is none."""
        if name in self.document_labels:
            codes_D, values = self.document_labels[name]
            return np.asarray(codes_D, dtype=np.int64)[self.document_T], values
        if name in self.token_labels:
            codes_T, values = self.token_labels[name]
            return np.asarray(codes_T, dtype=np.int64), values
        have = ", ".join([*self.document_labels, *self.token_labels]) or "no label at all"
        raise DataError(f"the trace has no label {name!r}; it has {have}")

    def document_label(self, name: str) -> tuple[Ints, tuple[str, ...]]:
        """(codes by document, names); documents without a token here have none, so that they exchange nothing.

        Errors: DataError where documents have no such label.
        """
        if name not in self.document_labels:
            have = ", ".join(self.document_labels) or "no label at all"
            raise DataError(f"the documents of the trace have no label {name!r}; they have {have}")
        codes_D, values = self.document_labels[name]
        here_D = np.bincount(self.document_T, minlength=self.documents) > 0
        return np.where(here_D, np.asarray(codes_D, dtype=np.int64)[: self.documents], MISSING), values


def documents_with(start_D1: Ints, tokens: int) -> int:
    """How many documents it takes, from the first on, to have that many tokens; all where there are fewer."""
    return min(int(np.searchsorted(start_D1, tokens, side="left")), len(start_D1) - 1)


def first_documents(layer: LayerTrace, tokens: int) -> LayerTrace:
    """The trace of the first documents, each of them whole, that have `tokens` tokens; documents stand in order."""
    start_D1: Ints = np.searchsorted(layer.document_T, np.arange(layer.documents + 1))
    documents = documents_with(start_D1, tokens)
    end = int(start_D1[documents])  # tokens
    picks = int(layer.start_T1[end])
    return replace(
        layer,
        token_T=layer.token_T[:end],
        document_T=layer.document_T[:end],
        position_T=layer.position_T[:end],
        entropy_T=layer.entropy_T[:end],
        margin_T=layer.margin_T[:end],
        start_T1=layer.start_T1[: end + 1],
        expert_P=layer.expert_P[:picks],
        weight_P=layer.weight_P[:picks],
        kept_P=layer.kept_P[:picks],
        document_labels={name: (codes[:documents], values) for name, (codes, values) in layer.document_labels.items()},
        token_labels={name: (codes[:end], values) for name, (codes, values) in layer.token_labels.items()},
    )


@dataclass(frozen=True)
class Assignments:
    """Who sends how much to whom: every token with a pick sends a weight of 1 in all, split over its picks.

    `unit` is a number that all weights are whole multiples of, or None; then tables hold whole numbers.
    """

    token_P: Ints
    expert_P: Ints
    weight_P: NDArray[np.float64]
    tokens: int
    experts: int
    unit: float | None

    def table(self, codes_T: Ints, values: int) -> NDArray[np.float64]:
        """[label L, expert E]: weight of the tokens of each label on each expert; tokens without a label left out."""
        code_P = np.asarray(codes_T)[self.token_P]
        has = code_P != MISSING
        cell_P = code_P[has].astype(np.int64) * self.experts + self.expert_P[has]
        flat = np.bincount(cell_P, self.weight_P[has], minlength=values * self.experts)
        return flat.reshape(values, self.experts).astype(float)

    @property
    def routed_T(self) -> NDArray[np.bool_]:
        """Tokens with a pick."""
        return np.bincount(self.token_P, minlength=self.tokens) > 0


def assignments(layer: LayerTrace, by: str = "picks", kept_only: bool = False) -> Assignments:
    """The picks of a layer as weights that sum to 1 over each token that has any.

    by="picks": 1 / (number of picks of the token) on each. by="gate": its gate weight over the sum of the token's;
    tokens whose weights sum to 0 are left out. `kept_only` leaves out picks that a capacity dropped: what was
    computed, rather than what the router asked for.
    Errors: DataError for another `by`, and for negative gate weights.
    """
    if by not in WEIGHTINGS:
        raise DataError(f"picks are weighted by {' or '.join(WEIGHTINGS)}, not by {by!r}")
    raw_P = np.ones(len(layer.expert_P)) if by == "picks" else np.asarray(layer.weight_P, dtype=float)
    if len(raw_P) and raw_P.min() < 0:
        raise DataError("a gate weight is negative, so it is not a share of anything; weigh by picks")
    chosen_P = raw_P > 0
    if kept_only:
        chosen_P &= np.asarray(layer.kept_P)
    token_P = layer.token_of_P[chosen_P]
    sum_T = np.bincount(token_P, raw_P[chosen_P], minlength=len(layer.token_T))
    weight_P = raw_P[chosen_P] / sum_T[token_P]
    alike = len(weight_P) > 0 and by == "picks" and bool(np.all(weight_P == weight_P[0]))
    return Assignments(
        token_P=token_P,
        expert_P=np.asarray(layer.expert_P)[chosen_P].astype(np.int64),
        weight_P=weight_P,
        tokens=len(layer.token_T),
        experts=layer.experts,
        unit=float(weight_P[0]) if alike else None,
    )


def combined(*codes: Ints) -> Ints:
    """One number for every combination of codes that occurs, in their order: the first codes count most."""
    found = np.zeros(len(codes[0]), dtype=np.int64)
    for code in codes:
        code = np.asarray(code) - (code.min() if len(code) else 0)
        found = found * (int(code.max(initial=0)) + 1) + code
        if found.max(initial=0) > LARGEST:  # so that the next product fits
            found = np.unique(found, return_inverse=True)[1]
    return np.unique(found, return_inverse=True)[1]


def position_label(position_T: Ints) -> tuple[Ints, tuple[str, ...]]:
    """Positions as a label: 0, 1, 2-3, 4-7, ... A trace of 512 positions has ten values."""
    code_T = np.zeros(len(position_T), dtype=np.int64)
    later = np.asarray(position_T) > 0
    code_T[later] = np.floor(np.log2(np.asarray(position_T)[later])).astype(np.int64) + 1
    last = int(code_T.max()) if len(code_T) else 0
    names = ["0"] + [f"{2**n}" if n == 0 else f"{2**n}-{2 ** (n + 1) - 1}" for n in range(last)]
    return code_T, tuple(names)


def _need(holds: object, otherwise: str) -> None:
    if not holds:
        raise DataError(f"the arrays of a trace do not fit together: {otherwise}")
