"""Starts sweeps on the private cluster, and finds their jobs."""

import getpass
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from moe_study.launch.slurm.scheduler import QueuedTask, Slurm
from moe_study.runs.folder import RunFolder, State, list_runs
from moe_study.runs.job_records import read_submissions
from tests.launch.driving import command, wait_until

SMALL = ("hydra/launcher=slurm", "hydra.launcher.gpus_per_node=0", "hydra.launcher.cpus=1", "hydra.launcher.poll=0.5")


def sweep(job: str | None, runs_dir: Path, *arguments: str, code: int = 0) -> str:
    """Run a sweep's command to its end, which must have the exit code `code`; what it said."""
    return Command(job, runs_dir, *arguments).end(code)


class Command:
    """A sweep's command at work."""

    def __init__(self, job: str | None, runs_dir: Path, *arguments: str, steps: int = 900) -> None:
        line, environment = command(job, runs_dir, ("-m", *SMALL, *arguments), steps)
        with tempfile.NamedTemporaryFile(dir=runs_dir.parent, suffix=".said", delete=False) as output:
            self._output = Path(output.name)
            self.process = subprocess.Popen(line, env=environment, cwd=runs_dir.parent, stderr=output)

    @property
    def said(self) -> str:
        return self._output.read_text()

    def end(self, code: int = 0) -> str:
        """Wait for its end, which must have the exit code `code`; what it said."""
        self.process.wait(timeout=500)
        assert self.process.returncode == code, self.said
        assert "Traceback" not in self.said
        return self.said


def by_seed(runs_dir: Path) -> dict[int, RunFolder]:
    return {folder.read_config().run.seed: folder for folder in list_runs(runs_dir)}


def states(runs_dir: Path) -> dict[int, State]:
    return {seed: folder.state() for seed, folder in by_seed(runs_dir).items()}


def jobs(runs_dir: Path) -> list[QueuedTask]:
    """Those of its runs that the cluster remembers."""
    names = {submission.name for submission in read_submissions(runs_dir)}
    return [task for task in Slurm().queue({getpass.getuser()}) if task.name in names]


def job_of(runs_dir: Path, seed: int) -> str:
    """The id of the job that trains the run of that seed now."""
    job = by_seed(runs_dir)[seed].status().job
    assert job is not None
    return job


def steps_done(runs_dir: Path, seeds: Sequence[int], steps: int = 1) -> None:
    """Wait until the runs of these seeds have made so many steps."""

    def reached() -> bool:
        found = by_seed(runs_dir)
        return all(
            seed in found and found[seed].state() is State.RUNNING and found[seed].status().step >= steps
            for seed in seeds
        )

    wait_until(reached, f"step {steps} of seeds {list(seeds)}", 90)


def submissions(runs_dir: Path) -> int:
    """Jobs that were sent."""
    return sum(len(submission.tasks) for submission in read_submissions(runs_dir))


def slurm(*line: str) -> str:
    return subprocess.run(line, capture_output=True, text=True, check=True, timeout=60).stdout.strip()
