"""Leaving in good order when a scheduler or a person asks for it.

SIGTERM (preemption, `scancel`), SIGUSR2 (SLURM's warning before the time limit) and a first Ctrl-C are only
noted; the training loop looks at the note at the end of each step, saves, and raises `Preempted`.
"""

import os
import signal
import threading
from types import FrameType
from typing import Any


class Preempted(Exception):
    """The run was asked to stop, and has saved its state."""

    def __init__(self, signal_name: str, step: int):
        super().__init__(f"stopped by {signal_name} after step {step}; the same command goes on from there")
        self.step = step


class StopRequest:
    """Context in which stop signals are noted instead of killing the process.

    Handlers can only be set in the main thread; elsewhere the context does nothing and `received` stays None.
    """

    SIGNALS = tuple(
        getattr(signal, name) for name in ("SIGTERM", "SIGUSR2", "SIGINT") if hasattr(signal, name)
    )

    def __init__(self) -> None:
        self.received: str | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            for number in self.SIGNALS:
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
        # not print(): the handler may have interrupted a print halfway through its own buffer
        os.write(2, f"{self.received} received: saving at the end of this step\n".encode())
