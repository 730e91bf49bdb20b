"""Several runs in one job of a scheduler: handed over as a file, trained side by side by the local pool in the job.

A job that is stopped (SIGUSR2 before the time limit, SIGTERM) passes that on to its runs, which save a checkpoint; one
that is started again resumes all of its runs that are not done.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from moe_study.design.config import RunConfig
from moe_study.design.identity import KEY_DIGITS
from moe_study.design.plain import from_plain, to_plain
from moe_study.errors import ConfigError, StudyError
from moe_study.files import write_json_atomic
from moe_study.launch.execute import Job
from moe_study.launch.local.pool import run_pool
from moe_study.launch.local.settings import PoolSettings
from moe_study.runs.folder import RunFolder, State
from moe_study.sweeps.plan import PlannedRun
from moe_study.sweeps.values import as_text

MEMBERS = "job.members"  # the override that names a job's file


def job_overrides(runs: Sequence[PlannedRun], job: Mapping[str, Any]) -> list[list[str]]:
    """What a launcher composes each job from. `job` is that section of conf/config.yaml.

    The runs come longest first and are dealt out, so that all jobs take about as long.
    """
    number = job["runs"]
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise ConfigError(f"job.runs={number} must be at least 1")
    if number == 1:
        return [[*run.overrides, f"job.threads_per_run={job['threads_per_run']}"] for run in runs]
    settings = to_plain(PoolSettings.of(job))  # a mistake shows here, not in the job
    jobs = -(-len(runs) // number)
    return [[f"{MEMBERS}={as_text(_write(runs[first::jobs], settings))}"] for first in range(jobs)]


def train_job(file: str, job: Job) -> None:
    """Do `job` with the runs listed in `file` that are not done; how each ended is in its folder."""
    plain, settings = _read(Path(file))
    configs = [from_plain(RunConfig, config) for config in plain.values()]
    runs = [PlannedRun(config.key, (), config, RunFolder.of(config).state()) for config in configs]
    run_pool([run for run in runs if run.state is not State.DONE], PoolSettings.of(settings), job)


def _write(runs: Sequence[PlannedRun], settings: Mapping[str, Any]) -> str:
    """The path of a file that lists configurations by key, and the pool's settings; the runs give it its name."""
    plain = {run.key: to_plain(run.config) for run in runs}
    name = hashlib.sha256(" ".join(sorted(plain)).encode()).hexdigest()[:KEY_DIGITS]
    path = Path(runs[0].config.log.runs_dir) / ".jobs" / f"{name}.json"
    write_json_atomic(path, {"runs": plain, "settings": settings})
    return str(path.resolve())


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StudyError(f"the list of a job's runs cannot be read ({error}); rerun the sweep's command") from error
    return content["runs"], content["settings"]
