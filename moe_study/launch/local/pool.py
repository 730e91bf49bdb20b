"""The local launcher: a bounded number of runs at a time, each in a process that trains nothing else meanwhile.

Processes are forked from a server that has imported what every run needs (and never runs a parallel region), so a
start costs milliseconds. What became of a run is read from its status.json; a process that died without a word
is noticed by its exit code and recorded. One failure never stops the others.
"""

import contextlib
import os
import signal
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerContext

from moe_study.errors import StudyError
from moe_study.guard import EXIT_PREEMPTED
from moe_study.launch.execute import TRAINING, Job, compile_caches
from moe_study.launch.local import mps
from moe_study.launch.local.processes import TrainingProcess, start_server, wait_for
from moe_study.launch.local.progress import Progress
from moe_study.launch.local.settings import PoolSettings
from moe_study.launch.local.slots import Slot, make_slots
from moe_study.runs.folder import RunFolder, State, Status
from moe_study.sweeps.plan import PlannedRun

POLL = 0.5  # seconds between two looks at the runs
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2)


@dataclass
class _Pool:
    context: ForkServerContext
    job: Job
    grace: float
    free: list[Slot]
    waiting: deque[PlannedRun]
    steps: dict[str, int]  # by key, as last read
    busy: list[TrainingProcess] = field(default_factory=list)
    ended: dict[str, Status] = field(default_factory=dict)  # by key
    stop: bool = False  # it was asked to
    hurry: bool = False  # by a second Ctrl-C; a scheduler may send its warning again and again
    stop_deadline: float | None = None


def run_pool(runs: Sequence[PlannedRun], settings: PoolSettings, job: Job = TRAINING) -> dict[str, Status]:
    """Train `runs` in their order and return how each ended, by key; runs cut off by a stop may be missing.

    Raises StudyError("stopped ...") after Ctrl-C or a signal to end, once the runs are saved.
    """
    devices = {run.config.run.device for run in runs}
    slots = make_slots(settings, devices)
    steps = {run.key: _step(run.folder) for run in runs}
    progress = Progress(sum(run.config.total_steps for run in runs), sum(steps.values()))
    with contextlib.closing(progress), mps.shared(slots, settings.mps) as slots:
        preload = job.preload + job.preload_on_gpus * any(slot.gpu for slot in slots)
        pool = _Pool(start_server(preload, _compiling(runs, slots)), job, settings.grace, slots, deque(runs), steps)
        try:
            with _stop_signals(pool):
                _train_all(pool, progress)
        finally:
            for process in pool.busy:  # only after an error in here
                process.process.terminate()
    if pool.stop:
        saved = sum(status.state is State.PREEMPTED for status in pool.ended.values())
        raise StudyError(f"stopped: {saved} runs are saved; rerun the command to resume them")
    return pool.ended


def _compiling(runs: Sequence[PlannedRun], slots: Sequence[Slot]) -> dict[str, str]:
    """Variables for torch.compile: one cache for all runs, and for its own processes no more than a run's cores."""
    variables = {"TORCHINDUCTOR_COMPILE_THREADS": str(slots[0].threads)}
    if runs:
        variables |= compile_caches(runs[0].folder)
    return {name: value for name, value in variables.items() if name not in os.environ}


def _train_all(pool: _Pool, progress: Progress) -> None:
    while pool.waiting or pool.busy:
        _stop_if_asked(pool, progress)
        while pool.waiting and pool.free:
            process = TrainingProcess(pool.context, pool.free.pop(0), pool.job)
            process.train(pool.waiting.popleft())
            pool.busy.append(process)
        for process in wait_for(pool.busy, POLL):
            _reap(pool, process, progress)
        _show(pool, progress)


def _reap(pool: _Pool, process: TrainingProcess, progress: Progress) -> None:
    """Note how the run of a process ended, and give the process the next one, or its slot to another process."""
    run = process.run
    process.read_end()
    try:
        status = _outcome(pool, process)
    except StudyError as error:  # a full disk may keep the folder from saying it
        status = Status(State.PREEMPTED, error={"type": "StudyError", "message": str(error), "traceback": ""})
    pool.ended[run.key] = status
    pool.steps[run.key] = status.step
    if status.message:
        progress.say(f"{run.folder.path} {status.state}: {status.message}")
    if pool.waiting and not pool.stop and process.serves_again:
        process.train(pool.waiting.popleft())
    else:
        process.end()
        pool.busy.remove(process)
        pool.free.append(process.slot)


def _outcome(pool: _Pool, process: TrainingProcess) -> Status:
    """What status.json says, or, if the process died without a word, what its exit code says."""
    folder, status = process.run.folder, process.run.folder.status()
    if status.pid == process.process.pid and status.updated >= process.since and status.state is not State.RUNNING:
        return status
    if status.state is State.DONE or folder.is_locked():
        return status  # somebody else trained it, or is at it
    code = process.process.exitcode or 0
    if pool.stop and code < 0:
        folder.preempt(status.step)
    elif code < 0:
        hint = "; the kernel does this when memory runs out" if -code == signal.SIGKILL else ""
        folder.fail(f"its process was killed by {signal.Signals(-code).name}{hint}")
    elif code == EXIT_PREEMPTED:  # a full disk has kept it from saying more
        folder.preempt(status.step, f"the disk or the memory gave out; see {folder.log_file}")
    else:
        folder.fail(f"its process ended with exit code {code} before it could say why; see {folder.log_file}")
    return folder.status()


@contextlib.contextmanager
def _stop_signals(pool: _Pool) -> Iterator[None]:
    def request(number: int, _frame: object) -> None:
        pool.hurry |= pool.stop and number == signal.SIGINT
        pool.stop = True

    heeded = [number for number in STOP_SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]  # nohup
    before = {number: signal.signal(number, request) for number in heeded}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _stop_if_asked(pool: _Pool, progress: Progress) -> None:
    """First ask every run to save itself; kill at a second Ctrl-C, or when patience ends."""
    if not pool.stop:
        return
    pool.waiting.clear()
    if pool.stop_deadline is None:
        pool.stop_deadline = time.monotonic() + pool.grace
        progress.say(f"stopping: {len(pool.busy)} runs save a checkpoint (Ctrl-C now stops them at once)")
        for process in pool.busy:
            process.process.terminate()
    elif pool.hurry or time.monotonic() > pool.stop_deadline:
        for process in pool.busy:
            process.process.kill()


def _show(pool: _Pool, progress: Progress) -> None:
    for process in pool.busy:
        pool.steps[process.run.key] = _step(process.run.folder)
    states = [status.state for status in pool.ended.values()]
    progress.show(
        sum(pool.steps.values()),
        waiting=len(pool.waiting),
        running=len(pool.busy),
        done=states.count(State.DONE) + states.count(State.DIVERGED),
        failed=states.count(State.FAILED),
    )


def _step(folder: RunFolder) -> int:
    try:
        return folder.status().step
    except StudyError:
        return 0
