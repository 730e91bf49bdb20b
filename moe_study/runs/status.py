"""What a run says about itself: its state, and the fields of its status.json."""

from dataclasses import dataclass
from enum import StrEnum

from moe_study.errors import reason_of


class State(StrEnum):
    MISSING = "missing"  # never started; not written
    STALE = "stale"  # says running, but its process is gone; not written
    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    DIVERGED = "diverged"  # its loss stopped being finite; a result, not a defect
    PREEMPTED = "preempted"  # saved a checkpoint on a signal; resumes when started again


@dataclass(frozen=True)
class Status:
    """What status.json holds."""

    state: State = State.MISSING
    attempts: int = 0
    step: int = 0
    total_steps: int = 0
    updated: float = 0.0  # unix seconds
    error: dict[str, str] | None = None  # type, message, traceback
    pid: int | None = None
    host: str | None = None
    job: str | None = None  # the scheduler's name for it
    began: int = 1  # the attempt that last began at step 0; later ones have resumed it

    @property
    def message(self) -> str:
        """The reason that the error gives, or nothing."""
        return reason_of((self.error or {}).get("message", ""))
