"""What one job does: its runs, unless somebody else has them; then it waits once more if it was told to stop."""

import os
import socket
import sys
import time
from collections.abc import Callable, Sequence

from moe_study.design.config import RunConfig
from moe_study.guard import EXIT_FAILED, EXIT_PREEMPTED
from moe_study.launch.run_log import redirect_output
from moe_study.launch.slurm.scheduler import Refused, Scheduler, SchedulerSilent, Slurm
from moe_study.launch.slurm.settings import SlurmSettings
from moe_study.launch.slurm.step import needs_step, train_in_step
from moe_study.launch.slurm.survey import Survey, look
from moe_study.launch.slurm.train import train_runs
from moe_study.runs.folder import RunFolder
from moe_study.runs.job_records import read_submission, read_submissions
from moe_study.runs.status import State, Status

ASK_AGAIN = 3.0  # seconds between questions to a silent scheduler
TRIES = 4


class Task:
    """One job of a submission. `heard` are the signals that have come while no training listened."""

    def __init__(
        self,
        folder: str,
        index: int,
        heard: Sequence[str] = (),
        scheduler: Scheduler | None = None,
        redirect: Callable[[RunFolder], None] = redirect_output,
    ) -> None:
        self._submission = read_submission(folder)
        self._index, self._configs = index, self._submission.configs(index)
        self._heard = heard
        self._scheduler = scheduler or Slurm()
        self._redirect = redirect
        # Not SLURM_JOB_ID: that of the last job to start is the id of the whole array.
        self._id = f"{os.environ.get('SLURM_ARRAY_JOB_ID')}_{index}"

    def do(self) -> int:
        """Train what is to be trained; the exit code, from which SLURM knows how the job has ended."""
        wanted = [config for config in self._configs if self._is_ours(RunFolder.of(config))]
        if wanted and not self._heard:
            self._train(wanted)
        folders = [RunFolder.of(config) for config in wanted]
        states = [folder.state() for folder in folders]
        if any(_was_stopped(folder.status(), state) for folder, state in zip(folders, states, strict=True)):
            return self._wait_once_more(folders)
        ended = all(state in (State.DONE, State.DIVERGED) for state in states)
        return 0 if ended and not any(map(self._has_failed_here, self._configs)) else EXIT_FAILED

    def _has_failed_here(self, config: RunConfig) -> bool:
        """Whether a run has failed in this job, in an earlier start, too."""
        folder = RunFolder.of(config)
        return folder.state() is State.FAILED and folder.status().job == self._id

    def _train(self, wanted: Sequence[RunConfig]) -> None:
        if len(self._configs) == 1:
            self._redirect(RunFolder.of(wanted[0]))
        settings = SlurmSettings.recorded(self._submission.settings)
        if needs_step(settings):
            train_in_step(self._submission, self._index, [config.key for config in wanted], settings)
        else:
            train_runs(self._submission, self._index, wanted)

    def _is_ours(self, folder: RunFolder) -> bool:
        """Whether this job shall train the run: not one that is done, was tried since, or that a process has."""
        state = folder.state(self._lives)
        status = folder.status()
        if state is State.RUNNING:
            say(f"{folder.path} is being trained by {_owner(status)}; this job leaves it")
            return False
        tried = status.attempts > self._submission.attempts.get(folder.key, 0)
        return not (state is State.DONE or (state in (State.FAILED, State.DIVERGED) and tried))

    def _lives(self, key: str, status: Status) -> bool | None:
        """Whether the job of another process lives. An earlier start of this very job does not."""
        if status.job == self._id:
            return False
        return self._survey().lives(key, status)

    def _survey(self) -> Survey:
        submission = self._submission
        return look(read_submissions(submission.runs_dir), self._scheduler, submission.cluster)

    def _wait_once_more(self, folders: Sequence[RunFolder]) -> int:
        """Requeue this job, unless SLURM has requeued or cancelled it: then it does not count as running any more."""
        restarts = int(os.environ.get("SLURM_RESTART_COUNT") or 0)  # also those that did not get as far as a run
        most = max(restarts + 1, *map(self._attempts, folders))
        if most >= self._submission.max_attempts:
            say(f"not requeued: {most} starts without an end; rerun the sweep's command to go on")
            return EXIT_PREEMPTED
        for left in reversed(range(TRIES)):
            try:
                if self._scheduler.state(self._id) == "RUNNING":
                    say("saved; this job waits in the queue once more")
                    self._scheduler.requeue(self._id)
                break
            except SchedulerSilent as error:
                say(f"cannot requeue this job: {error}")
                if left:
                    time.sleep(ASK_AGAIN)
            except Refused as error:
                say(f"not requeued: {error}; rerun the sweep's command to go on")
                break
        return EXIT_PREEMPTED

    def _attempts(self, folder: RunFolder) -> int:
        """Starts of the run in this submission."""
        return folder.status().attempts - self._submission.attempts.get(folder.key, 0)


def _was_stopped(status: Status, state: State) -> bool:
    """Whether a signal has kept the run from ending; a full disk or a defect has left an error."""
    return state in (State.MISSING, State.STALE, State.PREEMPTED) and status.error is None


def _owner(status: Status) -> str:
    place = "this host" if status.host == socket.gethostname() else status.host
    return f"job {status.job}" if status.job else f"process {status.pid} on {place}"


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
