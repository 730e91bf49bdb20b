"""What some points cost at the loss of another, beside what was claimed: described, so it has no verdict."""

from dataclasses import dataclass

from moe_study.analysis.effects.equal_loss import EqualLoss
from moe_study.analysis.effects.equal_loss_wording import equal_loss_sentence, share_text
from moe_study.analysis.study import Part, Study
from moe_study.sweeps.claims import Claim, Claims

DESCRIBED = "described"
LACKING = "not asked of the runs that were kept: rerun the sweep's command, then moe-study results"


@dataclass(frozen=True)
class Reached:
    """One cost at equal loss that a sweep file asks for, and what came of it."""

    claim: Claim
    part: Part | None = None  # the evaluation set that answers it
    found: EqualLoss | None = None

    @property
    def is_claimed(self) -> bool:
        return bool(self.claim.says)

    @property
    def in_short(self) -> str:
        """The question, and the share with its interval."""
        if self.found is None or not self.found.seeds:
            return self.sentence
        e = self.found
        return f"{self.claim.why} {share_text(e)} of the {e.asked.cost.words} of {e.asked.point}: {e.name}"

    @property
    def sentence(self) -> str:
        """The question, what was claimed, what was found."""
        says = f" Claimed: {self.claim.says}." if self.claim.says else ""
        if self.found is None or self.part is None:
            return f"{self.claim.why}{says} {LACKING}"
        return f"{self.claim.why}{says} **{DESCRIBED}**: {equal_loss_sentence(self.found, self.part.leaking)}"


def reached(study: Study, claims: Claims) -> list[Reached]:
    """One for each cost at equal loss that a sweep file asks for, from the evaluation set with the most seeds of it."""
    found = []
    for claim in claims.reaches:
        own = [(part, one) for part in study.parts for one in part.reaches if claim.is_of(one.asked.written)]
        part, one = max(own, key=lambda pair: len(pair[1].seeds), default=(None, None))
        found.append(Reached(claim, part, one))
    return found
