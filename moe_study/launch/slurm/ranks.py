"""One run by several processes of one job: the job starts them, with the variables that torchrun would set.

The job's own process trains nothing: it passes signals on, so that all ranks agree on a checkpoint, and sees what
became of the run when all have ended.
"""

import os
import pickle
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from moe_study.errors import StudyError
from moe_study.guard import guarded
from moe_study.launch.execute import execute
from moe_study.launch.local.settings import PoolSettings
from moe_study.launch.local.slots import threads_of_a_run
from moe_study.runs.job_records import read_submission

JOB_FILE = "job.pickle"  # an execute.Job, by reference to its function
PASSED_ON = (signal.SIGUSR2, signal.SIGTERM)


def train_by_ranks(submission: Path, index: int, ranks: int) -> None:
    """Train the only run of a job with so many processes; StudyError if one of them has failed."""
    with socket.socket() as chosen:
        chosen.bind(("127.0.0.1", 0))
        port = chosen.getsockname()[1]
    shared = {"WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    command = (sys.executable, "-m", "moe_study.launch.slurm.ranks", str(submission), str(index))
    processes: list[subprocess.Popen[bytes]] = []
    with _passed_on(processes):
        for rank in range(ranks):
            environment = {**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}
            processes.append(subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL))
        codes = [process.wait() for process in processes]
    if any(codes):
        raise StudyError(f"of the {ranks} processes of this run some have failed: exit codes {codes}")


@contextmanager
def _passed_on(processes: list[subprocess.Popen[bytes]]) -> Iterator[None]:
    def send(number: int, _frame: object) -> None:
        for process in processes:
            process.send_signal(number)

    before = {number: signal.signal(number, send) for number in PASSED_ON}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _train_as_rank(folder: str, index: int) -> int:
    submission = read_submission(folder)
    (config,) = submission.configs(index)
    job: Any = pickle.loads((submission.folder / JOB_FILE).read_bytes())
    execute(config, job, threads_of_a_run(PoolSettings.of(submission.pool), config.run.device))
    return 0


def main() -> int:
    for number in PASSED_ON:  # while Python imports, and while it ends; the job sends SIGUSR2 again and again
        signal.signal(number, signal.SIG_IGN)
    return guarded(lambda: _train_as_rank(sys.argv[1], int(sys.argv[2])))


if __name__ == "__main__":
    sys.exit(main())
