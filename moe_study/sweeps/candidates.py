"""The runs of a plan beside what led to them: what comparisons and effects are asked of."""

import dataclasses
import functools
from dataclasses import dataclass

from moe_study.design.config import RunConfig
from moe_study.sweeps.compose import Composed
from moe_study.sweeps.partial import Meaning


@dataclass(frozen=True)
class Candidate:
    """One run of the plan, with the composed point that led to it."""

    key: str
    config: RunConfig
    composed: Composed
    meaning: Meaning

    @functools.cached_property
    def point(self) -> str:
        """What it shares with the same point's other seeds."""
        return dataclasses.replace(self.config, run=dataclasses.replace(self.config.run, seed=0)).key
