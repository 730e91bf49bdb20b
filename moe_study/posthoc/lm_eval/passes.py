"""How a routing can be asked for probabilities of text: in which passes, or not at all.

One pass over a text and what follows it gives every token the probability that it has after the tokens before it, as
long as no decision reads later tokens, other documents of the batch, or how much text there is. Where a decision does,
the pass would give the answer away, or depend on what is scored beside it. What is declared of the routing, for a pass
that holds one document, and what an audit has measured of the run both count.
"""

from dataclasses import dataclass

from moe_study.design.causality import depends_on_length, verdict
from moe_study.design.routing import Routing
from moe_study.design.verdict import CAUSAL, Verdict
from moe_study.errors import StudyError
from moe_study.runs.folder import RunFolder
from moe_study.runs.result import causality_of


@dataclass(frozen=True)
class Passes:
    """What a pass may hold, for probabilities that are those of an autoregressive model."""

    growing: bool = False  # every token from a pass over its prefix alone, as if the text ended there
    alone: bool = False  # one document at a time: its neighbours in a batch would change it

    @property
    def words(self) -> str:
        """For tables; empty where documents are read as usual."""
        parts = ["growing prefixes"] * self.growing + ["one document at a time"] * self.alone
        return ", ".join(parts)


def passes_of(folder: RunFolder, allow_growing: bool = False) -> Passes:
    """How the run is to be read. StudyError where that takes growing prefixes and `allow_growing` is not set."""
    config = folder.read_config()
    passes, why = passes_for(config.routing, config.model.context, causality_of(folder.result() or {}))
    if passes.growing and not allow_growing:
        raise StudyError(
            f"{folder.path}: its routing {why}; --growing-prefixes scores each token by a pass over its prefix alone"
        )
    return passes


def passes_for(routing: Routing, context: int, measured: Verdict = CAUSAL) -> tuple[Passes, str]:
    """How such a routing is to be read, and why by growing prefixes, where it is."""
    in_a_batch, by_itself = verdict(routing, context), verdict(routing, context, sequences=1)
    # Where the number of tokens in a pass counts, those of other documents count, too, if only as a number.
    alone = in_a_batch.mixes_batch or measured.mixes_batch or depends_on_length(routing, context)
    why = ""
    if by_itself.own_future or measured.own_future:
        why = "reads later tokens, so one pass would give the answer away"
    elif depends_on_length(routing, context, sequences=1):
        why = "depends on how much text there is, so one pass would tell how long the answer is"
    return Passes(growing=bool(why), alone=alone), why
