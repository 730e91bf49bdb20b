"""One run's folder, runs/KEY: its identity, state, curve and result. The files' names stand here alone.

A run is claimed (one process at a time, by a lock that dies with the process), started, and ends as done, failed,
diverged or preempted; what status.json says is checked against the lock, so that a killed process leaves no run
"running" for ever. All files but the growing metrics.jsonl and log.txt are written whole or not at all. What the
files hold is known to the modules beside this one: stored_config, status, curve, activations, provenance.

    folder = RunFolder.of(config)
    with folder.claim(config):
        folder.start(config.total_steps)
        folder.drop_metrics_after(step)        # the step resumed from, 0 for a fresh start
        folder.append_metrics({"kind": "train", "step": 10, ...})
        folder.progress(10)
        folder.finish(result)                  # or diverge, preempt, fail
"""

import contextlib
import dataclasses
import math
import os
import re
import shutil
import socket
import time
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moe_study.design.config import RunConfig, TokenizerConfig
from moe_study.design.identity import KEY_DIGITS
from moe_study.design.plain import from_plain, to_plain
from moe_study.errors import ConfigError, DataError, StudyError
from moe_study.files import clear_os_errors, read_json, write_json_atomic, write_text_atomic
from moe_study.guard import sentence_for
from moe_study.runs import activations, curve, provenance, stored_config
from moe_study.runs.lock import LockHeld, hold, is_held
from moe_study.runs.status import State, Status

if TYPE_CHECKING:
    import pandas as pd

KEY_PATTERN = re.compile(rf"[0-9a-f]{{{KEY_DIGITS}}}")
STALE_AFTER = 900.0  # seconds without a sign of life after which a run on another host counts as stale
PROGRESS_EVERY = 1.0  # seconds between two writes of status.json by `progress`
CLAIM_PATIENCE = 0.5  # seconds; a reader that tests the lock holds it for microseconds
JobLife = Callable[[str, Status], bool | None]  # by key and status: whether the scheduler's job lives; None: not known


class RunFolder:
    """The files of one run."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.key = self.path.name
        self.config_file = self.path / "config.yaml"
        self.status_file = self.path / "status.json"
        self.metrics_file = self.path / "metrics.jsonl"
        self.result_file = self.path / "result.json"
        self.routing_file = self.path / "routing.parquet"
        self.sparsify_file = self.path / "sparsify.json"  # perplexity with some experts off, where asked for
        self.provenance_file = self.path / "provenance.json"
        self.log_file = self.path / "log.txt"
        self.checkpoint_folder = self.path / "checkpoint"
        self.audits_folder = self.path.parent / ".audits"  # shared by all runs beside this one, as is the next
        self.compiled_folder = self.path.parent / ".compiled"
        self.traces_folder = self.path / "traces"  # what the experts did with probes: traces.py
        self.routes_folder = self.path / "routes"  # what they did with one during training: routes.py
        self.findings_folder = self.path / "findings"  # tables of what was found out from them: findings.py
        self.export_folder = self.path / "export"  # the model as other libraries read it, where asked for
        self.scores_folder = self.path / "scores"  # answers to downstream tasks: scores.py
        self._lock_file = self.path / ".lock"
        self._status = Status()

    @classmethod
    def of(cls, config: RunConfig) -> "RunFolder":
        """The folder of `config`, which need not exist yet."""
        return cls(Path(config.log.runs_dir) / config.key)

    @property
    def advice_to_retrain(self) -> str:
        """What to do about a run that counts as done and cannot be used."""
        return f"remove the run (moe-study remove {self.path} --results), then train it again"

    def tokenizer_file(self, tokenizer: TokenizerConfig) -> Path | None:
        """Where the tokenizer that the run was trained with lies; None where there is nothing to keep."""
        return self.path / tokenizer.file_name if tokenizer.file_name else None

    def __repr__(self) -> str:
        return f"RunFolder({str(self.path)!r})"

    # Reading ------------------------------------------------------------------------------------------------

    def read_config(self) -> RunConfig:
        """The configuration; StudyError names the file when it cannot be read or is from another version."""
        return stored_config.read(self.config_file)

    def read_plain_config(self) -> dict[str, Any]:
        """The configuration as it was written, in plain values; one of another version, too."""
        return stored_config.read_plain(self.config_file)

    def status(self) -> Status:
        """What was last written; state MISSING when nothing was."""
        plain = read_json(self.status_file)
        if plain is None:
            return Status()
        try:
            names = {field.name for field in dataclasses.fields(Status)}
            known = {name: value for name, value in plain.items() if name in names}
            read: Status = from_plain(Status, {**known, "state": plain["state"]})
            if not math.isfinite(read.updated):
                raise ConfigError(f"updated must be a time, not {read.updated}")
            return read
        except (AttributeError, KeyError, TypeError, ConfigError) as error:
            raise StudyError(f"{self.status_file} is damaged ({error}); delete it and rerun the command") from error

    def state(self, lives: JobLife | None = None) -> State:
        """The state as it is now: a run whose process is gone is STALE, whatever it last wrote.

        `lives` is asked about a job on another host; without an answer its last sign of life decides.
        """
        status = self.status()
        if status.state is State.RUNNING and not self._is_alive(status, lives):
            return State.STALE
        if status.state is State.DONE and not self.result_file.exists():
            return State.STALE
        return status.state

    def metrics(self) -> list[dict[str, Any]]:
        """All records of the curve; a last line that a killed process left unfinished is ignored."""
        return curve.read(self.metrics_file)

    def metrics_table(self, kinds: Collection[str], columns: Sequence[str]) -> "pd.DataFrame":
        """The records of these kinds as a frame of `columns`: far faster than one by one."""
        return curve.read_table(self.metrics_file, kinds, columns)

    def result(self) -> dict[str, Any] | None:
        """The result, or None when the run is not done; DataError when the file is damaged."""
        result = read_json(self.result_file)
        if result is not None and not isinstance(result, dict):
            raise DataError(f"{self.result_file} is damaged: it holds no fields; {self.advice_to_retrain}")
        return result

    def read_activations(self) -> "pd.DataFrame | None":
        """How often each expert was used (activations.COLUMNS), or None for a run that was not evaluated yet."""
        return activations.read(self.routing_file, self.advice_to_retrain)

    def provenance(self) -> dict[str, Any] | None:
        """Where the run came from, or None where nothing was recorded; DataError when the file is damaged."""
        record = read_json(self.provenance_file)
        if record is not None and (fault := provenance.fault_of(record)) is not None:
            raise DataError(f"{self.provenance_file} is damaged: {fault}; restore it, or delete it")
        return record  # type: ignore[no-any-return]

    def known_provenance(self) -> dict[str, Any]:
        """The same; nothing where it is damaged, which says nothing against the run."""
        try:
            return self.provenance() or {}
        except StudyError:
            return {}

    def is_locked(self) -> bool:
        """Whether a living process holds the run's lock."""
        held = is_held(self._lock_file)
        if held is None:  # no locks on this file system
            status = self.status()
            return status.host == socket.gethostname() and _process_exists(status.pid)
        return held

    def _is_alive(self, status: Status, lives: JobLife | None) -> bool:
        if self.is_locked():
            return True
        if status.host == socket.gethostname():
            return False
        if lives is not None and (known := lives(self.key, status)) is not None:
            return known
        return time.time() - status.updated < STALE_AFTER  # a lock may not be seen across hosts

    # Claiming -----------------------------------------------------------------------------------------------

    def lock(self) -> contextlib.AbstractContextManager[None]:
        """Keep other processes from training the run, without training it; raises LockHeld when one does."""
        return hold(self._lock_file, CLAIM_PATIENCE)

    @contextlib.contextmanager
    def claim(self, config: RunConfig) -> Iterator["RunFolder"]:
        """Own the folder: make it, lock it, write config.yaml; StudyError if another process has it.

        Also refused: a folder whose name, or whose config.yaml, belongs to another configuration.
        """
        if self.key != config.key:
            raise StudyError(f"{self.path} is not the folder of this configuration, whose key is {config.key}")
        with contextlib.ExitStack() as held:
            try:
                held.enter_context(self.lock())
            except LockHeld:
                owner = self.status()
                raise StudyError(
                    f"{self.path} is being trained by process {owner.pid} on {owner.host}; wait for it, or stop it"
                ) from None
            stored_config.write(self.config_file, config)
            self._status = self.status()
            yield self

    # Writing, by the process that claimed it ----------------------------------------------------------------

    def start(self, total_steps: int) -> None:
        """Count an attempt and say that this process is at it."""
        job = os.environ.get("SLURM_ARRAY_JOB_ID") or os.environ.get("SLURM_JOB_ID")
        if job and "SLURM_ARRAY_TASK_ID" in os.environ:
            job += "_" + os.environ["SLURM_ARRAY_TASK_ID"]
        self._write_status(
            state=State.RUNNING,
            attempts=self._status.attempts + 1,
            total_steps=total_steps,
            error=None,
            pid=os.getpid(),
            host=socket.gethostname(),
            job=job,
        )

    def begin_anew(self) -> int:
        """Note that this attempt trains from step 0; its number. `status().began` keeps it for those that resume it."""
        self._write_status(began=self._status.attempts)
        return self._status.began

    def progress(self, step: int, *, force: bool = False) -> None:
        """Say how far the run is; cheap to call at every step."""
        if force or time.time() - self._status.updated >= PROGRESS_EVERY:
            self._write_status(step=step)

    def finish(self, result: Mapping[str, Any]) -> None:
        """Write the result, then the state done. Numbers that are not finite become null."""
        write_json_atomic(self.result_file, curve.finite(to_plain(result)))
        self._write_status(state=State.DONE, step=self._status.total_steps, error=None)

    def diverge(self, message: str, step: int) -> None:
        """The loss is not finite; the curve stays."""
        error = {"type": "Diverged", "message": message, "traceback": ""}
        self._write_status(state=State.DIVERGED, step=step, error=error)

    def preempt(self, step: int, reason: BaseException | str | None = None) -> None:
        """The run was stopped at `step`, by a signal or for a `reason` outside of it; the same command resumes it."""
        self._status = self.status()
        self._write_status(state=State.PREEMPTED, step=step, error=None if reason is None else _error_record(reason))

    def fail(self, error: BaseException | str) -> None:
        """Keep the error with its traceback; `error` as text is a reason found from outside."""
        self._status = self.status()
        self._write_status(state=State.FAILED, error=_error_record(error))

    def write_provenance(self, **facts: Any) -> None:
        """Record code, versions and machine, with `facts` beside them; an earlier attempt's record is kept."""
        earlier = self.provenance() or {}
        before = [*earlier.pop("earlier", []), earlier] if earlier else []
        write_json_atomic(self.provenance_file, {**provenance.collect(), **facts, "earlier": before})

    def add_provenance(self, **facts: Any) -> None:
        """Add to this attempt's record what is known only now: the device, the data's fingerprint."""
        write_json_atomic(self.provenance_file, {**(self.provenance() or {}), **to_plain(facts)})

    def append_metrics(self, *records: Mapping[str, Any]) -> None:
        """Add records to the curve in one write; each has `kind` and `step`. Not finite becomes null."""
        curve.append(self.metrics_file, *records)

    def drop_metrics_after(self, step: int) -> None:
        """Forget every record of a later step, so that none stands twice when training resumes at `step`."""
        curve.drop_after(self.metrics_file, step)

    def write_activations(self, counts: "pd.DataFrame") -> None:
        """Keep how often each expert was used: activations.COLUMNS."""
        activations.write(self.routing_file, counts)

    def forget_training(self) -> None:
        """Remove checkpoints, curve and result, so that the next start begins at step 0."""
        self.forget_measured()
        for folder in (self.checkpoint_folder, self.routes_folder, self.export_folder):
            shutil.rmtree(folder, ignore_errors=True)
        for file in (self.metrics_file, self.result_file, self.routing_file):
            file.unlink(missing_ok=True)
        self._status = dataclasses.replace(self.status(), step=0)

    def forget_measured(self) -> None:
        """Remove what was found out about weights that are no longer those of the run: an unfinished run can be asked,
        and analysis takes what is in the folder for the finished one's."""
        for folder in (self.traces_folder, self.findings_folder, self.scores_folder):
            shutil.rmtree(folder, ignore_errors=True)
        self.sparsify_file.unlink(missing_ok=True)

    def _write_status(self, **changes: Any) -> None:
        self._status = dataclasses.replace(self._status, updated=time.time(), **changes)
        write_json_atomic(self.status_file, to_plain(self._status))


def list_runs(runs_dir: str | os.PathLike[str]) -> list[RunFolder]:
    """All run folders below `runs_dir`, by key; none when it does not exist."""
    root = Path(runs_dir)
    if not root.is_dir():
        return []
    with clear_os_errors(root, verb="read"):
        names = sorted(entry.name for entry in os.scandir(root) if KEY_PATTERN.fullmatch(entry.name))
    return [RunFolder(root / name) for name in names if _is_there(root / name / "config.yaml")]


def _is_there(path: Path) -> bool:
    """Also what this user may not look at: its reader says so."""
    try:
        return path.exists()
    except PermissionError:
        return True


def check_writable(runs_dir: str | os.PathLike[str]) -> None:
    """StudyError if nothing can be written to `runs_dir`, which is made if needed."""
    probe = Path(runs_dir) / ".writable"
    write_text_atomic(probe, "x")
    probe.unlink()


def _error_record(error: BaseException | str) -> dict[str, str]:
    if isinstance(error, str):
        return {"type": "Killed", "message": error, "traceback": ""}
    return {
        "type": type(error).__name__,
        "message": sentence_for(error) or str(error) or type(error).__name__,
        "traceback": "".join(traceback.format_exception(error)),
    }


def _process_exists(pid: int | None) -> bool:
    return pid is not None and Path(f"/proc/{pid}").exists()
