"""The command's side: submit what is missing, join what lives, wait until all has ended; safe to kill and to repeat."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from moe_study.errors import StudyError
from moe_study.launch.slurm.scheduler import NoRoom, QueuedTask, SchedulerSilent
from moe_study.launch.slurm.snapshot import drop_unused
from moe_study.launch.slurm.submit import Sender
from moe_study.launch.slurm.survey import Survey, look
from moe_study.runs.job_records import read_submissions, records_locked
from moe_study.runs.status import State
from moe_study.sweeps.plan import TO_RETRY, TO_START, PlannedRun

LAST_LOOKS, LAST_PAUSE = 15, 1.0  # seconds
# What a driver bears for a while, and says.
SILENCE, DEAF, ROOM = (f"the scheduler {what}" for what in ("does not answer", "takes no jobs", "has no room for jobs"))
LOOKS_BEFORE_GONE = 2  # that find no job for an unfinished run, which may just have written its last word elsewhere


class Watch:
    """What the driver tells while it works; table.py draws it."""

    def show(self, runs: Sequence[PlannedRun], states: dict[str, State], survey: Survey) -> None:
        """The state of things after a look."""

    def say(self, line: str) -> None:
        """Something has happened."""


@dataclass
class Driver:
    """Sees to it that every run of a sweep has a job, and to its end."""

    runs: Sequence[PlannedRun]  # of the whole sweep
    missing: Iterable[PlannedRun]  # in the order in which they shall start
    sender: Sender
    watch: Watch
    runs_per_job: int = 1
    sleep: Callable[[float], None] = time.sleep
    sent: list[str] = field(default_factory=list)  # ids of arrays
    live: int = 0  # jobs, as of the last look and what was sent since
    ended: dict[str, QueuedTask] = field(default_factory=dict)  # the last job to end, by key
    survey: Survey = field(default_factory=Survey)  # of the last look
    _tried: set[str] = field(default_factory=set)  # keys that this command has submitted, or has seen a job of
    _without_job: dict[str, int] = field(default_factory=dict)  # looks in a row, by key
    _since: dict[str, float] = field(default_factory=dict)  # when a trouble began, one of the three above

    def __post_init__(self) -> None:
        self.missing = list(self.missing)
        # A run that had failed is sent only if it was asked for, and only once.
        self._retried = {run.key for run in self.missing if run.state in TO_RETRY}
        self._runs_dir = str(self.runs[0].folder.path.parent)

    def drive(self) -> None:
        """Return when every run has ended, or with wait=false when every missing one is sent.

        Raises StudyError where the scheduler refuses the jobs, or does not answer for too long.
        """
        settings = self.sender.settings
        while True:
            survey, states, left = self.round()
            self.watch.show(self.runs, states, survey)
            if not left and not settings.wait:
                return None
            if not left and not self._is_pending(states, survey):
                return self._see_jobs_off()
            self.sleep(settings.poll)

    def round(self) -> tuple[Survey, dict[str, State], bool]:
        """Look, and submit; the survey, the state of every run, and whether some are still to be sent."""
        with records_locked(self._runs_dir):
            survey = self._look()
            states = {run.key: survey.state_of(run.folder) for run in self.runs}
            self._tried |= {run.key for run in self.runs if survey.is_known(run.key)}
            to_send = [run for run in self._in_order() if self._is_to_send(run, states[run.key])]
            self.live = len({task.id for run in self.runs for task in survey.live.get(run.key, ())})
            left = self._submit(to_send, survey) if to_send and survey.silence is None else bool(to_send)
        for run in to_send:
            if run.key in self._tried:
                states[run.key] = State.QUEUED
        return survey, states, left or any(self._waits_for_word(run, survey) for run in self.missing)

    def how_it_ended(self, key: str) -> str:
        """How the last job of a run ended that this command has seen the end of; nothing where it has seen none."""
        return self.survey.how_it_ended(self.ended[key], key) if key in self.ended else ""

    def _look(self) -> Survey:
        survey = look(read_submissions(self._runs_dir), self.sender.scheduler, self.sender.limits.cluster)
        for record in survey.news:
            record.write()
        if any(record.over for record in survey.news):
            drop_unused(self._runs_dir, read_submissions(self._runs_dir))
        self._bear(SILENCE, survey.silence)
        self.ended.update(survey.ended)
        self.survey = survey
        return survey

    def _see_jobs_off(self) -> None:
        """The runs have ended; give their jobs a moment to do so, too, so that their records are over."""
        for _ in range(LAST_LOOKS):
            with records_locked(self._runs_dir):
                if not any(run.key in self._look().live for run in self.runs):
                    return
            self.sleep(min(LAST_PAUSE, self.sender.settings.poll))

    def _in_order(self) -> list[PlannedRun]:
        first = {run.key for run in self.missing}
        return [*self.missing, *(run for run in self.runs if run.key not in first)]

    def _is_to_send(self, run: PlannedRun, state: State) -> bool:
        if run.key in self._tried:
            return False
        return state in TO_START or (state in TO_RETRY and run.key in self._retried)

    def _waits_for_word(self, run: PlannedRun, survey: Survey) -> bool:
        """Whether it is not known if a missing run has a job: one is recorded that the scheduler has not named."""
        return run.key not in self._tried and run.key in survey.live

    def _submit(self, runs: Sequence[PlannedRun], survey: Survey) -> bool:
        """Send arrays until all runs have a job, or there is no room; whether some are left."""
        tasks = deque(deal(runs, self.runs_per_job))
        size = self.sender.limits.max_array_size
        while tasks:
            chunk = [tasks.popleft() for _ in range(min(size, len(tasks)))]
            after = self.sent[-1] if self.sender.settings.limit is not None and self.sent else None
            try:
                submission = self.sender.send(chunk, after)
            except NoRoom as error:
                tasks.extendleft(reversed(chunk))
                if len(chunk) > 1:
                    size = len(chunk) // 2
                    continue
                self._bear_lack_of_room(len(tasks), survey, error)
                return True
            except SchedulerSilent as error:
                self._bear(DEAF, str(error))
                return True
            assert submission.job_id is not None
            self._since.clear()
            self.sent.append(submission.job_id)
            self._tried.update(submission.keys)
            self.live += len(chunk)
            self.watch.say(f"submitted {len(submission.keys)} runs as job {submission.job_id}")
        return False

    def _bear_lack_of_room(self, left: int, survey: Survey, error: StudyError) -> None:
        if not self.sent and not survey.live:
            raise error  # nothing of ours is in the way
        if not self.sender.settings.wait:
            raise StudyError(
                f"{left} jobs are not sent, since the cluster takes no more now ({error}); rerun the command later,"
                " or leave hydra.launcher.wait=false out"
            )
        self._bear(ROOM, None if survey.live else str(error))  # our own jobs make room when they end

    def _bear(self, trouble: str, complaint: str | None) -> None:
        """Wait in peace while there is something to complain of; StudyError after too long. None: it is over."""
        if complaint is None:
            self._since.pop(trouble, None)
            return
        now = time.monotonic()
        if trouble not in self._since:
            self._since[trouble] = now
            self.watch.say(f"{trouble}, and will be asked again: {complaint}")
        minutes = self.sender.settings.patience
        if now - self._since[trouble] > minutes * 60:
            raise StudyError(
                f"{trouble} for {minutes:g} minutes ({complaint}); jobs that were sent go on, and rerunning the command"
                " joins them again"
            )

    def _is_pending(self, states: dict[str, State], survey: Survey) -> bool:
        """Whether a run may still end by itself: it has a living job, or a process that trains it."""
        pending = False
        for key, state in states.items():
            if state in (State.QUEUED, State.RUNNING) or key in survey.live:
                self._without_job[key] = 0
            else:
                self._without_job[key] = self._without_job.get(key, 0) + 1
            unsure = state in TO_START and key in self._tried and self._without_job[key] < LOOKS_BEFORE_GONE
            pending |= unsure or (not self._without_job[key] and state is not State.DONE)
        return pending


def deal(runs: Sequence[PlannedRun], number: int) -> list[list[PlannedRun]]:
    """Runs to jobs of at most `number` each, dealt out, so that all take about as long: the runs come longest first."""
    jobs = -(-len(runs) // number)
    return [list(runs[first::jobs]) for first in range(jobs)]
