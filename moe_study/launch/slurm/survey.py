"""Which recorded jobs live, from one question to the scheduler; what is not known counts as alive."""

import functools
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from moe_study.errors import reason_of
from moe_study.launch.slurm.scheduler import NoSlurm, QueuedTask, Scheduler, SchedulerSilent, Slurm
from moe_study.runs.folder import RunFolder
from moe_study.runs.job_records import Submission, read_submissions
from moe_study.runs.status import State, Status

UNKNOWN = "UNKNOWN"  # our word for the state of a job that the scheduler could not be asked about
TAIL = 2000  # bytes of an output, in which its last line is looked for
IN_FLIGHT = 120.0  # seconds for which an unconfirmed submission may still be on its way


@dataclass
class Survey:
    """What the records and the scheduler say together; the first three by key of a run."""

    live: dict[str, list[QueuedTask]] = field(default_factory=dict)  # jobs that live, or may
    ended: dict[str, QueuedTask] = field(default_factory=dict)  # the last that has ended, while the scheduler knows it
    recorded: dict[str, set[str]] = field(default_factory=dict)  # ids of all jobs that were sent to this cluster
    silence: str | None = None  # what kept the scheduler from answering
    news: list[Submission] = field(default_factory=list)  # records as they should stand now, where they do not yet
    last: dict[str, tuple[Submission, int]] = field(default_factory=dict)  # the last job that was sent, by key
    scheduler: Scheduler | None = None  # that can be asked for more

    def lives(self, key: str, status: Status) -> bool | None:
        """Whether the job that a status names lives; None where that is not known."""
        if status.job is None or status.job not in self.recorded.get(key, ()):
            return None
        states = {task.state for task in self.live.get(key, ()) if task.id == status.job}
        return None if UNKNOWN in states else bool(states)

    def state_of(self, folder: RunFolder) -> State:
        """What has become of a run, its living jobs included."""
        state = folder.state(self.lives)
        live = self.live.get(folder.key)
        if live is None or state in (State.DONE, State.RUNNING):
            return state
        return State.RUNNING if any(task.state == "RUNNING" for task in live) else State.QUEUED

    @property
    def keys(self) -> Collection[str]:
        """Of runs with a job that lives, or may, or had something to say before it could begin."""
        said = {key for key, (submission, index) in self.last.items() if _size(submission.shell_output(index))}
        return self.live.keys() | said

    def note(self, key: str) -> str:
        """The jobs of an unfinished run, in a few words; where none lives, what became of the last one."""
        if key in self.live:
            return ", ".join(_in_words(task) for task in self.live[key])
        if key in self.ended:
            return self.how_it_ended(self.ended[key], key)
        if key not in self.last:
            return ""
        submission, index = self.last[key]
        if (task := self._accounted.get((submission.name, index))) is not None:
            return self.how_it_ended(task, key)
        words = self._last_words(key)
        return f"job {submission.job_id}_{index} is gone{words}" if words else ""

    def how_it_ended(self, task: QueuedTask, key: str) -> str:
        """How the last job of the run of that key did, in a few words."""
        return f"job {task.id} ended as {task.state}{self._last_words(key)}"

    def _last_words(self, key: str) -> str:
        """Of the job's shell, or of the run."""
        submission, index = self.last[key]
        for output in (submission.shell_output(index), RunFolder(Path(submission.runs_dir) / key).log_file):
            if lines := _tail(output):
                return f" ({output}: {reason_of(lines[-1])})"
        return ""

    @functools.cached_property
    def _accounted(self) -> Mapping[tuple[str, int], QueuedTask]:
        """Jobs that have ended, by name and index, where there is accounting; asked once, and only if it is wanted."""
        if self.scheduler is None:
            return {}
        arrays = dict.fromkeys(submission.job_id for submission, _ in self.last.values() if submission.job_id)
        return {(task.name, task.index): task for task in self.scheduler.ended(list(arrays))}

    def is_known(self, key: str) -> bool:
        """Whether the run has a job that the scheduler has named."""
        return any(task.state != UNKNOWN for task in self.live.get(key, ()))


def ask_here(runs_dir: str | Path) -> Survey | None:
    """`ask` the SLURM of this machine; None where it has none, or no job was ever sent for these runs."""
    try:
        return ask(runs_dir, Slurm()) if read_submissions(runs_dir) else None
    except NoSlurm:
        return None


def ask(runs_dir: str | Path, scheduler: Scheduler) -> Survey:
    """A look at all jobs that are recorded for the runs of a folder; nobody is asked where none may live."""
    submissions = read_submissions(runs_dir)
    cluster = ""
    if any(not submission.over for submission in submissions):
        try:
            cluster = scheduler.limits().cluster
        except SchedulerSilent as error:
            return replace(look(submissions, scheduler, cluster), silence=str(error))
    return look(submissions, scheduler, cluster)


def look(submissions: Sequence[Submission], scheduler: Scheduler, cluster: str) -> Survey:
    """Ask once about all jobs of `submissions` that may live. `cluster` is the one that the scheduler answers for.

    Writes nothing; `news` of what it returns are the records of arrays that the queue confirms, or that are over.
    """
    survey = Survey(scheduler=scheduler)
    open_ones = [submission for submission in submissions if not submission.over]
    queue: dict[str, dict[int, QueuedTask]] = {}  # by name and index
    try:
        for task in scheduler.queue({submission.user for submission in open_ones}):
            queue.setdefault(task.name, {})[task.index] = task
    except SchedulerSilent as error:
        survey.silence = str(error)
    for submission in submissions:
        listed = queue.get(submission.name, {})
        here = submission.cluster == cluster
        before = submission
        if submission.job_id is None and listed:
            submission = replace(submission, job_id=next(iter(listed.values())).job_id)
        known = survey.silence is None and here and not _in_flight(submission)
        tasks = dict(listed)
        for index in range(len(submission.tasks)):
            if not known and not submission.over and index not in listed:
                tasks[index] = QueuedTask(submission.job_id or "", index, UNKNOWN, submission.name)
        _note(survey, submission, tasks, here)
        if known and not submission.over and not any(task.lives for task in tasks.values()):
            submission = replace(submission, over=True)
        if submission != before:
            survey.news.append(submission)
    return survey


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _tail(path: Path) -> list[str]:
    """The last lines of a text."""
    if not (size := _size(path)):
        return []
    with open(path, "rb") as handle:
        handle.seek(max(0, size - TAIL))
        return handle.read().decode("utf-8", errors="replace").strip().splitlines()


def _in_words(task: QueuedTask) -> str:
    if task.state == UNKNOWN:
        return f"job {task.id}, of which nothing is known now" if task.job_id else "a job that may be on its way"
    if task.state != "PENDING":
        return f"job {task.id}"
    return f"job {task.id} waits" + (f" ({task.reason})" if task.reason not in ("", "None") else "")


def _in_flight(submission: Submission) -> bool:
    return submission.job_id is None and time.time() - submission.sent < IN_FLIGHT


def _note(survey: Survey, submission: Submission, tasks: Mapping[int, QueuedTask], here: bool) -> None:
    for index, keys in enumerate(submission.tasks):
        task = tasks.get(index)
        for key in keys:
            survey.last[key] = submission, index
            if (here or submission.over) and submission.job_id is not None:
                survey.recorded.setdefault(key, set()).add(f"{submission.job_id}_{index}")
            if task is not None and task.lives:
                survey.live.setdefault(key, []).append(task)
            elif task is not None:
                survey.ended[key] = task
