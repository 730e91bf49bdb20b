"""Every finished run of a frame asked for its lazy experts, for statements over seeds."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from moe_study.analysis.frame import done
from moe_study.analysis.specialisation.lazy import LAZY
from moe_study.design.routing import Selection
from moe_study.errors import ConfigError
from moe_study.posthoc.knockout.in_turn import ask_in_turn
from moe_study.posthoc.knockout.lazy import DRAWS, TOKENS, LazyRun, lazy_experts
from moe_study.runs.folder import RunFolder


@dataclass(frozen=True)
class LazyWish:
    """How much text, how many random sets of experts, and below which part of an even share an expert is lazy."""

    tokens: int = TOKENS
    draws: int = DRAWS
    limit: float = LAZY

    def check(self) -> None:
        """ConfigError for what no run could be asked."""
        for name in ("tokens", "draws"):
            if getattr(self, name) < 1:
                raise ConfigError(f"--{name} {getattr(self, name)} measures nothing; take at least 1")
        if not 0 < self.limit < 1:
            raise ConfigError(
                f"--lazy {self.limit:g}: an expert is lazy below a part of an even share, which lies between 0 and 1"
            )


@dataclass
class LazyRuns:
    """What came of it; both frames have label, seed and leaks in front."""

    experts: pd.DataFrame = field(default_factory=pd.DataFrame)
    drops: pd.DataFrame = field(default_factory=pd.DataFrame)
    left_out: list[str] = field(default_factory=list)  # a sentence for each run that could not be asked


def lazy_over_runs(frame: pd.DataFrame, wish: LazyWish, say: Callable[[str], None] = print) -> LazyRuns:
    """Ask the finished runs with experts of `frame` (analysis.frame.load_frame), with a line for each through `say`."""
    wish.check()
    finished = done(frame)
    runs = finished[finished["routing.selection"] != Selection.DENSE]

    def ask(folder: RunFolder, _run: Any) -> LazyRun:
        return lazy_experts(folder, wish.tokens, wish.draws, wish.limit)

    parts, left_out = ask_in_turn(runs, ask, "asked", say)
    found = LazyRuns(left_out=left_out)
    if parts:
        found.experts, found.drops = (
            pd.concat([_of_run(run, getattr(asked, part)) for run, asked in parts], ignore_index=True)
            for part in LazyRun._fields
        )
    return found


def _of_run(run: "object", table: pd.DataFrame) -> pd.DataFrame:
    front = pd.DataFrame({name: [getattr(run, name)] * len(table) for name in ("label", "seed", "leaks")})
    return pd.concat([front, table.reset_index(drop=True)], axis=1)
