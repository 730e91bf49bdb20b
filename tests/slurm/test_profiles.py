"""Jobs with what a cluster's profile adds: modules, set-up, a container; what is wrong with it is told."""

from pathlib import Path

import pytest

from moe_study.cli import main
from moe_study.runs.folder import State
from tests.launch.driving import wait_until
from tests.slurm.driving import Command, by_seed, job_of, jobs, slurm, states, steps_done, submissions, sweep

pytestmark = pytest.mark.slurm

MODULE = '() { [ "$2" = "cuda/12" ] || { echo "unknown module $2" >&2; return 1; }; export LOADED="$2"; }'
PROFILE = """\
partition: high
modules: [cuda/12]
setup: ["export SET_UP=with-\\\\${LOADED}", "cd /"]
container: CONTAINER
"""


@pytest.fixture
def runs_dir(tmp_path):
    return tmp_path / "runs"


@pytest.fixture
def profile(tmp_path, monkeypatch):
    """Writes the file cluster/mine.yaml outside of the clone; what a command line needs to find it."""
    monkeypatch.setenv("BASH_FUNC_module%%", MODULE)  # as a login shell hands `module` down

    def write(text):
        (tmp_path / "conf" / "cluster").mkdir(parents=True)
        (tmp_path / "conf" / "cluster" / "mine.yaml").write_text(text)
        return "--config-dir", str(tmp_path / "conf"), "cluster=mine"

    return write


def environment_of(folder):
    """Of the process that trains the run."""
    lines = Path(f"/proc/{folder.status().pid}/environ").read_bytes().split(b"\0")
    return dict(line.decode().partition("=")[::2] for line in lines)


@pytest.mark.parametrize("several", [(), ("job.runs=2", "job.workers=2")])
@pytest.mark.parametrize("container", ["env INSIDE=yes", "--export=ALL,INSIDE=yes"])
def test_runs_train_in_the_container_and_go_on_there(cluster, runs_dir, profile, container, several):
    """As Apptainer and Pyxis are called; env and an option of srun's own stand for them."""
    arguments = ("run.seed=0,1", *profile(PROFILE.replace("CONTAINER", container)), *several)
    command = Command("patient", runs_dir, *arguments)
    steps_done(runs_dir, (0, 1))
    for folder in by_seed(runs_dir).values():
        found = environment_of(folder)
        assert (found["INSIDE"], found["LOADED"], found["SET_UP"]) == ("yes", "cuda/12", "with-cuda/12")
        assert found["SLURM_JOB_PARTITION"] == "high"
    job = job_of(runs_dir, 0)
    slurm("scancel", "--batch", "--signal=USR2", job)
    wait_until(lambda: states(runs_dir)[0] is State.PREEMPTED, "the run to save itself")
    (runs_dir / "enough").touch()
    command.end()
    assert by_seed(runs_dir)[0].result()["resumed_from"] > 0
    assert (job_of(runs_dir, 0), submissions(runs_dir)) == (job, 1 if several else 2)


def test_a_run_that_fails_in_a_container_fails_its_job(cluster, runs_dir, profile):
    said = sweep("unlucky", runs_dir, "run.seed=1,3", *profile("container: env INSIDE=yes"), code=1)
    assert states(runs_dir) == {1: State.FAILED, 3: State.STALE}
    assert {task.state for task in jobs(runs_dir)} == {"FAILED"}
    assert "one and one is three" in said


def test_a_module_that_is_not_there_is_told_of_by_the_command_and_by_status(cluster, runs_dir, profile, capsys):
    said = sweep("quick", runs_dir, "run.seed=0", *profile("modules: [cuda/99]"), code=1)
    (task,) = jobs(runs_dir)
    assert f"missing: job {task.id} ended as FAILED ({runs_dir}/.submissions/{task.name}/0.txt: unknown module" in said
    assert main(["status", str(runs_dir)]) == 0
    shown = capsys.readouterr().out
    assert "1 missing" in shown
    assert f"job {task.id} is gone ({runs_dir}/.submissions/{task.name}/0.txt: unknown module cuda/99)" in shown


def test_a_container_that_cannot_start_is_told_of_too(cluster, runs_dir, profile):
    said = sweep("quick", runs_dir, "run.seed=0", *profile("container: /no/such/apptainer exec x.sif"), code=1)
    assert "error: /no/such/apptainer cannot be started (No such file or directory), so no run is trained)" in said
