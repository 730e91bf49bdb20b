"""The pool's side of the processes that train: started from a fork server, given one run or several in turn."""

import contextlib
import dataclasses
import multiprocessing
import os
import sys
import time
import types
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing import connection, forkserver
from multiprocessing.context import ForkServerContext, ForkServerProcess
from typing import Any

from moe_study.design.plain import to_plain
from moe_study.launch.execute import Job
from moe_study.launch.local.slots import Slot
from moe_study.launch.local.worker import train_in_turn
from moe_study.sweeps.conf import PACKAGE
from moe_study.sweeps.plan import PlannedRun

PATIENCE = 60.0  # seconds for a process without a run to end
SERVER_ENVIRONMENT = {
    # One thread while it imports; each process then sets its own number.
    **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"),
    # glibc gives every large tensor fresh pages and takes them back; kept instead, a nano run takes a tenth less time.
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(1 << 30),
    # The allocator of pyarrow would start a thread, and a fork leaves threads behind.
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
    # A look for GPUs must not start CUDA, which no fork can use any more; with this it does not.
    "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
}


def start_server(preload: Sequence[str], environment: Mapping[str, str]) -> ForkServerContext:
    """The fork server. It imports what all runs need, and `preload`, with `environment` set, while this returns."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["moe_study.launch.local.fork_server", *preload])
    path = os.pathsep.join(filter(None, (str(PACKAGE.parent), os.environ.get("PYTHONPATH"))))
    with _environment({**SERVER_ENVIRONMENT, **environment, "PYTHONPATH": path}):
        forkserver.ensure_running()
    return context


class TrainingProcess:
    """One process, and the run that it was last given."""

    run: PlannedRun
    since: float  # unix seconds, when it was given the run

    def __init__(self, context: ForkServerContext, slot: Slot, job: Job) -> None:
        self.slot = slot
        self.pipe, theirs = context.Pipe()
        arguments = (theirs, job, slot.threads, dict(slot.environment))
        self.process: ForkServerProcess = context.Process(target=train_in_turn, args=arguments)
        with without_main():
            self.process.start()
        theirs.close()

    def train(self, run: PlannedRun) -> None:
        """Give it a run. A process that is gone by now is noticed like one that dies a moment later."""
        self.run, self.since = run, time.time()
        log = dataclasses.replace(run.config.log, progress=False)
        with contextlib.suppress(BrokenPipeError):
            self.pipe.send(to_plain(dataclasses.replace(run.config, log=log)))

    def read_end(self) -> None:
        """After `wait_for`: take the answer that the run has ended, or the exit code of the process if it has died."""
        try:
            self.pipe.recv()
        except (EOFError, OSError):
            self.process.join()

    @property
    def serves_again(self) -> bool:
        """On a GPU, where a process needs seconds to begin. On a CPU each run has its own: its memory is measured."""
        return self.slot.gpu is not None and self.process.is_alive()

    def end(self) -> None:
        """Let it go once its run has ended; off a GPU before this returns, since MPS may be stopped next."""
        self.pipe.close()
        if self.slot.gpu is not None:
            self.process.join(PATIENCE)


def wait_for(processes: list[TrainingProcess], seconds: float) -> list[TrainingProcess]:
    """Those whose run has ended, or that died; none after so many seconds without either."""
    by_event: dict[Any, TrainingProcess] = {
        event: process for process in processes for event in (process.pipe, process.process.sentinel)
    }
    ready = connection.wait(list(by_event), timeout=seconds)
    return list({id(by_event[event]): by_event[event] for event in ready}.values())


@contextlib.contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
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


@contextlib.contextmanager
def without_main() -> Iterator[None]:
    """Keep multiprocessing from importing the main script (and Hydra with it) in every process: 0.2 s each."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
