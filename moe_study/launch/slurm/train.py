"""The training itself, in the job's own process or in those that the job has started (step.py):

python -m moe_study.launch.slurm.train SUBMISSION INDEX KEY...
"""

import os
import pickle
import signal
import sys
from collections.abc import Collection, Sequence

from moe_study.design.config import RunConfig
from moe_study.errors import StudyError
from moe_study.guard import guarded, print_error
from moe_study.launch.execute import Job, execute
from moe_study.launch.local.pool import run_pool
from moe_study.launch.local.settings import PoolSettings
from moe_study.launch.local.slots import threads_of_a_run
from moe_study.runs.folder import RunFolder
from moe_study.runs.job_records import Submission, read_submission
from moe_study.sweeps.plan import PlannedRun

JOB_FILE = "job.pickle"  # an execute.Job, by reference to its function
SIGNALS = (signal.SIGUSR2, signal.SIGTERM)  # that end a job


def train_runs(submission: Submission, index: int, configs: Sequence[RunConfig]) -> None:
    """Train `configs`, of one job: its only run, or some of several, whose folders alone say what becomes of them."""
    job: Job = pickle.loads((submission.folder / JOB_FILE).read_bytes())
    pool = PoolSettings.of(submission.pool)
    if len(submission.tasks[index]) == 1:
        (config,) = configs
        execute(config, job, threads_of_a_run(pool, config.run.device))
        return
    runs = [PlannedRun(config.key, (), config, RunFolder.of(config).state()) for config in configs]
    try:
        run_pool(runs, pool, job)
    except StudyError as error:  # stopped, or what the settings of the pool lack
        print_error(error)


def _train_as_step(folder: str, index: int, keys: Collection[str]) -> int:
    submission = read_submission(folder)
    if "WORLD_SIZE" in os.environ:
        os.environ |= {"RANK": os.environ["SLURM_PROCID"], "LOCAL_RANK": os.environ["SLURM_LOCALID"]}
    train_runs(submission, index, [config for config in submission.configs(index) if config.key in keys])
    return 0


def main() -> int:
    for number in SIGNALS:  # while Python imports, and while it ends; the job sends SIGUSR2 again and again
        signal.signal(number, lambda number, frame: None)  # not SIG_IGN: what is ignored a pool does not heed
    folder, index, *keys = sys.argv[1:]
    return guarded(lambda: _train_as_step(folder, int(index), keys))


if __name__ == "__main__":
    sys.exit(main())
