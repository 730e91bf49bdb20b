"""What can reach an output: the verdict on a routing, declared by its type (causality.py) or measured (audit/)."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Verdict:
    """What can reach the output at position t of a sequence."""

    own_future: bool = False  # later tokens of the same sequence
    others_future: bool = False  # later tokens of other sequences in the batch
    mixes_batch: bool = False  # anything at all of other sequences in the batch

    @property
    def leaks(self) -> bool:
        """True where perplexity is not an autoregressive one: some later token is read."""
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
OTHERS_FUTURE = Verdict(others_future=True, mixes_batch=True)
EVERYTHING = Verdict(True, True, True)
