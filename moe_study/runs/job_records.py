"""Jobs sent to a scheduler: what an array of them shall train, noted before it is sent and confirmed after.

    RUNS_DIR/.submissions/NAME/record.json     a Submission: who sent it and where to, keys by index, its id
                               configs.json    the configurations of its runs, by key
                               INDEX.txt       what the scheduler's shell said in one job, beside the runs' log.txt

NAME is unique, and the jobs carry it. Records are advice: what has become of a run stands in its folder.
"""

import contextlib
import dataclasses
import getpass
import os
import secrets
import shutil
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moe_study.design.config import RunConfig
from moe_study.design.plain import from_plain, to_plain
from moe_study.errors import ConfigError, StudyError
from moe_study.files import read_json, write_json_atomic
from moe_study.runs.lock import LockHeld, hold

PREFIX = "moe-study-"  # of every name, so that our jobs are known among others
LOCK_PATIENCE = 300.0  # seconds; another driver holds the lock while it submits


@dataclass(frozen=True)
class Submission:
    """One array of jobs."""

    name: str
    runs_dir: str  # as the command line has it, so that messages do
    cluster: str  # the scheduler's name for it
    user: str
    host: str  # that it was sent from
    sent: float  # unix seconds
    tasks: tuple[tuple[str, ...], ...]  # by index of the array: keys of the runs that one job trains
    attempts: dict[str, int]  # of each run, before
    max_attempts: int  # of a run in this submission, before its job does not requeue itself any more
    settings: dict[str, Any]  # of the launcher, with which a run can be sent again
    pool: dict[str, Any]  # settings of the pool in a job of several runs
    code: str  # the copy of the code that its jobs import, in .code beside the submissions
    job_id: str | None = None  # of the array; None: not confirmed
    over: bool = False  # none of its jobs lives, so that nobody has to ask any more

    @property
    def folder(self) -> Path:
        return Path(self.runs_dir) / ".submissions" / self.name

    @property
    def keys(self) -> list[str]:
        return [key for task in self.tasks for key in task]

    def shell_output(self, index: int) -> Path:
        """What the scheduler's shell said in one job, and Python before it had a log to write to."""
        return self.folder / f"{index}.txt"

    def write(self) -> None:
        write_json_atomic(self.folder / "record.json", to_plain(self), indent=None)

    def write_configs(self, configs: Sequence[RunConfig]) -> None:
        plain = {config.key: to_plain(config) for config in configs}
        write_json_atomic(self.folder / "configs.json", plain, indent=None)

    def configs(self, index: int) -> list[RunConfig]:
        """The runs of one job."""
        plain = read_json(self.folder / "configs.json") or {}
        try:
            return [from_plain(RunConfig, plain[key]) for key in self.tasks[index]]
        except (ConfigError, IndexError, KeyError) as error:
            raise StudyError(f"{self.folder} does not say what job {index} shall train: {error}") from error

    def discard(self) -> None:
        """The scheduler has not taken it, and never will."""
        shutil.rmtree(self.folder, ignore_errors=True)


def new_submission(
    runs_dir: str, cluster: str, tasks: Sequence[Sequence[RunConfig]], attempts: Mapping[str, int], **settings: Any
) -> Submission:
    """A record, written and not yet confirmed, for an array of jobs that train `tasks`."""
    submission = Submission(
        name=f"{PREFIX}{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}",
        runs_dir=runs_dir,
        cluster=cluster,
        user=getpass.getuser(),
        host=socket.gethostname(),
        sent=time.time(),
        tasks=tuple(tuple(config.key for config in task) for task in tasks),
        attempts=dict(attempts),
        **settings,
    )
    submission.write_configs([config for task in tasks for config in task])
    submission.write()
    return submission


def read_submission(folder: str | os.PathLike[str]) -> Submission:
    """The record in the folder of a submission; StudyError where it is missing or damaged."""
    path = Path(folder) / "record.json"
    plain = read_json(path)
    try:
        submission: Submission = from_plain(Submission, plain)
    except (ConfigError, TypeError, AttributeError) as error:
        raise StudyError(f"{path} is damaged ({error}); remove {folder}, then rerun the sweep's command") from error
    return dataclasses.replace(submission, runs_dir=str(Path(folder).parents[1]))  # the runs may have been moved


def read_submissions(runs_dir: str | os.PathLike[str]) -> list[Submission]:
    """All submissions of runs in `runs_dir`, the oldest first."""
    root = Path(runs_dir) / ".submissions"
    folders = [entry.path for entry in os.scandir(root)] if root.is_dir() else []
    found = [read_submission(folder) for folder in folders if os.path.exists(os.path.join(folder, "record.json"))]
    return sorted(found, key=lambda submission: submission.sent)


@contextlib.contextmanager
def records_locked(runs_dir: str | os.PathLike[str]) -> Iterator[None]:
    """Let no other driver look and submit at the same time; StudyError if one keeps doing so."""
    try:
        with hold(Path(runs_dir) / ".submissions" / ".lock", LOCK_PATIENCE):
            yield
    except LockHeld:
        raise StudyError(f"another command is submitting runs of {runs_dir}; rerun this one when it is done") from None
