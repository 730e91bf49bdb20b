"""Starts commands by forking a process that has imported what they import: milliseconds, where Python needs a second.

A command is a process like any other, with its own signals, exit code, output, environment and folder; only its
imports were done before. `start` is the tests' side; `python -m tests.launch.starter` is the process that forks.
"""

import atexit
import contextlib
import functools
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO

from moe_study.launch import entry
from tests.launch import toy

LONGEST = 1 << 17  # bytes of a request, nearly all of them the environment


class Command:
    """A started command, with what the tests use of subprocess.Popen."""

    def __init__(self, streams: list[IO[str]], ended: IO[str]) -> None:
        self._streams, self._ended = streams, ended
        self.pid = int(ended.readline())
        self.returncode: int | None = None

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float) -> tuple[str, str]:
        """What it wrote to its output and to its errors until it ended, which must be within so many seconds."""
        if not select.select([self._ended], [], [], timeout)[0]:
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout)
        with self._ended:
            self.returncode = int(self._ended.readline())
        output, errors = (_all_of(stream) for stream in self._streams)
        return output, errors


def _all_of(stream: IO[str]) -> str:
    with stream:
        stream.seek(0)
        return stream.read()


def start(job: str | None, arguments: list[str], folder: Path, *, session: bool = False) -> Command:
    """train.py with `arguments`, in `folder`, with this process's environment; `session`: a group of its own.

    `job` is a function of toy.py that is done in place of the training.
    """
    streams = [tempfile.TemporaryFile("w+", encoding="utf-8") for _ in range(2)]  # noqa: SIM115
    ended, report = os.pipe()
    request = {"job": job, "arguments": arguments, "folder": str(folder), "session": session}
    message = json.dumps(request | {"environment": dict(os.environ)}).encode()
    socket.send_fds(_starter(), [message], [report, *(stream.fileno() for stream in streams)])
    os.close(report)
    return Command(streams, os.fdopen(ended))


@functools.cache
def _starter() -> socket.socket:
    """The way to the process that forks. It ends when this one has."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    line = [sys.executable, "-m", "tests.launch.starter", str(theirs.fileno())]
    process = subprocess.Popen(line, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    theirs.close()
    atexit.register(lambda: (ours.close(), process.wait()))
    return ours


def _serve(inbox: socket.socket) -> int:
    """Fork for each request; returns in the command with its exit code, and here when the tests have ended."""
    while True:
        message, files, _, _ = socket.recv_fds(inbox, LONGEST, 3)
        if not message:
            return 0
        if os.fork() == 0:
            inbox.close()
            return _keep_watch(json.loads(message), *files)
        for file in files:
            os.close(file)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def _keep_watch(request: dict, report: int, *streams: int) -> int:
    """Fork the command, and say its process id and then its exit code; returns in the command alone."""
    if (command := os.fork()) == 0:
        os.close(report)
        return _become(request, *streams)
    os.write(report, f"{command}\n".encode())
    _, status = os.waitpid(command, 0)
    os.write(report, f"{os.waitstatus_to_exitcode(status)}\n".encode())
    os._exit(0)


def _become(request: dict, output: int, errors: int) -> int:
    for stream, number in ((output, 1), (errors, 2)):
        os.dup2(stream, number)
        os.close(stream)
    if request["session"]:
        os.setsid()
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv[:] = ["train.py", *request["arguments"]]
    return entry.main() if request["job"] is None else entry.main(toy.job(request["job"]))


if __name__ == "__main__":
    sys.exit(_serve(socket.socket(fileno=int(sys.argv[1]))))
