"""The local launcher: a bounded number of runs at a time, each in a process of its own.

Processes are forked from a server that has imported torch and nothing more (it never runs a parallel region), so a
start costs milliseconds. What became of a run is read from its status.json; a process that died without a word
is noticed by its exit code and recorded. One failure never stops the others.
"""

import contextlib
import dataclasses
import multiprocessing
import os
import signal
import sys
import time
import types
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing import connection, forkserver
from multiprocessing.context import ForkServerProcess
from typing import Any

from moe_study.config import to_plain
from moe_study.errors import StudyError
from moe_study.runs import RunFolder, State, Status
from moe_study.sweeps.compose import project_root
from moe_study.sweeps.execute import TRAIN
from moe_study.sweeps.plan import PlannedRun
from moe_study.sweeps.progress import Progress
from moe_study.sweeps.slots import Slot, make_slots
from moe_study.sweeps.worker import run_in_child

POLL = 0.5  # seconds between two looks at the runs
# glibc gives every large tensor fresh pages and takes them back; kept instead, a nano run takes a tenth less time.
ALLOCATOR = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 30)}
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class PoolSettings:
    """The fields of conf/hydra/launcher/local.yaml."""

    workers: int | str = "auto"
    threads_per_run: int = 1
    runs_per_gpu: int = 1
    grace: float = 60.0


@dataclass
class _Child:
    run: PlannedRun
    process: ForkServerProcess
    slot: Slot
    started: float


@dataclass
class _Pool:
    settings: PoolSettings
    job: str
    waiting: deque[PlannedRun]
    free: list[Slot]
    children: dict[int, _Child] = field(default_factory=dict)  # by the process's sentinel
    ended: dict[str, Status] = field(default_factory=dict)  # by key
    steps: dict[str, int] = field(default_factory=dict)  # by key, as last read
    stop_requests: int = 0
    stop_deadline: float | None = None


def run_pool(runs: Sequence[PlannedRun], settings: PoolSettings, job: str = TRAIN) -> dict[str, Status]:
    """Train `runs` in their order and return how each ended, by key; runs cut off by a stop may be missing.

    Raises StudyError("stopped ...") after Ctrl-C or SIGTERM, once the runs have saved themselves.
    """
    slots = make_slots(
        settings.workers, settings.threads_per_run, settings.runs_per_gpu, {run.config.run.device for run in runs}
    )
    pool = _Pool(settings, job, deque(runs), slots, steps={run.key: _step(run.folder) for run in runs})
    progress = Progress(sum(run.config.total_steps for run in runs), sum(pool.steps.values()))
    context = _start_server(job, settings.threads_per_run)
    try:
        with _stop_signals(pool):
            while pool.waiting or pool.children:
                _stop_if_asked(pool, progress)
                while pool.waiting and pool.free:
                    _start(pool, context)
                for sentinel in connection.wait(list(pool.children), timeout=POLL):
                    assert isinstance(sentinel, int)
                    _reap(pool, sentinel, progress)
                _show(pool, progress)
    finally:
        for child in pool.children.values():  # only after an error in here
            child.process.terminate()
        progress.close()
    if pool.stop_requests:
        saved = sum(status.state is State.PREEMPTED for status in pool.ended.values())
        raise StudyError(f"stopped: {saved} runs saved themselves; the same command goes on from there")
    return pool.ended


def _start_server(job: str, threads: int) -> Any:
    """The fork server, started with the environment that its imports shall see."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["moe_study.sweeps.worker", job.partition(":")[0]])
    path = os.pathsep.join(filter(None, (str(project_root()), os.environ.get("PYTHONPATH"))))
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    with _environment({**dict.fromkeys(names, str(threads)), **ALLOCATOR, "PYTHONPATH": path}):
        forkserver.ensure_running()
    return context


@contextlib.contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _start(pool: _Pool, context: Any) -> None:
    run, slot = pool.waiting.popleft(), pool.free.pop(0)
    threads = pool.settings.threads_per_run
    log = dataclasses.replace(run.config.log, progress=False, threads=run.config.log.threads or threads)
    plain = to_plain(dataclasses.replace(run.config, log=log))
    process = context.Process(target=run_in_child, args=(plain, pool.job, threads, slot.gpu), name=run.key)
    started = time.time()
    with _without_main():
        process.start()
    pool.children[process.sentinel] = _Child(run, process, slot, started)


@contextlib.contextmanager
def _without_main() -> Iterator[None]:
    """Keep multiprocessing from importing the main script (and Hydra with it) in every process: 0.2 s each."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _reap(pool: _Pool, sentinel: int, progress: Progress) -> None:
    child = pool.children.pop(sentinel)
    child.process.join()
    pool.free.append(child.slot)
    try:
        status = _outcome(pool, child)
    except StudyError as error:  # a full disk may keep the folder from saying it
        status = Status(State.FAILED, error={"type": "StudyError", "message": str(error), "traceback": ""})
    pool.ended[child.run.key] = status
    pool.steps[child.run.key] = status.step
    if status.state in (State.FAILED, State.DIVERGED):
        progress.say(f"{child.run.folder.path} {status.state}: {status.message}")


def _outcome(pool: _Pool, child: _Child) -> Status:
    """What status.json says, or, if the process died without a word, what its exit code says."""
    folder, status = child.run.folder, child.run.folder.status()
    if status.pid == child.process.pid and status.updated >= child.started and status.state is not State.RUNNING:
        return status
    if status.state is State.DONE or folder.is_locked():
        return status  # somebody else trained it, or is at it
    code = child.process.exitcode or 0
    if pool.stop_requests and code < 0:
        folder.preempt(status.step)
    elif code < 0:
        hint = "; the kernel does this when memory runs out" if -code == signal.SIGKILL else ""
        folder.fail(f"its process was killed by {signal.Signals(-code).name}{hint}")
    else:
        folder.fail(f"its process ended with exit code {code} before it could say why; see {folder.log_file}")
    return folder.status()


@contextlib.contextmanager
def _stop_signals(pool: _Pool) -> Iterator[None]:
    def request(*_: object) -> None:
        pool.stop_requests += 1

    heeded = [number for number in STOP_SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]  # nohup
    before = {number: signal.signal(number, request) for number in heeded}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _stop_if_asked(pool: _Pool, progress: Progress) -> None:
    """First request: ask every run to save itself. Second one, or no patience left: kill."""
    if not pool.stop_requests:
        return
    pool.waiting.clear()
    if pool.stop_deadline is None:
        pool.stop_deadline = time.monotonic() + pool.settings.grace
        progress.say(f"stopping: {len(pool.children)} runs save themselves (again to stop at once)")
        for child in pool.children.values():
            child.process.terminate()
    elif pool.stop_requests > 1 or time.monotonic() > pool.stop_deadline:
        for child in pool.children.values():
            child.process.kill()


def _show(pool: _Pool, progress: Progress) -> None:
    for child in pool.children.values():
        pool.steps[child.run.key] = _step(child.run.folder)
    states = [status.state for status in pool.ended.values()]
    progress.show(
        sum(pool.steps.values()),
        waiting=len(pool.waiting),
        running=len(pool.children),
        done=states.count(State.DONE) + states.count(State.DIVERGED),
        failed=states.count(State.FAILED),
    )


def _step(folder: RunFolder) -> int:
    try:
        return folder.status().step
    except StudyError:
        return 0
