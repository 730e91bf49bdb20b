"""What a waiting driver shows: a live table on a terminal, a line now and then in a log."""

import sys
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table as RichTable

from moe_study.errors import StudyError
from moe_study.launch.slurm.driver import Watch
from moe_study.launch.slurm.survey import Survey
from moe_study.runs.folder import RunFolder
from moe_study.runs.status import State
from moe_study.sweeps.plan import Plan, PlannedRun

LINE_EVERY = 20.0  # seconds
ROWS = 15  # running runs that a reader can follow


class Table(Watch):
    """Counts by state, and how far the running ones are."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._console = Console(file=sys.stderr, highlight=False)
        self._live = Live(console=self._console, auto_refresh=False) if self._console.is_terminal else None
        self._started = time.monotonic()
        self._last: tuple[float, str] = (-LINE_EVERY, "")

    def __enter__(self) -> "Table":
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave the last state of things on the terminal."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def say(self, line: str) -> None:
        self._console.print(line, markup=False, soft_wrap=True)

    def show(self, runs: Sequence[PlannedRun], states: dict[str, State], survey: Survey) -> None:
        line = f"[{_clock(time.monotonic() - self._started)}] {summary(states, survey)}"
        if self._live is not None:
            running = [run for run in runs if states[run.key] is State.RUNNING]
            self._live.update(Group(line.replace("[", "\\["), *self._rows(running, survey)), refresh=True)
            return
        when, what = self._last
        now, text = time.monotonic(), summary(states, survey)
        if text != what and now - when >= LINE_EVERY:
            self._last = now, text
            self.say(line)

    def _rows(self, running: Sequence[PlannedRun], survey: Survey) -> list[Any]:
        if not running:
            return []
        table = RichTable("run", "job", "step", "of", "host", "", box=None, pad_edge=False)
        for run in running[:ROWS]:
            step, host = _progress(run.folder)
            ids = [task.id for task in survey.live.get(run.key, ())]
            table.add_row(
                run.key, ids[0] if ids else "", step, str(run.config.total_steps), host, self._plan.label(run)
            )
        return [table, *([f"and {len(running) - ROWS} more"] if len(running) > ROWS else [])]


def summary(states: dict[str, State], survey: Survey) -> str:
    """Counts by state, and why jobs wait."""
    counts = Counter(states.values())
    listed = ", ".join(f"{counts[state]} {state}" for state in State if counts[state])
    if survey.silence is not None:
        return f"{listed}; the scheduler does not answer"
    reasons = Counter(
        task.reason for tasks in survey.live.values() for task in tasks if task.state == "PENDING" and task.reason
    )
    why = ", ".join(f"{reason} ({number})" for reason, number in reasons.most_common(2) if reason != "None")
    return f"{listed}; waiting for: {why}" if why else listed


def _progress(folder: RunFolder) -> tuple[str, str]:
    try:
        status = folder.status()
    except StudyError:
        return "", ""
    return str(status.step), status.host or ""


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
