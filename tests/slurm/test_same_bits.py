"""Trained by a cluster, whatever becomes of its jobs, a run ends with the bits that this machine alone gives it."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from moe_study.data import prepare
from moe_study.runs.folder import State
from moe_study.runs.job_records import read_submissions
from tests.fixtures import tiny_data_config
from tests.launch.driving import command, wait_until
from tests.slurm.driving import Command, by_seed, job_of, jobs, slurm, states, steps_done, submissions

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """What makes a run small: its data, model and batch."""
    data = tiny_data_config(tmp_path_factory.mktemp("data"))
    prepare(data, progress=False)
    return (
        *("data=local_files", "data.name=tiny", "data.tokenizer.kind=bytes", "data.validation_fraction=0.2"),
        *(f"data.options.path={data.options['path']}", f"data.root={data.root}"),
        *("model=pico", "model.layers=2", "model.width=16", "model.heads=2", "model.context=32"),
        *("run.batch_size=8", "run.eval_batch=8", "run.device=cpu", "log.checkpoint_every=15"),
    )


def numbers(runs_dir):
    """All that a run has measured, times left out, by its seed."""
    timed = ("seconds", "tokens_per_second", "train_seconds", "peak_memory_bytes")

    def untimed(record):
        return {name: value for name, value in record.items() if name not in timed}

    found = by_seed(runs_dir).items()
    return {seed: (untimed(folder.result()), list(map(untimed, folder.metrics()))) for seed, folder in found}


def python_of(runs_dir, index):
    """Whether the process that trains in the job of that index has begun."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            lines.append(path.read_bytes().split(b"\0"))
    return any(line[-2] == b"%d" % index for line in lines if runs(line, b"moe_study.launch.slurm.job", runs_dir))


def runs(command, module, runs_dir):
    """Whether a command line is of that module and for those runs: another test may be at work beside this one."""
    return module in command and any(part.startswith(bytes(runs_dir)) for part in command)


def on_this_machine(runs_dir, *arguments, steps):
    line, environment = command(None, runs_dir, ("-m", *arguments), steps)
    subprocess.run(line, env=environment, cwd=runs_dir.parent, check=True, capture_output=True, timeout=500)
    return numbers(runs_dir)


def test_a_sweep_of_24_runs(cluster, small, tmp_path):
    seeds = ("run.seed=range(24)", *small)
    Command(None, tmp_path / "runs", *seeds, steps=3).end()
    assert numbers(tmp_path / "runs") == on_this_machine(tmp_path / "alone", *seeds, steps=3)
    again = Command(None, tmp_path / "runs", *seeds, steps=3).end()
    assert "24 runs (24 done); 0 to train now" in again
    assert submissions(tmp_path / "runs") == 24


def test_disturbed_runs(cluster, small, tmp_path):
    """0: preempted; 1: SIGKILL; 2: scancel; 3: requeued by an operator; 4: warned while Python starts."""
    runs_dir, seeds = tmp_path / "runs", ("run.seed=range(5)", *small)
    first = Command("slowly", runs_dir, *seeds, steps=300)
    wait_until(lambda: python_of(runs_dir, 4), "the job of seed 4 to start Python")
    slurm("scancel", "--batch", "--signal=USR2", next(task.id for task in jobs(runs_dir) if task.index == 4))
    steps_done(runs_dir, range(4), 20)
    folders = {seed: folder for seed, folder in by_seed(runs_dir).items() if seed != 4}
    os.kill(folders[1].status().pid, signal.SIGKILL)
    slurm("scancel", job_of(runs_dir, 2))
    slurm("scontrol", "requeue", job_of(runs_dir, 3))
    slurm("sbatch", "--partition=high", "--ntasks=8", "--time=1", "--output=/dev/null", "--wrap=sleep 3")
    wait_until(lambda: folders[0].state() is State.PREEMPTED, "the preemption")
    (runs_dir / "enough").touch()
    said = first.end(1)
    assert "2 of 5 runs are unfinished; rerun the command to resume them" in said
    assert {seed for seed, state in states(runs_dir).items() if state is State.DONE} == {0, 3, 4}
    second = Command("slowly", runs_dir, *seeds, steps=300).end()
    assert "2 to train now" in second
    assert min(folder.status().attempts for folder in folders.values()) > 1
    assert numbers(runs_dir) == on_this_machine(tmp_path / "alone", *seeds, steps=300)


def test_a_time_limit_and_then_a_lost_node(cluster, small, tmp_path):
    """Both without a second command: the job saves its run and requeues itself, and then SLURM requeues it."""
    runs_dir, seed = tmp_path / "runs", ("run.seed=0", *small)
    limit = ("hydra.launcher.minutes=2", "hydra.launcher.warning=80")
    command = Command("slowly", runs_dir, *seed, *limit, steps=400)
    # A busy controller starts the job late, and a quick one has it back before anybody looks.
    wait_until(lambda: states(runs_dir).get(0) is State.PREEMPTED or _attempts(runs_dir) > 1, "SLURM's warning", 300)
    folder = by_seed(runs_dir)[0]
    saved = folder.status().step
    wait_until(lambda: folder.state() is State.RUNNING and folder.status().step > saved, "the job to go on", 60)
    slurm("scontrol", "update", "NodeName=ALL", "State=DOWN", "Reason=test")
    cluster.run("scontrol", "update", "NodeName=ALL", "State=RESUME", check=False)  # unless it is back by itself
    (submission,) = read_submissions(runs_dir)
    output = submission.shell_output(0)
    wait_until(lambda: "NODE FAILURE" in output.read_text(), "the job to be cut off")
    (runs_dir / "enough").touch()
    command.end()
    assert "JOB REQUEUE" in output.read_text()
    assert folder.status().attempts >= 3  # a busy machine may meet the limit more than once
    assert numbers(runs_dir) == on_this_machine(tmp_path / "alone", *seed, steps=400)


def _attempts(runs_dir: Path) -> int:
    """At the only run."""
    return sum(folder.status().attempts for folder in by_seed(runs_dir).values())


@pytest.mark.parametrize("where", ["ranks", "nodes"])
def test_two_ranks_train_a_run_that_one_can_take_over(start_cluster, small, tmp_path, where):
    """On one node or on two. Agreement to float tolerance, since sums over ranks come in another order."""
    start_cluster(nodes=2 if where == "nodes" else 1)
    runs_dir, seed = tmp_path / "runs", ("run.seed=0", *small)
    first = Command("slowly", runs_dir, *seed, f"hydra.launcher.{where}=2", steps=300)
    steps_done(runs_dir, (0,), 30)
    folder = by_seed(runs_dir)[0]
    assert len(set(ranks(folder).values())) == (2 if where == "nodes" else 1)
    slurm("scancel", "--batch", "--signal=USR2", job_of(runs_dir, 0))  # both save the same step, and go on
    wait_until(lambda: folder.status().attempts == 2 and folder.state() is State.RUNNING, "the requeued job", 60)
    wait_until(lambda: "arithmetic" in (folder.provenance() or {}), "the job to look at its machine", 60)
    assert folder.provenance()["arithmetic"]["ranks"] == 2
    wait_until(lambda: folder.provenance().get("first_step", 0) >= 30, "both to resume", 60)
    os.kill(next(rank for rank in ranks(folder) if rank != folder.status().pid), signal.SIGKILL)
    said = first.end(1)
    assert "another process of this run is gone" in said
    (runs_dir / "enough").touch()
    Command("slowly", runs_dir, *seed, steps=300).end()
    ((result, _),) = numbers(runs_dir).values()
    ((alone, _),) = on_this_machine(tmp_path / "alone", *seed, steps=300).values()
    assert result["validation_loss"] == pytest.approx(alone["validation_loss"], rel=1e-4)


def ranks(folder):
    """The processes that train a run together, and the nodes that they are on."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command = (process / "cmdline").read_bytes().split(b"\0")
            is_one = runs(command, b"moe_study.launch.slurm.train", folder.path.parent)
            if is_one and command[0] == sys.executable.encode():
                variables = dict(line.partition(b"=")[::2] for line in (process / "environ").read_bytes().split(b"\0"))
                found[int(process.name)] = variables[b"SLURMD_NODENAME"]
    assert folder.status().pid in found
    return found
