"""A scheduler that a test plays: it takes arrays, and starts, requeues and loses jobs when it is told to."""

import os
import socket
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from moe_study.design.config import RunConfig
from moe_study.errors import StudyError
from moe_study.launch.execute import Job
from moe_study.launch.slurm.scheduler import Limits, NoRoom, QueuedTask, Refused, SchedulerSilent
from moe_study.launch.slurm.task import Task
from moe_study.runs.folder import RunFolder
from moe_study.runs.job_records import read_submission

ENDINGS = {0: "COMPLETED"}  # by exit code; any other: FAILED


class DriverKilled(BaseException):
    """The command that was submitting is gone."""


@dataclass
class ScriptedTask:
    """One job of an array."""

    array: str
    index: int
    name: str
    folder: Path
    state: str = "PENDING"
    process: "Process | None" = None
    starts: int = 0

    @property
    def id(self) -> str:
        return f"{self.array}_{self.index}"


@dataclass
class ScriptedScheduler:
    """Fulfils scheduler.Scheduler. Between two calls a test does what SLURM and its people do."""

    max_array_size: int = 1001
    room: int = 10**6  # living jobs that it takes at most
    next_id: int = 1
    silent: bool = False
    # What the next submission meets: "lost", "killed before", "killed after", "answer lost", "late".
    on_submit: str = ""
    tasks: list[ScriptedTask] = field(default_factory=list)
    sent: int = 0  # jobs
    unlisted: str | None = None  # a state that nobody has heard of, for all that live
    unanswered: set[str] = field(default_factory=set)  # names of arrays of which nobody knows whether they were taken
    accounted: list[QueuedTask] = field(default_factory=list)
    late: list[ScriptedTask] = field(default_factory=list)  # jobs that are on their way
    cut_off: list["Process"] = field(default_factory=list)  # that go on, of jobs that the scheduler takes for lost
    meanwhile: Callable[[], None] | None = None  # what happens once, between the next look at the queue and its answer
    on_arrival: Callable[[Sequence[ScriptedTask]], None] = lambda tasks: None

    def limits(self) -> Limits:
        return Limits("scripted", self.max_array_size)

    def submit(self, script: Path, options: Sequence[str]) -> str:
        self._answer()
        given = dict(option.removeprefix("--").partition("=")[::2] for option in options)
        first, last = given["array"].partition("%")[0].split("-")
        assert first == "0"
        event, self.on_submit = self.on_submit, ""
        if event:
            self.unanswered.add(given["job-name"])
        if event == "killed before":
            raise DriverKilled
        if event == "lost":
            raise SchedulerSilent("Socket timed out on send/recv operation")
        if int(last) >= self.max_array_size:
            self.unanswered.discard(given["job-name"])
            raise Refused("Invalid job array specification")
        if self.living() + int(last) + 1 > self.room:
            self.unanswered.discard(given["job-name"])
            raise NoRoom("Job violates accounting/QOS policy (job submit limit, ...)")
        array = str(self.next_id)
        self.next_id += 1
        tasks = [ScriptedTask(array, i, given["job-name"], script.parent) for i in range(int(last) + 1)]
        if event == "late":
            self.late += tasks
            raise SchedulerSilent("Socket timed out on send/recv operation")
        self._take(tasks)
        if event == "killed after":
            raise DriverKilled
        if event == "answer lost":
            raise SchedulerSilent("sbatch has not answered for 60 s")
        return array

    def queue(self, users: Collection[str]) -> list[QueuedTask]:
        self._answer()
        listed = [
            QueuedTask(task.array, task.index, self._told(task.state), task.name, "Resources") for task in self.tasks
        ]
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            meanwhile()
        return listed

    def state(self, job_id: str) -> str | None:
        self._answer()
        return next((task.state for task in self.tasks if task.id == job_id), None)

    def ended(self, arrays: Collection[str]) -> list[QueuedTask]:
        return [task for task in self.accounted if task.job_id in arrays]

    def requeue(self, job_id: str) -> None:
        self._answer()
        task = next(task for task in self.tasks if task.id == job_id)
        assert task.state == "RUNNING", f"{job_id} was {task.state} when it was requeued"
        task.state = "PENDING"

    def cancel(self, ids: Sequence[str]) -> None:
        raise AssertionError("nobody asked for that")

    def _take(self, tasks: Sequence[ScriptedTask]) -> None:
        self.on_arrival(tasks)
        self.tasks += tasks
        self.sent += len(tasks)

    def living(self) -> int:
        return sum(task.state in ("PENDING", "RUNNING") for task in self.tasks)

    def in_state(self, state: str) -> list[ScriptedTask]:
        return [task for task in self.tasks if task.state == state]

    # What happens to jobs ---------------------------------------------------------------------------------------

    def start(self, task: ScriptedTask) -> None:
        """Let a job begin, up to where it trains; it ends at once if there is nothing to train."""
        task.state, task.process = "RUNNING", Process(task, self)
        task.starts += 1
        task.process.begin()
        self._reap(task)

    def finish(self, task: ScriptedTask) -> None:
        self._tell(task, "finish")

    def warn(self, task: ScriptedTask) -> None:
        """SIGUSR2: the run saves itself, and the job asks to be requeued."""
        self._tell(task, "stop")

    def kill(self, task: ScriptedTask, state: str = "FAILED") -> None:
        """SIGKILL to the process; what SLURM makes of it is `state`: PENDING after the failure of a node."""
        self._tell(task, "die")
        task.state = state

    def stop(self, task: ScriptedTask, state: str) -> None:
        """SIGTERM, as SLURM sends it with its own decision taken: CANCELLED, or PENDING where it has requeued it."""
        before, task.state = task.state, state
        if before == "RUNNING":
            self._tell(task, "stop")
            task.state = state

    def lose(self, task: ScriptedTask, state: str) -> None:
        """The scheduler loses sight of a job, whose process goes on; `state` as in `kill`."""
        assert task.process is not None
        self.cut_off.append(task.process)
        task.process, task.state = None, state

    def end_cut_off(self, process: "Process", word: str) -> None:
        process.tell(word)
        self.cut_off.remove(process)

    def arrive(self) -> None:
        """What was on its way is there."""
        late, self.late = self.late, []
        self._take(late)

    def rebuild(self, first_id: int = 1) -> None:
        """Another cluster of the same name, without jobs, that counts from the beginning."""
        for task in self.in_state("RUNNING"):
            self.kill(task)
        self.tasks.clear()
        self.late.clear()
        self.next_id = first_id

    def _tell(self, task: ScriptedTask, word: str) -> None:
        assert task.process is not None
        task.process.tell(word)
        self._reap(task)

    def _reap(self, task: ScriptedTask) -> None:
        assert task.process is not None
        if task.process.code is not None and task.state == "RUNNING":
            task.state = ENDINGS.get(task.process.code, "FAILED")

    def _told(self, state: str) -> str:
        return self.unlisted if self.unlisted and state in ("PENDING", "RUNNING") else state

    def _answer(self) -> None:
        if self.silent:
            raise SchedulerSilent("Unable to contact slurm controller")


class Process:
    """The process of a job, as a thread that goes on only when it is told to, so that every order can be played."""

    training: "Process | None" = None  # the one that goes on now

    def __init__(self, task: ScriptedTask, scheduler: ScriptedScheduler) -> None:
        self.code: int | None = None
        self._failure: AssertionError | None = None
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._task, self._scheduler = task, scheduler
        self._waits, self._goes_on = threading.Event(), threading.Event()
        self._word = ""

    def begin(self) -> None:
        names = {"SLURM_JOB_ID": self._task.id, "SLURM_ARRAY_JOB_ID": self._task.array}
        os.environ.update({**names, "SLURM_ARRAY_TASK_ID": str(self._task.index)})
        Process.training = self
        self._thread.start()
        assert self._waits.wait(60)
        self._judge()

    def tell(self, word: str) -> None:
        Process.training = self
        self._word = word
        self._goes_on.set()
        self._thread.join(60)
        assert not self._thread.is_alive()
        self._judge()

    def train(self, config: RunConfig, folder: RunFolder) -> Mapping[str, Any] | None:
        """The job: wait for a word, and do as it says."""
        assert folder.key not in in_training, f"{folder.key} is trained twice at once"
        in_training.add(folder.key)
        try:
            self._waits.set()
            assert self._goes_on.wait(60)
        finally:
            in_training.discard(folder.key)
        if self._word == "stop":
            folder.preempt(1)
            return None
        if self._word == "die":
            raise SystemExit
        ended.append(folder.key)
        return {"trained by": self._task.id}

    def _work(self) -> None:
        try:
            self.code = Task(
                str(self._task.folder), self._task.index, scheduler=self._scheduler, redirect=lambda folder: None
            ).do()
        except SystemExit:
            self._leave_as_a_killed_process_does()
            self.code = 137
        except StudyError:
            self.code = 1
        except AssertionError as error:
            self._failure = error
        finally:
            self._waits.set()

    def _judge(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _leave_as_a_killed_process_does(self) -> None:
        for key in read_submission(self._task.folder).tasks[self._task.index]:
            folder = RunFolder(self._task.folder.parents[1] / key)
            text = folder.status_file.read_text()
            text = text.replace('"preempted"', '"running"').replace(f'"{socket.gethostname()}"', '"another-host"')
            folder.status_file.write_text(text)


in_training: set[str] = set()  # keys of runs
ended: list[str] = []  # keys of runs, once for every time that one was trained to its end


def train(config: RunConfig, folder: RunFolder) -> Mapping[str, Any] | None:
    """Given to the jobs of a scripted scheduler in place of the training."""
    assert Process.training is not None
    return Process.training.train(config, folder)


JOB = Job(train, reads_data=False)
Event = Callable[[], None]
