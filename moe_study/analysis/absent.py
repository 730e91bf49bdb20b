"""Runs without a result: who they are, what became of them, and why."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

import pandas as pd

from moe_study.analysis.frame import each, not_done

WORDS = {"failed": "failed", "diverged": "diverged", "stale": "stopped without a word", "missing": "was never started"}


@dataclass(frozen=True)
class AbsentRun:
    """One run that a table cannot hold."""

    key: str
    label: str  # its point's, or the key where no configuration can be read
    seed: int | None
    state: str  # as in status.json, or missing, stale, damaged
    progress: str  # "at step 30 of 400", or nothing
    reason: str  # first line of its error, or nothing
    planned_as: str = ""  # what the sweep calls it, where that is known

    @property
    def is_known(self) -> bool:
        """Whether its configuration can be read."""
        return self.label != self.key

    @property
    def fate(self) -> str:
        """What became of it, in words without its name."""
        state = WORDS.get(self.state, f"is {self.state}")
        return f"{state}{f' {self.progress}' if self.progress else ''}{f': {self.reason}' if self.reason else ''}"

    @property
    def sentence(self) -> str:
        if not self.is_known:
            return f"{f'{self.planned_as} ({self.key})' if self.planned_as else self.key} {self.fate}"
        seed = "" if self.seed is None else f", seed {self.seed}"
        return f"{self.label}{seed} ({self.key}) {self.fate}"


def absent_runs(frame: pd.DataFrame) -> tuple[AbsentRun, ...]:
    """Every run of a frame (see load_frame) that has no result, by state, label and seed."""
    runs = not_done(frame)
    return tuple(_absent(run) for run in each(runs.sort_values(["state", "label", "seed", "key"]))) if len(runs) else ()


def without(labels: Collection[str], absent: Iterable[AbsentRun]) -> str:
    """The runs that what is said of these points lacks: what remains may be the better part of a point."""
    own = [run for run in absent if run.label in labels]
    gone = [
        f"{label}: {', '.join(f'seed {run.seed} {run.state}' for run in own if run.label == label)}"
        for label in dict.fromkeys(run.label for run in own)
    ]
    return f" [without {'; '.join(gone)}]" if gone else ""


def states(absent: Iterable[AbsentRun]) -> str:
    """`SEED:STATE SEED:STATE`, for a column of CSV; the key stands for a seed that is not known."""
    return " ".join(f"{run.key if run.seed is None else run.seed}:{run.state}" for run in absent)


def reasons(absent: Iterable[AbsentRun]) -> str:
    """All sentences in one line, for a column of CSV."""
    return " | ".join(run.sentence for run in absent)


def _absent(run: Any) -> AbsentRun:
    progress = ""
    if run.state not in ("queued", "damaged", "missing") and pd.notna(run.step):
        progress = f"at step {run.step:g} of {run.total_steps:g}"
    return AbsentRun(
        run.key,
        run.label,
        int(run.seed) if pd.notna(run.seed) else None,
        run.state,
        progress,
        _first_line(run.error) if isinstance(run.error, str) else "",
        getattr(run, "planned_as", ""),
    )


def _first_line(text: str) -> str:
    return text.strip().splitlines()[0] if text.strip() else ""
