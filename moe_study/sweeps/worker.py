"""What the local pool runs in each process: one run, with its output in the run's log.txt.

Imported by the fork server before any run, so importing this may start no thread.
"""

import multiprocessing
import os
import signal
import sys
import threading
import time
from multiprocessing import connection
from typing import Any

from moe_study.config import RunConfig, from_plain
from moe_study.guard import EXIT_FAILED, print_error
from moe_study.runs import RunFolder
from moe_study.sweeps.execute import execute


def run_in_child(plain: dict[str, Any], job: str, threads: int, gpu: str | None) -> None:
    """Train the configuration `plain` in this process; the outcome is in the run's status.json."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the pool, which asks its runs to save themselves
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    _end_with_parent()
    config: RunConfig = from_plain(RunConfig, plain)
    try:
        _redirect_output(RunFolder.of(config))
        _set_resources(threads, gpu)
        print(f"--- {time.strftime('%Y-%m-%d %H:%M:%S')} process {os.getpid()}", flush=True)
        execute(config, job)
    except Exception as error:
        print_error(error)
        sys.exit(EXIT_FAILED)


def _end_with_parent() -> None:
    """A SIGTERM to itself when the pool dies, so that no run outlives a killed pool unseen."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        connection.wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def _redirect_output(folder: RunFolder) -> None:
    folder.path.mkdir(parents=True, exist_ok=True)
    log = os.open(folder.log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)


def _set_resources(threads: int, gpu: str | None) -> None:
    os.environ["OMP_NUM_THREADS"] = str(threads)
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    if "torch" in sys.modules:  # preloaded by the fork server
        sys.modules["torch"].set_num_threads(threads)
