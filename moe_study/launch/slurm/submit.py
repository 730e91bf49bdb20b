"""One array of jobs, from planned runs to the scheduler's id: recorded, sent, confirmed."""

import dataclasses
import os
import pickle
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from moe_study.design.plain import to_plain
from moe_study.files import write_bytes_atomic, write_text_atomic
from moe_study.launch.execute import Job
from moe_study.launch.local.settings import PoolSettings
from moe_study.launch.slurm.scheduler import Limits, Refused, Scheduler
from moe_study.launch.slurm.settings import SlurmSettings
from moe_study.launch.slurm.snapshot import take_snapshot
from moe_study.launch.slurm.train import JOB_FILE
from moe_study.runs.job_records import Submission, new_submission
from moe_study.sweeps.plan import PlannedRun

# Bash stays, as the process that SLURM warns (SIGUSR2): it passes the warning on until Python hears it, so that one
# that comes while Python starts is neither lost nor deadly. SIGTERM goes to Python as well, and SLURM ends the job when
# bash ends, so bash bears it.
SCRIPT = """\
#!/bin/bash
warned=
trap 'warned=yes' USR2
trap : TERM
{setup}
# Whatever the set-up has set or left:
set +eu
cd {here} || exit 1
export PYTHONPATH={path}${{PYTHONPATH:+:$PYTHONPATH}}
(trap '' USR2; trap - TERM; exec {python} -m moe_study.launch.slurm.job {folder} "$SLURM_ARRAY_TASK_ID") &
while kill -0 $! 2>/dev/null; do
  if [ -n "$warned" ]; then kill -USR2 $! 2>/dev/null; sleep 1; else wait $!; fi
done
wait $!
"""


@dataclasses.dataclass(frozen=True)
class Sender:
    """Sends arrays of jobs that do `job` with runs."""

    scheduler: Scheduler
    limits: Limits
    settings: SlurmSettings
    pool: PoolSettings
    job: Job

    def send(self, tasks: Sequence[Sequence[PlannedRun]], after: str | None = None) -> Submission:
        """Submit one job for each of `tasks`, which may begin once the array `after` has ended.

        Refused and NoRoom leave nothing behind. SchedulerSilent leaves a record that is not confirmed: the next look
        at the queue tells whether the jobs have arrived.
        """
        runs = [run for task in tasks for run in task]
        runs_dir = str(runs[0].folder.path.parent)
        code = take_snapshot(runs_dir)
        submission = new_submission(
            runs_dir,
            self.limits.cluster,
            [[run.config for run in task] for task in tasks],
            {run.key: run.folder.status().attempts for run in runs},
            max_attempts=self.settings.attempts,
            settings=to_plain(self.settings),
            pool=to_plain(self.pool),
            code=code.name,
        )
        try:
            script = self._write_script(submission, code)
            options = [*self._options(submission), *([f"--dependency=afterany:{after}"] if after else [])]
            options += self.settings.sbatch_options({run.config.run.device for run in runs})
            submission = dataclasses.replace(submission, job_id=self.scheduler.submit(script, options))
            submission.write()
            return submission
        except Refused:
            submission.discard()
            raise

    def _options(self, submission: Submission) -> list[str]:
        limit = f"%{self.settings.limit}" if self.settings.limit is not None else ""
        return [
            f"--job-name={submission.name}",
            f"--array=0-{len(submission.tasks) - 1}{limit}",
            f"--output={str(submission.folder.resolve()).replace('%', '%%')}/%a.txt",
            "--open-mode=append",
        ]

    def _write_script(self, submission: Submission, code: Path) -> Path:
        write_bytes_atomic(submission.folder / JOB_FILE, pickle.dumps(self.job))
        script = submission.folder / "job.sh"
        text = SCRIPT.format(
            setup="\n".join([*self.settings.module_lines, *self.settings.setup]),
            here=shlex.quote(os.getcwd()),
            path=shlex.quote(str(code.resolve())),
            python=shlex.quote(sys.executable),
            folder=shlex.quote(str(submission.folder)),
        )
        write_text_atomic(script, text)
        return script
