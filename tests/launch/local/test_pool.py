"""The local launcher from outside: real processes, killed and stopped for real."""

import dataclasses
import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import yaml

from moe_study.errors import ConfigError
from moe_study.launch.local import pool
from moe_study.launch.local.pool import run_pool
from moe_study.launch.local.processes import SERVER_ENVIRONMENT
from moe_study.launch.local.settings import PoolSettings
from moe_study.runs.folder import RunFolder, State, list_runs
from tests.launch import toy
from tests.launch.driving import ROOT, planned, pool_settings, start, train, wait_until
from tests.test_house import imports, modules

SEEDS = "run.seed=0,1,2,3,4,5"
WITH_TRITON = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="Triton is not installed (it is there for Linux on x86-64 alone)"
)


@pytest.fixture
def runs_dir(tmp_path):
    return tmp_path / "runs"


def by_seed(runs_dir: Path) -> dict[int, RunFolder]:
    return {folder.read_config().run.seed: folder for folder in list_runs(runs_dir)}


def states(runs_dir: Path) -> dict[int, State]:
    return {seed: folder.state() for seed, folder in by_seed(runs_dir).items()}


def test_pool_is_bounded_and_gives_each_run_its_threads(runs_dir):
    settings = pool_settings(workers=2, threads_per_run=3)
    ended = run_pool(planned(runs_dir, range(6)), settings, toy.job("traced"))
    assert Counter(status.state for status in ended.values()) == {State.DONE: 6}
    alive, most = 0, 0
    for _, change in sorted((float(when), int(change)) for when, change, _ in _trace(runs_dir)):
        alive += change
        most = max(most, alive)
    assert most == 2
    result = by_seed(runs_dir)[0].result()
    assert result["given"]["OMP_NUM_THREADS"] == "3"
    assert (result["threads"], result["progress"]) == (3, False)
    assert next(seed for _, change, seed in _trace(runs_dir) if change == "+1") in "01"  # in the order given


def test_one_failure_never_stops_the_others_and_every_reason_is_kept(runs_dir, capfd):
    run_pool(planned(runs_dir, range(6)), pool_settings(workers=2), toy.job("unlucky"))
    assert states(runs_dir) == {0: State.DONE, **dict.fromkeys((1, 2, 3, 4), State.FAILED), 5: State.DIVERGED}
    folders = by_seed(runs_dir)
    reasons = {seed: folder.status().message for seed, folder in folders.items()}
    assert reasons[1] == "one and one is three"
    assert reasons[2].startswith("the shard x.bin")
    assert "SIGKILL" in reasons[3]
    assert "exit code 9" in reasons[4]
    said = capfd.readouterr().err
    assert all(reason in said for seed, reason in reasons.items() if seed)
    assert "Traceback" not in said
    assert "toy.py" in folders[1].status().error["traceback"]
    assert "ValueError: one and one is three" in folders[1].log_file.read_text()
    assert "Traceback" not in folders[2].log_file.read_text()  # a sentence is enough
    assert folders[0].provenance()["host"] == os.uname().nodename


@pytest.mark.long
def test_command_skips_done_and_failed_runs_and_retries_on_request(runs_dir):
    first = train("unlucky", runs_dir, "-m", SEEDS, "hydra.launcher.workers=2")
    assert first.returncode == 1
    assert "error: 4 of 6 runs failed; retry_failed=true trains them again" in first.stderr
    (runs_dir / "luck").touch()
    again = train("unlucky", runs_dir, "-m", SEEDS, "retry_failed=False")  # a capital False is false
    assert again.returncode == 1  # four failures still stand
    assert "0 to train now" in again.stderr
    retried = train("unlucky", runs_dir, "-m", SEEDS, "retry_failed=true")
    assert retried.returncode == 0, retried.stderr
    assert "5 to train now" in retried.stderr
    assert Counter(states(runs_dir).values()) == {State.DONE: 6}
    attempts = {seed: folder.status().attempts for seed, folder in by_seed(runs_dir).items()}
    assert attempts == {0: 1, **dict.fromkeys((1, 2, 3, 4, 5), 2)}


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.long)])
def test_stopped_pool_lets_its_runs_save_themselves_and_goes_on_later(runs_dir, number):
    pool = start("patient", runs_dir, "-m", "run.seed=0,1,2", "hydra.launcher.workers=2")
    wait_until(lambda: Counter(states(runs_dir).values())[State.RUNNING] == 2, "two runs to start")
    wait_until(lambda: all(f.status().step > 2 for f in list_runs(runs_dir)), "some steps")
    pool.send_signal(number)
    _, errors = pool.communicate(timeout=30)
    assert pool.returncode == 1
    assert "stopped: 2 runs are saved; rerun the command to resume them" in errors
    assert set(states(runs_dir).values()) == {State.PREEMPTED}
    again = train("patient", runs_dir, "-m", "run.seed=0,1")
    assert again.returncode == 0, again.stderr
    assert min(folder.result()["resumed_from"] for folder in list_runs(runs_dir)) > 2


@pytest.mark.long
def test_a_warning_that_is_repeated_takes_no_time_from_runs_that_save_themselves(runs_dir):
    """A job's shell passes SLURM's on each second; only a second Ctrl-C is impatience."""
    pool = start("careful", runs_dir, "-m", "run.seed=0,1", "hydra.launcher.workers=2")
    wait_until(lambda: Counter(states(runs_dir).values())[State.RUNNING] == 2, "two runs to start")
    wait_until(lambda: all(f.status().step > 2 for f in list_runs(runs_dir)), "some steps")
    for number in (signal.SIGUSR2, signal.SIGUSR2, signal.SIGTERM):
        pool.send_signal(number)
        time.sleep(0.7)
    pool.communicate(timeout=30)
    assert all((folder.path / "saved").exists() for folder in list_runs(runs_dir))
    assert set(states(runs_dir).values()) == {State.PREEMPTED}


@pytest.mark.long
def test_a_second_ctrl_c_does_not_wait(runs_dir):
    pool = start("deaf", runs_dir, "-m", "run.seed=0,1", "hydra.launcher.workers=2")
    wait_until(lambda: len(list(runs_dir.glob("*/deaf"))) == 2, "two runs to start")
    pool.send_signal(signal.SIGINT)
    time.sleep(0.7)
    pool.send_signal(signal.SIGINT)
    pool.communicate(timeout=20)
    assert set(states(runs_dir).values()) == {State.PREEMPTED}


@pytest.mark.long
def test_runs_that_do_not_listen_are_killed_after_the_grace(runs_dir):
    pool = start("deaf", runs_dir, "-m", "run.seed=0,1", "hydra.launcher.workers=2", "hydra.launcher.grace=0.5")
    wait_until(lambda: len(list(runs_dir.glob("*/deaf"))) == 2, "two runs to start")
    pool.send_signal(signal.SIGTERM)
    pool.communicate(timeout=20)
    assert pool.returncode == 1
    assert set(states(runs_dir).values()) == {State.PREEMPTED}  # to be started again, not failed


def test_killed_pool_takes_its_runs_along_and_the_next_one_resumes_them(runs_dir):
    pool = start("patient", runs_dir, "-m", "run.seed=0,1", "hydra.launcher.workers=2")
    wait_until(lambda: Counter(states(runs_dir).values())[State.RUNNING] == 2, "two runs to start")
    wait_until(lambda: all(f.status().step > 2 for f in list_runs(runs_dir)), "some steps")
    pool.kill()
    pool.communicate(timeout=20)
    wait_until(lambda: not any(f.is_locked() for f in list_runs(runs_dir)), "the runs to end")
    assert set(states(runs_dir).values()) == {State.PREEMPTED}
    again = train("patient", runs_dir, "-m", "run.seed=0,1")
    assert again.returncode == 0, again.stderr
    assert min(folder.result()["resumed_from"] for folder in list_runs(runs_dir)) > 2


@pytest.mark.long
def test_run_that_another_process_trains_is_left_to_it(runs_dir):
    first = start("patient", runs_dir, "run.seed=0")
    wait_until(lambda: State.RUNNING in states(runs_dir).values(), "the run to start")
    second = train("quick", runs_dir, "-m", "run.seed=0,1")
    assert second.returncode == 1  # as not every run is done
    assert "1 running" in second.stderr
    assert "error: 1 of 2 runs are being trained by other processes" in second.stderr
    assert states(runs_dir) == {0: State.RUNNING, 1: State.DONE}
    single = train("quick", runs_dir, "run.seed=0")
    assert single.returncode == 1
    assert f"is being trained by process {first.pid}" in single.stderr
    (runs_dir / "enough").touch()
    first.communicate(timeout=30)
    assert by_seed(runs_dir)[0].result() == {"resumed_from": 0}


def test_runs_share_the_gpus_by_turns(runs_dir, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    run_pool(planned(runs_dir, range(6), device="cuda"), pool_settings(runs_per_gpu=2), toy.job("traced"))
    given = Counter(folder.result()["given"]["CUDA_VISIBLE_DEVICES"] for folder in list_runs(runs_dir))
    assert set(given) == {"4", "7"}
    assert min(given.values()) >= 2


def test_process_on_a_gpu_trains_runs_in_turn_and_one_on_a_cpu_a_single_run(runs_dir, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4")
    for device, processes in (("cuda", 2), ("cpu", 6)):
        runs = planned(runs_dir / device, range(6), device=device)
        ended = run_pool(runs, pool_settings(workers=2), toy.job("traced"))
        assert Counter(status.state for status in ended.values()) == {State.DONE: 6}
        folders = list_runs(runs_dir / device)
        assert len({folder.result()["process"] for folder in folders}) == processes
        assert all(folder.log_file.read_text().count("---") == 1 for folder in folders)  # each has its own log


def test_process_on_a_gpu_that_saw_an_error_is_not_used_again(runs_dir, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4")
    run_pool(planned(runs_dir, range(7), device="cuda"), pool_settings(), toy.job("unlucky"))
    expected = {0: State.DONE, **dict.fromkeys((1, 2, 3, 4), State.FAILED), 5: State.DIVERGED, 6: State.DONE}
    assert states(runs_dir) == expected
    processes = {seed: folder.status().pid for seed, folder in by_seed(runs_dir).items()}
    assert len(set(processes.values())) == 5
    assert processes[0] == processes[1] and processes[5] == processes[6]


@pytest.mark.long
@WITH_TRITON
def test_fork_server_starts_no_thread_and_looks_at_no_gpu():
    """A fork takes only the thread that asks for it (locks of others stay locked for ever), and no CUDA context."""
    script = (
        "import os, sys, torch\n"
        "def looked(*_): sys.exit('it looked at the GPU')\n"
        "for name in ('init', 'is_available', 'device_count', 'current_device', 'get_device_properties'):\n"
        "    setattr(torch.cuda, name, looked)\n"
        "import importlib, moe_study.launch.local.fork_server, moe_study.launch.execute\n"
        "job = moe_study.launch.execute.TRAINING\n"
        "for name in job.preload + job.preload_on_gpus: importlib.import_module(name)\n"
        "sys.exit(len(os.listdir('/proc/self/task')) - 1)"
    )
    environment = {**os.environ, **SERVER_ENVIRONMENT, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.long
@WITH_TRITON
def test_fork_server_holds_every_module_that_a_run_can_come_to_need():
    """Else a clone that moves on meanwhile gives later runs of a sweep half of its old code and half of its new."""
    script = (
        "import importlib, sys, moe_study.launch.local.fork_server, moe_study.launch.execute\n"
        "job = moe_study.launch.execute.TRAINING\n"
        "for name in job.preload + job.preload_on_gpus: importlib.import_module(name)\n"
        "print(*(name for name in sys.modules if name.startswith('moe_study')))"
    )
    environment = {**os.environ, **SERVER_ENVIRONMENT, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    loaded, known = set(done.stdout.split()), modules(ROOT)
    lacking = {needed for name in loaded for needed in imports(name, known[name], known)} - loaded
    assert not lacking


@pytest.mark.parametrize(("gpus", "more"), [("4", ("kernels",)), ("", ())])
def test_kernels_are_imported_beforehand_where_runs_have_gpus(runs_dir, monkeypatch, gpus, more):
    asked = []

    def only_asked(preload, environment):
        asked.append(preload)
        raise ConfigError("no server")

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpus)
    monkeypatch.setattr(pool, "start_server", only_asked)
    job = dataclasses.replace(toy.job("quick"), preload_on_gpus=("kernels",))
    with pytest.raises(ConfigError, match="no server"):
        run_pool(planned(runs_dir, [0], device="auto"), pool_settings(), job)
    assert asked == [(*job.preload, *more)]


def test_missing_gpu_is_one_sentence_before_anything_starts(runs_dir, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(ConfigError, match=r"run\.device=cuda, but this machine shows no GPU"):
        run_pool(planned(runs_dir, [0], device="cuda"), pool_settings(), toy.job("quick"))
    assert list_runs(runs_dir) == []


@pytest.mark.parametrize("settings", [{"workers": 0}, {"workers": "many"}, {"threads_per_run": 0}])
def test_wrong_settings_are_refused(runs_dir, settings):
    with pytest.raises(ConfigError, match="must be"):
        run_pool(planned(runs_dir, [0]), pool_settings(**settings), toy.job("quick"))


def test_the_pools_defaults_stand_in_one_place():
    """The launcher and code have none of their own, so one for this machine and one for jobs cannot differ."""
    launcher = yaml.safe_load((ROOT / "conf" / "hydra" / "launcher" / "local.yaml").read_text())
    del launcher["_target_"]
    names = [field.name for field in dataclasses.fields(PoolSettings)]
    assert launcher == {name: f"${{job.{name}}}" for name in names}
    with pytest.raises(TypeError):
        PoolSettings()
    with pytest.raises(ConfigError, match=r"job\.grace has no value"):
        PoolSettings.of(dict.fromkeys(names[:-1]))


@pytest.mark.parametrize("grace", [-1, float("nan")])
def test_seconds_before_the_start_are_no_grace(grace):
    plain = {**dataclasses.asdict(pool_settings()), "grace": grace}
    with pytest.raises(ConfigError, match=r"job\.grace=.* must not be negative"):
        PoolSettings.of(plain)


def test_pool_without_runs_ends_at_once():
    assert run_pool([], pool_settings(), toy.job("quick")) == {}


def test_progress_without_a_terminal_is_a_line_now_and_then(capsys, monkeypatch):
    from moe_study.launch.local import progress

    monkeypatch.setattr(progress, "LINE_EVERY", 0.0)
    shown = progress.Progress(total_steps=100, steps_before=20)
    shown.show(60, waiting=1, running=2, done=3, failed=0)
    shown.close()
    assert "2 running, 1 waiting, 3 done, 0 failed; 60 of 100 steps, about" in capsys.readouterr().err


def _trace(runs_dir: Path) -> list[list[str]]:
    return [line.split() for line in (runs_dir / "trace").read_text().splitlines()]
