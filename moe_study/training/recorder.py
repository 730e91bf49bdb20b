"""Where a run tells what it does: the curve, status.json, the terminal or log, and wandb."""

import os
import sys
import time
from typing import Any

from tqdm import tqdm

from moe_study.design.config import RunConfig
from moe_study.runs.folder import RunFolder
from moe_study.training.tracking import Mirror

LINE_EVERY = 10.0  # seconds between two lines about training in a log


class Recorder:
    """Takes records and progress, and passes them on."""

    def __init__(self, config: RunConfig, folder: RunFolder):
        self._folder = folder
        self._total = config.total_steps
        self._config = config
        self._mirror: Mirror | None = None
        self._foreground = config.log.progress and sys.stderr.isatty()
        self._bar: tqdm | None = None
        self._last_line = 0.0

    def begin(self, step: int) -> None:
        """Training starts, or resumes after `step` steps; what was recorded beyond them is dropped."""
        self._folder.drop_metrics_after(step)
        began = self._folder.status().began if step else self._folder.begin_anew()
        self._mirror = Mirror(self._config, self._folder.path, began, self._folder.metrics())
        if self._foreground:
            self._bar = tqdm(total=self._total, initial=step, unit="step", dynamic_ncols=True)
        elif step:
            self.say(f"resumed after step {step} of {self._total}")

    def progress(self, step: int) -> None:
        """`step` steps are done."""
        self._folder.progress(step)
        if self._bar is not None:
            self._bar.update(step - self._bar.n)

    def record(self, *records: dict[str, Any]) -> None:
        """Append to the curve, and show what a person wants to see of it."""
        self._folder.append_metrics(*records)
        for record in records:
            if self._mirror is not None:
                self._mirror.log(record)
            if record["kind"] == "train":
                self._show_training(record)
            elif record["kind"] == "validation":
                self.say(f"step {record['step']}/{self._total}: validation loss {record['loss']:.4f}")

    def flush(self) -> None:
        """Bring the curve to the disk, so that no checkpoint is ever ahead of it."""
        if self._folder.metrics_file.exists():
            with open(self._folder.metrics_file, "rb") as handle:
                os.fsync(handle.fileno())

    def close(self, state: str, summary: dict[str, Any] | None = None, message: str = "") -> None:
        """The run ends with `state`; `summary` is its result, if any."""
        if message:
            self.say(message)
        if self._bar is not None:
            self._bar.close()
        if self._mirror is not None:
            self._mirror.finish(state, summary)

    def _show_training(self, record: dict[str, Any]) -> None:
        speed = record["tokens_per_second"]
        if self._bar is not None:
            self._bar.set_postfix(loss=f"{record['loss']:.3f}", refresh=False)
        elif time.monotonic() - self._last_line >= LINE_EVERY or record["step"] == self._total:
            self._last_line = time.monotonic()
            pace = f", {speed:,.0f} tokens/s" if speed else ""
            self.say(f"step {record['step']}/{self._total}: loss {record['loss']:.4f}{pace}")

    def say(self, text: str) -> None:
        """A line on the terminal or in the log, above the bar if there is one."""
        if self._bar is not None:
            self._bar.write(text, file=sys.stderr)
        else:
            print(text, file=sys.stderr, flush=True)


class Silent(Recorder):
    """For ranks beside the first, which tells for all."""

    def begin(self, step: int) -> None: ...

    def progress(self, step: int) -> None: ...

    def record(self, *records: dict[str, Any]) -> None: ...

    def flush(self) -> None: ...

    def close(self, state: str, summary: dict[str, Any] | None = None, message: str = "") -> None: ...

    def say(self, text: str) -> None: ...
