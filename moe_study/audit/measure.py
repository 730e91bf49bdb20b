"""What reaches a position, measured by replacing tokens and comparing outputs. Gradients are never asked.

Expert choice, capacity drops and stop-gradients all show a gradient of exactly zero to later tokens while the
output moves with them, so only values count.

TOLERANCE: in float64 a replacement that does not matter still changes how rows are grouped in matrix
products, hence the order of sums, and moves logits of size 10 by 1e-14 to 1e-11. One that matters moves them
by 1e-4 or more in some trial. The tests hold both sides of the gap. Near ties stay on their side: a decision
would have to be closer than the noise, which random weights do once in some 10^8 decisions.

Shape suffixes: B sequences, T positions, V outputs a position.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from moe_study.design.verdict import Verdict

TOLERANCE = 1e-8
PREFIXES = (1, 3, 7, 15, 31, 63)  # tokens kept, where the window is longer
CUTS = (2, 5, 11, 17)  # unaligned lengths to truncate to

Function = Callable[[Tensor, Tensor], Tensor]  # (tokens_BT, label_B) -> outputs_BTV


@dataclass(frozen=True)
class Finding:
    """What the replacements of one kind did where they should not reach, over all trials."""

    change: float = 0.0  # largest absolute change of an output
    first: int | None = None  # first position (from 0) that changed by more than TOLERANCE; None: none did

    @property
    def leaks(self) -> bool:
        return self.first is not None

    def __or__(self, other: "Finding") -> "Finding":
        firsts = [f.first for f in (self, other) if f.first is not None]
        return Finding(max(self.change, other.change), min(firsts, default=None))


@dataclass(frozen=True)
class Measured:
    """The causality of a function of tokens, as measured."""

    own_future: Finding = field(default_factory=Finding)
    others_future: Finding = field(default_factory=Finding)
    mixes_batch: Finding = field(default_factory=Finding)
    truncation: Finding = field(default_factory=Finding)  # f(x[:t]) against f(x)[:t]: depends on the length
    trials: int = 0

    @property
    def verdict(self) -> Verdict:
        return Verdict(self.own_future.leaks, self.others_future.leaks, self.mixes_batch.leaks)

    @property
    def first_leak(self) -> int | None:
        """First position that a later token reached."""
        return (self.own_future | self.others_future).first

    def __or__(self, other: "Measured") -> "Measured":
        return Measured(
            self.own_future | other.own_future,
            self.others_future | other.others_future,
            self.mixes_batch | other.mixes_batch,
            self.truncation | other.truncation,
            self.trials + other.trials,
        )


class Draw:
    """Random batches of tokens and labels, all from one generator.

    Every row has tokens of its own, so that no two rows are ever exactly equal: a tie between rows would be
    broken by rounding. Half of the draws repeat few tokens, which crowds experts and makes near ties.
    """

    def __init__(
        self,
        rows: int,
        length: int,
        tokens_per_row: int,
        seed: int,
        end_of_text: int | None = None,
        labels: int = 4,
    ) -> None:
        self.rows, self.length, self.tokens_per_row, self.labels = rows, length, tokens_per_row, labels
        self.end_of_text = end_of_text
        self.generator = torch.Generator().manual_seed(seed)

    def tokens(self) -> Tensor:
        """A new batch (B, T)."""
        shape = self.rows, self.length
        used = 2 if self.chance(0.5) else self.tokens_per_row
        first_B1 = torch.arange(self.rows).unsqueeze(1) * self.tokens_per_row
        offset_B1 = self.integers(self.tokens_per_row, (self.rows, 1))
        tokens_BT = first_B1 + (offset_B1 + self.integers(used, shape)) % self.tokens_per_row
        if self.end_of_text is not None:
            ends_BT = torch.rand(shape, generator=self.generator) < 0.1
            ends_BT[:, 1:] &= ~ends_BT[:, :-1]  # a document has at least one token of its row's own
            tokens_BT[ends_BT] = self.end_of_text
        return tokens_BT

    def label(self) -> Tensor:
        """New labels (B,)."""
        return self.integers(self.labels, (self.rows,))

    def integers(self, below: int, shape: tuple[int, ...]) -> Tensor:
        return torch.randint(below, shape, generator=self.generator)

    def chance(self, probability: float) -> bool:
        return torch.rand((), generator=self.generator).item() < probability


@torch.inference_mode()
def measure(function: Function, draw: Draw) -> Measured:
    """One trial: a random batch, with suffixes and rows replaced, and truncated."""
    tokens_BT, label_B = draw.tokens(), draw.label()
    before_BTV = _finite(function(tokens_BT, label_B))
    row = int(draw.integers(draw.rows, ()))
    others_B = torch.arange(draw.rows) != row
    own = others = Finding()
    for kept in (p for p in PREFIXES if p < draw.length):
        changed_BT = tokens_BT.clone()
        changed_BT[row, kept:] = draw.tokens()[row, kept:]
        change_BT = _change(function(changed_BT, label_B), before_BTV)[:, :kept]
        own |= _finding(change_BT[row])
        others |= _finding(change_BT[others_B])
        changed_BT = tokens_BT.clone()
        changed_BT[others_B, kept:] = draw.tokens()[others_B, kept:]
        others |= _finding(_change(function(changed_BT, label_B), before_BTV)[row, :kept])
    return Measured(
        own,
        others,
        mixes_batch=_mixing(function, draw, tokens_BT, label_B, before_BTV, row),
        truncation=_truncation(function, tokens_BT, label_B, before_BTV),
        trials=1,
    )


def _mixing(
    function: Function, draw: Draw, tokens_BT: Tensor, label_B: Tensor, before_BTV: Tensor, row: int
) -> Finding:
    """Replace every other row, label included."""
    changed_BT, changed_B = draw.tokens(), draw.label()
    changed_BT[row], changed_B[row] = tokens_BT[row], label_B[row]
    return _finding(_change(function(changed_BT, changed_B), before_BTV)[row])


def _truncation(function: Function, tokens_BT: Tensor, label_B: Tensor, before_BTV: Tensor) -> Finding:
    found = Finding()
    for cut in (c for c in CUTS if c < tokens_BT.shape[1]):
        found |= _finding(_change(function(tokens_BT[:, :cut], label_B), before_BTV[:, :cut]))
    return found


def _change(after_BTV: Tensor, before_BTV: Tensor) -> Tensor:
    """Largest change at each position, (B, T)."""
    return (_finite(after_BTV) - before_BTV).abs().amax(-1)


def _finite(outputs_BTV: Tensor) -> Tensor:
    if not outputs_BTV.isfinite().all():
        raise FloatingPointError("the audited function gave an output that is not finite")
    return outputs_BTV


def _finding(change_T: Tensor) -> Finding:
    """`change_T` may have rows before its last axis."""
    if change_T.numel() == 0:
        return Finding()  # there was no other sequence, or no later token
    change_T = change_T.reshape(-1, change_T.shape[-1]).amax(0)
    moved = (change_T > TOLERANCE).nonzero().flatten().tolist()
    return Finding(float(change_T.max()), moved[0] if moved else None)
