"""What has become of the runs in a folder, read from their files alone."""

import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from moe_study.errors import StudyError
from moe_study.runs.folder import RunFolder, State, Status
from moe_study.runs.listing import folders_in, runs_of_sweep

LAST_LINES = 8  # of a traceback
CLOCKS_AGREE = 2.0  # seconds that the clocks of two machines may differ without a word


class Jobs(Protocol):
    """What somebody knows who has asked a scheduler."""

    @property
    def keys(self) -> Collection[str]:
        """Of runs with a job that lives, or has ended a moment ago."""

    def state_of(self, folder: RunFolder) -> State: ...

    def note(self, key: str) -> str:
        """The jobs of an unfinished run, in a few words."""


@dataclass(frozen=True)
class FoundRun:
    """One run with the state that it was found in."""

    folder: RunFolder
    state: State
    status: Status
    warnings: tuple[str, ...] = ()  # what its result says of how it came about
    jobs: str = ""  # its jobs, where somebody knows of them and it is unfinished


def find_states(runs_dir: str | Path, sweep: str | None = None, jobs: Jobs | None = None) -> list[FoundRun]:
    """All runs of a sweep (those never started, too), or all runs in the folder and those that `jobs` wait for."""
    if sweep is not None:
        folders = runs_of_sweep(runs_dir, sweep)
    else:
        folders = folders_in(Path(runs_dir))
        there = {folder.key for folder in folders}
        folders += [RunFolder(Path(runs_dir) / key) for key in (jobs.keys if jobs else ()) if key not in there]
        if not folders:
            raise StudyError(f"there are no runs in {runs_dir}")
    return [state_of(folder, jobs) for folder in folders]


def state_of(folder: RunFolder, jobs: Jobs | None = None) -> FoundRun:
    """One run as it is now; one whose files cannot be read counts as failed, with that reason."""
    try:
        state = jobs.state_of(folder) if jobs else folder.state()
        result = folder.result() if state is State.DONE else None
        note = jobs.note(folder.key) if jobs and state is not State.DONE else ""
        warnings = (result or {}).get("warnings")
        lines = tuple(map(str, warnings)) if isinstance(warnings, list) else ()
        return FoundRun(folder, state, folder.status(), lines, note)
    except (StudyError, OSError) as error:
        told = str(error) if isinstance(error, StudyError) else f"{folder.path} cannot be read: {error.strerror}"
        unreadable = Status(State.FAILED, error={"type": "StudyError", "message": told, "traceback": ""})
        return FoundRun(folder, State.FAILED, unreadable)


def status_lines(found: Iterable[FoundRun]) -> Iterator[str]:
    """Counts, then what is running, then what failed and why, then what is to be known of results."""
    by_state: dict[State, list[FoundRun]] = {}
    for run in found:
        by_state.setdefault(run.state, []).append(run)
    counts = Counter({state: len(runs) for state, runs in by_state.items()})
    yield ", ".join(f"{counts[state]} {state}" for state in State if counts[state])
    for state in (State.RUNNING, State.QUEUED, State.PREEMPTED, State.STALE, State.FAILED, State.DIVERGED):
        for run in by_state.get(state, []):
            yield f"  {state:<9} {run.folder.path}  {_detail(run)}"
    if running := by_state.get(State.RUNNING):
        yield f"  what a running one says stands in its {running[0].folder.log_file.name}: moe-study logs KEY -f"
    for run in by_state.get(State.MISSING, []):
        if run.jobs:
            yield f"  {State.MISSING:<9} {run.folder.path}  {run.jobs}"
    for run in by_state.get(State.DONE, []):
        yield from (f"  {State.DONE:<9} {run.folder.path}  {warning}" for warning in run.warnings)


def failure_lines(found: Iterable[FoundRun]) -> Iterator[str]:
    """Every failed or diverged run with the end of its traceback."""
    failed = [run for run in found if run.state in (State.FAILED, State.DIVERGED)]
    if not failed:
        yield "no run has failed"
    for run in failed:
        yield f"{run.state:<9} {run.folder.path}  {_detail(run)}"
        traceback = (run.status.error or {}).get("traceback", "").rstrip()
        yield from (f"    {line}" for line in traceback.splitlines()[-LAST_LINES:])


def to_plain_run(run: FoundRun) -> dict[str, Any]:
    """What is known of a run, for programs."""
    status = run.status
    return {
        "key": run.folder.key,
        "state": run.state.value,
        "folder": str(run.folder.path),
        "log": str(run.folder.log_file) if run.folder.log_file.exists() else None,
        "step": status.step,
        "total_steps": status.total_steps,
        "attempts": status.attempts,
        "updated": status.updated or None,
        "host": status.host,
        "pid": status.pid,
        "job": status.job,
        "jobs": run.jobs or None,
        "error": status.error,
        "warnings": list(run.warnings),
    }


def _detail(run: FoundRun) -> str:
    status = run.status
    share = f"step {status.step} of {status.total_steps}" if status.total_steps else ""
    if run.state is State.RUNNING:
        where = f"process {status.pid} on {status.host}"
        parts = (share, _age(time.time() - status.updated), where, run.jobs or (status.job and f"job {status.job}"))
        return ", ".join(filter(None, parts))
    if run.state in (State.FAILED, State.DIVERGED):
        return f"{share + ', ' if share else ''}attempt {status.attempts}: {status.message}; see {run.folder.log_file}"
    return ", ".join(filter(None, (share, status.message, run.jobs)))


def _age(seconds: float) -> str:
    """Since a sign of life, by the clock of this machine; that of the other may be ahead of it."""
    if seconds < -CLOCKS_AGREE:
        return f"a moment ago (its clock is {round(-seconds)} s ahead of the one here)"
    return f"{round(max(0.0, seconds))} s ago"
