"""Training by other processes than the job's own: by several ranks, on one node or on many, or inside of a container.

The job's own process, on the first of its nodes and outside of the container, trains nothing. It starts a step by srun
(one rank in a container that is a plain command needs none), passes signals on, so that all ranks agree on a
checkpoint, and sees what became of the runs when the step has ended. Ranks find one another as those of torchrun do,
by WORLD_SIZE, RANK, LOCAL_RANK, MASTER_ADDR and MASTER_PORT.
"""

import os
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from moe_study.errors import StudyError
from moe_study.launch.slurm.settings import SlurmSettings
from moe_study.launch.slurm.train import SIGNALS
from moe_study.runs.job_records import Submission

# Of a process: until Python listens, a signal must not end it (what is ignored stays so across exec), and a container
# may start in a folder of its own.
BEGINNING = "trap '' USR2 TERM; cd \"$0\" && exec \"$@\""


def needs_step(settings: SlurmSettings) -> bool:
    return settings.processes > 1 or settings.container is not None or settings.python is not None


def train_in_step(submission: Submission, index: int, keys: Sequence[str], settings: SlurmSettings) -> None:
    """Train these runs of a job; StudyError if a process has failed that nobody had told to stop."""
    command = step_command(settings, [str(submission.folder), str(index), *keys])
    started: list[subprocess.Popen[bytes]] = []
    with _passed_on(started) as told:
        try:
            environment = {**os.environ, **rendezvous(settings)}
            started.append(subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL))
        except OSError as error:
            raise StudyError(f"{command[0]} cannot be started ({error.strerror}), so no run is trained") from error
        code = started[0].wait()
    if code and not told:
        who = f"one of the {settings.processes} processes" if settings.processes > 1 else "the process"
        raise StudyError(f"{who} that should train has failed: {command[0]} ended with exit code {code}")


def step_command(settings: SlurmSettings, arguments: Sequence[str]) -> list[str]:
    """What starts the processes that train."""
    container = shlex.split(settings.container or "")
    options = container if container and container[0].startswith("-") else []  # of srun, as Pyxis adds them
    srun = [
        "srun",
        f"--nodes={settings.nodes}",
        f"--ntasks={settings.processes}",
        f"--ntasks-per-node={settings.ranks}",
        f"--cpus-per-task={settings.cpus}",
        "--kill-on-bad-exit=1",  # the others would wait for a rank that is gone
        *options,
    ]
    python = settings.python or sys.executable
    training = ["/bin/sh", "-c", BEGINNING, os.getcwd(), python, "-m", "moe_study.launch.slurm.train", *arguments]
    return [*(srun if settings.processes > 1 or options else ()), *(() if options else container), *training]


def rendezvous(settings: SlurmSettings) -> Mapping[str, str]:
    """Where ranks meet: on this node, the first of the job's, unless the set-up says where."""
    if settings.processes == 1:
        return {}
    with socket.socket() as chosen:
        chosen.bind(("", 0))
        port = chosen.getsockname()[1]
    place = {"MASTER_ADDR": socket.gethostname(), "MASTER_PORT": str(port)}
    said = {name: os.environ[name] for name in place if name in os.environ}
    return {"WORLD_SIZE": str(settings.processes), **place, **said}


@contextmanager
def _passed_on(processes: Sequence["subprocess.Popen[bytes]"]) -> Iterator[list[int]]:
    """Pass signals on; those that have come."""
    told: list[int] = []

    def send(number: int, _frame: object) -> None:
        told.append(number)
        for process in processes:
            process.send_signal(number)

    before = {number: signal.signal(number, send) for number in SIGNALS}
    try:
        yield told
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
