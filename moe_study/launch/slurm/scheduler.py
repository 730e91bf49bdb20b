"""SLURM's commands, and what their answers mean; nothing else in this project calls them."""

import os
import re
import shutil
import subprocess
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from moe_study.errors import StudyError, reason_of
from moe_study.runs.job_records import PREFIX

TIMEOUT = 60.0  # seconds for a command to answer
LOOK_EVERY = 2.0  # seconds between two looks at what it complains of meanwhile
# A job in one of these will not run again; in any other it may. States that a later SLURM adds count as alive.
ENDED = frozenset(
    {"BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "TIMEOUT"}
)
# How SLURM says that a user, or the whole cluster, has as many jobs as it may have now.
NO_ROOM = re.compile(
    r"job submit limit|MaxSubmitJob|SubmitJobLimit|temporarily unable to accept|job queue full|Resource temporarily"
)
SACCT = ("--noheader", "--parsable2", "--allocations", "--format=JobID,State,JobName%100")
NOT_SENT = re.compile(r"Unable to contact|Socket timed out|Zero Bytes|Connection refused|Communication", re.IGNORECASE)


class SchedulerSilent(StudyError):
    """The scheduler has not answered: what it would have said is not known."""


class NoSlurm(StudyError):
    """This machine has no SLURM."""


class Refused(StudyError):
    """The scheduler does not take such a job."""


class NoRoom(Refused):
    """The scheduler takes no more jobs now, or not as many at once."""


@dataclass(frozen=True)
class QueuedTask:
    """One job of an array, as the scheduler lists it."""

    job_id: str  # of the array
    index: int
    state: str  # in SLURM's words
    name: str
    reason: str = ""  # why it waits

    @property
    def id(self) -> str:
        return f"{self.job_id}_{self.index}"

    @property
    def lives(self) -> bool:
        return self.state not in ENDED


@dataclass(frozen=True)
class Limits:
    """What the driver has to know of a cluster."""

    cluster: str  # its name
    max_array_size: int  # the highest index of an array is one less


class Scheduler(Protocol):
    """All that this project asks of SLURM. Every call raises SchedulerSilent where there is no answer."""

    def limits(self) -> Limits: ...

    def submit(self, script: Path, options: Sequence[str]) -> str:
        """Send an array of jobs; its id. Refused, or NoRoom, where it was not taken."""

    def queue(self, users: Collection[str]) -> list[QueuedTask]:
        """Our jobs of these users; those that have ended, too, for as long as the scheduler remembers them."""

    def state(self, job_id: str) -> str | None:
        """The state of one job of an array (ARRAY_INDEX); None where the scheduler does not know it."""

    def ended(self, arrays: Collection[str]) -> list[QueuedTask]:
        """The jobs of these arrays that have ended, for as long as accounting remembers; [] where there is none."""

    def requeue(self, job_id: str) -> None:
        """Let a running job wait once more; Refused where that cannot be."""

    def cancel(self, ids: Sequence[str]) -> None: ...


class Slurm:
    """The SLURM of this machine; NoSlurm where it has none."""

    def __init__(self) -> None:
        if shutil.which("squeue") is None:
            raise NoSlurm(
                "there is no SLURM on this machine (squeue is not found): rerun the command on a login node of the"
                " cluster, or try it with the private SLURM of make slurm"
            )

    def limits(self) -> Limits:
        said = _call("scontrol", "show", "config")
        settings = dict(re.findall(r"^(\w+)\s*=\s*(.*?)\s*$", said, re.MULTILINE))
        return Limits(settings.get("ClusterName", ""), int(settings.get("MaxArraySize", "1001")))

    def submit(self, script: Path, options: Sequence[str]) -> str:
        try:
            return _call("sbatch", "--parsable", *options, str(script)).strip().partition(";")[0]
        except SchedulerSilent as error:
            if NO_ROOM.search(str(error)):
                raise NoRoom(str(error)) from error
            if isinstance(error.__cause__, subprocess.TimeoutExpired) or NOT_SENT.search(str(error)):
                raise  # it may have arrived all the same
            raise Refused(str(error)) from error

    def queue(self, users: Collection[str]) -> list[QueuedTask]:
        if not users:
            return []
        listed = "%F|%K|%T|%j|%r"
        said = _call("squeue", "--noheader", "--array", "--states=all", f"--user={','.join(users)}", f"-o{listed}")
        rows = (line.split("|", 4) for line in said.splitlines())
        ours = (row for row in rows if len(row) == 5 and row[1].isdecimal() and row[3].startswith(PREFIX))
        return [QueuedTask(job_id, int(index), state, name, why) for job_id, index, state, name, why in ours]

    def state(self, job_id: str) -> str | None:
        return _call("squeue", "--noheader", "--states=all", f"--jobs={job_id}", "-o%T").strip() or None

    def ended(self, arrays: Collection[str]) -> list[QueuedTask]:
        if shutil.which("sacct") is None or not arrays:
            return []
        try:
            said = _call("sacct", *SACCT, f"--jobs={','.join(arrays)}")
        except SchedulerSilent:  # that accounting is switched off is an error, too
            return []
        rows = (re.fullmatch(r"(\d+)_(\d+)\|(\w+)[^|]*\|(.*)", line) for line in said.splitlines())
        tasks = [QueuedTask(row[1], int(row[2]), row[3], row[4]) for row in rows if row is not None]
        return [task for task in tasks if not task.lives]

    def requeue(self, job_id: str) -> None:
        try:
            _call("scontrol", "requeue", job_id)
        except SchedulerSilent as error:
            if isinstance(error.__cause__, subprocess.TimeoutExpired) or NOT_SENT.search(str(error)):
                raise
            raise Refused(str(error)) from error

    def cancel(self, ids: Sequence[str]) -> None:
        _call("scancel", *ids)


def _call(*command: str) -> str:
    """What a command prints; SchedulerSilent, with what it complains of, where it fails."""
    # Inside of a job the variables of that job would give the new ones its size.
    environment = {name: value for name, value in os.environ.items() if name == "SLURM_CONF" or name[:6] != "SLURM_"}
    try:
        process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C must not leave a submission half done
        )
    except OSError as error:
        raise SchedulerSilent(f"{command[0]} cannot be started: {error.strerror}") from error
    output, complaint = _outcome(process, command[0])
    if process.returncode:
        raise SchedulerSilent(f"{command[0]}: {_last_line(complaint) or 'failed without a word'}")
    return output.decode(errors="replace")


def _outcome(process: "subprocess.Popen[bytes]", name: str) -> tuple[bytes, bytes]:
    """What a command has printed when it ends; SchedulerSilent, and its end, where that takes too long."""
    deadline = time.monotonic() + TIMEOUT
    while True:
        try:
            return process.communicate(timeout=LOOK_EVERY)
        except subprocess.TimeoutExpired as error:
            complaint = _last_line(error.stderr or b"")
            # sbatch waits for room by itself, silently and with all that it was asked to send.
            if time.monotonic() > deadline or NO_ROOM.search(complaint):
                process.kill()
                process.communicate()
                raise SchedulerSilent(f"{name} has not answered{f': {complaint}' if complaint else ''}") from error


def _last_line(complaints: bytes) -> str:
    lines = complaints.decode(errors="replace").strip().splitlines()
    return reason_of(lines[-1].partition("error: ")[2] or lines[-1]) if lines else ""
