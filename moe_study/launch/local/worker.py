"""What the local pool runs in each process: runs in turn, each with its output in its own log.txt.

Imported by the fork server before any run, so importing this may start no thread.
"""

import contextlib
import gc
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Mapping
from multiprocessing import connection

from moe_study.design.config import RunConfig
from moe_study.design.plain import from_plain
from moe_study.guard import EXIT_FAILED, EXIT_PREEMPTED, forgiving_output, is_resumable, print_error
from moe_study.launch.execute import Job, execute
from moe_study.launch.run_log import redirect_output
from moe_study.runs.folder import RunFolder


def train_in_turn(inbox: connection.Connection, job: Job, threads: int, environment: Mapping[str, str]) -> None:
    """Do `job` with each configuration that comes through `inbox`, and answer when it has ended; ends with the pool.

    How a run ended is in its status.json. After an error the process ends, so that no run follows on a broken GPU.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the pool, which asks its runs to save themselves
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    gc.freeze()  # looking for garbage among what the server has imported takes a fifth of a second each time
    end_with_parent()
    _set_resources(threads, environment)
    with contextlib.suppress(EOFError):
        while True:
            _train(from_plain(RunConfig, inbox.recv()), job, threads)
            _forget()
            inbox.send("ended")


def _train(config: RunConfig, job: Job, threads: int) -> None:
    try:
        redirect_output(RunFolder.of(config))
        with forgiving_output():  # the log may lie on a full disk
            execute(config, job, threads)
    except Exception as error:
        with forgiving_output():
            print_error(error)
        sys.exit(EXIT_PREEMPTED if is_resumable(error) else EXIT_FAILED)


def _forget() -> None:
    """Leave nothing of a run on the GPU and in torch's counters that the next one could see."""
    if "torch" in sys.modules and (cuda := sys.modules["torch"].cuda).is_initialized():
        gc.collect()
        cuda.empty_cache()
        cuda.reset_peak_memory_stats()
    if "torch._dynamo" in sys.modules:
        sys.modules["torch._dynamo"].reset()


def end_with_parent() -> None:
    """A SIGTERM to itself when the process that started it dies, so that nothing outlives a killed command unseen."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        connection.wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def _set_resources(threads: int, environment: Mapping[str, str]) -> None:
    os.environ.update(environment)
    os.environ["OMP_NUM_THREADS"] = str(threads)
    if "torch" in sys.modules:  # preloaded by the fork server
        sys.modules["torch"].set_num_threads(threads)
