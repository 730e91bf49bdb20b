"""One progress line for a whole pool: a bar on a terminal, a line now and then in a log."""

import sys
import time

from tqdm import tqdm

LINE_EVERY = 20.0  # seconds


class Progress:
    """Shows steps done of all steps, and how many runs are where."""

    def __init__(self, total_steps: int, steps_before: int) -> None:
        self._before = steps_before
        self._bar = tqdm(
            total=total_steps,
            initial=steps_before,
            unit="step",
            dynamic_ncols=True,
            disable=not sys.stderr.isatty(),
            bar_format="{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} steps [{elapsed}<{remaining}{postfix}]",
        )
        self._total = total_steps
        self._started = self._last_line = time.monotonic()

    def show(self, steps: int, waiting: int, running: int, done: int, failed: int) -> None:
        counts = f"{running} running, {waiting} waiting, {done} done, {failed} failed"
        if not self._bar.disable:
            self._bar.n = min(steps, self._total)
            self._bar.set_postfix_str(counts)  # draws the bar, too
        elif time.monotonic() - self._last_line >= LINE_EVERY:
            self._last_line = time.monotonic()
            self.say(f"[{_clock(self._last_line - self._started)}] {counts}; {self._share(steps)}")

    def say(self, line: str) -> None:
        """A line that does not disturb the bar."""
        tqdm.write(line, file=sys.stderr)
        sys.stderr.flush()

    def close(self) -> None:
        self._bar.close()

    def _share(self, steps: int) -> str:
        text = f"{steps} of {self._total} steps"
        new = steps - self._before
        if new > 0:
            seconds = (time.monotonic() - self._started) * (self._total - steps) / new
            text += f", about {_clock(seconds)} left"
        return text


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(max(0.0, seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
