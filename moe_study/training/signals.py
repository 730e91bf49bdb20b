"""Leaving in good order when a scheduler or a person asks for it.

SIGTERM (preemption, `scancel`), SIGUSR2 (SLURM's warning before the time limit), SIGHUP (a terminal that is gone) and a
first Ctrl-C are only noted; the training loop looks at the note at the end of each step, saves, and raises `Preempted`.
"""

import contextlib
import os
import select
import signal
import threading
from types import FrameType
from typing import Any


class Preempted(Exception):
    """The run was asked to stop, and has saved its state."""

    def __init__(self, signal_name: str, step: int):
        super().__init__(f"stopped by {signal_name} after step {step}; rerun the command to resume")
        self.step = step


class StopRequest:
    """Context in which stop signals are noted instead of killing the process.

    Handlers can only be set in the main thread; elsewhere the context does nothing and `received` stays None.
    """

    SIGNALS = (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT, signal.SIGHUP)
    MAY_BE_IGNORED = (signal.SIGINT, signal.SIGHUP)  # by nohup, by a shell in the background, by the local pool

    def __init__(self) -> None:
        self.received: str | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            for number in self.SIGNALS:
                if number in self.MAY_BE_IGNORED and signal.getsignal(number) is signal.SIG_IGN:
                    continue
                self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._previous.clear()

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.received is not None:
            raise KeyboardInterrupt  # the second Ctrl-C: leave at once
        self.received = signal.Signals(number).name
        _tell(f"{self.received} received: saving at the end of this step\n")


def _tell(line: str) -> None:
    """A line on standard error, if that can be had at once and without an error.

    Not by print(): the handler may have interrupted a print halfway through its own buffer.
    """
    with contextlib.suppress(OSError, ValueError):
        if select.select([], [2], [], 0)[1]:
            os.write(2, line.encode())
