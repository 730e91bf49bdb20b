"""train.py as a user starts it, for one run."""

import json
import os
import signal
import subprocess
import sys

import pytest
from hydra._internal.hydra import Hydra

from moe_study.guard import EXIT_PREEMPTED
from moe_study.launch import entry
from moe_study.launch.entry import headline
from moe_study.runs.folder import RunFolder, State, list_runs
from tests.launch.driving import command, start, train, train_from_a_shell, wait_until
from tests.part import every


@pytest.fixture
def runs_dir(tmp_path):
    return tmp_path / "runs"


def test_one_run_trains_says_where_it_lies_and_leaves_nothing_else(runs_dir, tmp_path):
    done = train_from_a_shell("quick", runs_dir, "run.seed=3")
    (folder,) = list_runs(runs_dir)
    assert done.returncode == 0, done.stderr
    assert f"{folder.path} is done: validation perplexity 5.00" in done.stdout
    assert folder.state() is State.DONE
    assert os.listdir(tmp_path) == ["runs"]  # no outputs/, no timestamps
    assert os.listdir(runs_dir) == [folder.key]
    again = train("unlucky", runs_dir, "run.seed=3")
    assert again.returncode == 0
    assert "is done already: validation perplexity 5.00" in again.stdout
    assert folder.status().attempts == 1


def test_a_setting_without_effect_is_warned_of_in_one_line(runs_dir):
    done = train("quick", runs_dir, "routing=dense", "routing.k=3", "routing.num_experts=8")
    assert done.returncode == 0
    assert done.stderr == "warning: routing.k and routing.num_experts have no effect on a dense model\n"
    silent = train("quick", runs_dir, "routing=dense", "routing.ffn_multiplier=2")
    assert silent.returncode == 0 and silent.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "times"),
    [(["model=nano"], 1), (["-m"], 1), (["hydra.mode=RUN"], 2), (["--config-dir=."], 2)],
)
def test_a_command_is_composed_once_unless_its_words_may_set_hydras_mode(
    arguments, times, runs_dir, monkeypatch, capsys
):
    composed, compose = [], Hydra.compose_config
    monkeypatch.setattr(Hydra, "compose_config", lambda *a, **k: composed.append(1) or compose(*a, **k))
    monkeypatch.setattr(sys, "argv", ["train.py"])
    look = Hydra.get_mode
    assert entry.main(arguments=[*arguments, f"log.runs_dir={runs_dir}", f"data.root={runs_dir}"]) == 1
    assert "is not prepared" in capsys.readouterr().err
    assert len(composed) == times and Hydra.get_mode is look


@pytest.mark.parametrize("verdict", ["causality", "causality_measured"])
def test_the_perplexity_of_a_routing_that_reads_later_tokens_is_marked(runs_dir, verdict):
    folder = RunFolder(runs_dir / "0123456789abcdef")
    folder.path.mkdir(parents=True)
    causal = {"own_future": False, "others_future": False, "mixes_batch": True}
    result = {"validation_perplexity": 5.0, "causality": causal, "causality_measured": causal}
    folder.result_file.write_text(json.dumps(result))
    assert headline(folder) == "validation perplexity 5.00"
    folder.result_file.write_text(json.dumps(result | {verdict: causal | {"others_future": True}}))
    assert headline(folder).startswith("validation perplexity 5.00 †")


def test_failed_run_exits_non_zero_and_is_tried_again_when_named(runs_dir):
    bug = train("unlucky", runs_dir, "run.seed=1")
    assert bug.returncode == 1
    assert "ValueError: one and one is three" in bug.stderr  # a defect shows its traceback
    bad_data = train("unlucky", runs_dir, "run.seed=2")
    assert bad_data.returncode == 1
    assert bad_data.stderr == "error: the shard x.bin is damaged; prepare the data again\n"
    (runs_dir / "luck").touch()
    assert train("unlucky", runs_dir, "run.seed=2").returncode == 0


def test_diverged_run_is_left_alone_unless_asked(runs_dir):
    first = train("unlucky", runs_dir, "run.seed=5")
    assert first.returncode == 1
    assert "ended as diverged at step 3: the loss is not finite" in first.stdout
    again = train("unlucky", runs_dir, "run.seed=5")
    assert again.returncode == 1
    assert "retry_failed=true trains it from the start" in again.stderr
    (runs_dir / "luck").touch()
    assert train("unlucky", runs_dir, "run.seed=5", "retry_failed=true").returncode == 0
    (folder,) = list_runs(runs_dir)
    assert [record["step"] for record in folder.metrics()] == [900]  # nothing of the first attempt


def test_run_stopped_by_a_signal_goes_on_with_the_same_command(runs_dir):
    running = start("patient", runs_dir)
    wait_until(lambda: any(f.status().step > 2 for f in list_runs(runs_dir)), "some steps")
    running.send_signal(signal.SIGTERM)
    out, _ = running.communicate(timeout=20)
    assert running.returncode == EXIT_PREEMPTED
    assert "is saved at step" in out
    assert train("patient", runs_dir).returncode == 0
    (folder,) = list_runs(runs_dir)
    assert folder.result()["resumed_from"] > 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run.sed=1"], "error: unknown key run.sed; did you mean run.seed?\n"),
        (["routing=token_tpo2"], "error: routing=token_tpo2 is unknown; did you mean routing=token_top2?\n"),
        (["run.seed=0,1"], "error: run.seed=0,1 lists several values: add -m"),
        (["+sweep=first_look"], "error: a sweep has many runs: add -m"),
        (["+sweep=open/gate", "scale=gpu"], "add -m, as in python train.py -m +sweep=open/gate scale=gpu"),
        (["scale=cpu"], "error: scale=cpu chooses the size of a sweep: add -m +sweep=NAME"),
        (["-m", "scale=cpu"], "error: scale=cpu chooses the size of a sweep; add +sweep=NAME"),
        (["-m", "+sweep=first_lok"], "did you mean first_look?; a file elsewhere is meant by its path\n"),
    ],
)
def test_bad_command_line_is_one_sentence(runs_dir, arguments, said):
    done = train("quick", runs_dir, *arguments)
    assert done.returncode == 1
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert not runs_dir.exists()


@pytest.mark.parametrize(
    ("arguments", "threads"),
    [
        ([], 1),
        (["-m", "job.threads_per_run=3"], 3),
        (["hydra.launcher.threads_per_run=3", "log.threads=2"], 2),
        *(
            pytest.param(arguments, threads, marks=pytest.mark.long)
            for arguments, threads in (
                (["-m"], 1),
                (["log.threads=2"], 2),
                (["-m", "log.threads=2"], 2),
                (["job.threads_per_run=3"], 3),
                (["hydra.launcher.threads_per_run=3"], 3),
                (["-m", "hydra/launcher=basic"], 1),
                (["-m", "hydra/launcher=basic", "job.threads_per_run=3"], 3),
            )
        ),
    ],
)
def test_a_run_has_as_many_threads_by_itself_as_in_a_sweep_or_a_job(runs_dir, monkeypatch, arguments, threads):
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    done = train("traced", runs_dir, *arguments)
    assert done.returncode == 0, done.stderr
    (folder,) = list_runs(runs_dir)
    assert folder.result()["threads"] == threads


@pytest.mark.parametrize(("job", "arguments"), every(2, [("quick", ["-m", "run.seed=0,1"]), (None, ["--help"])]))
def test_neither_help_nor_the_pool_itself_imports_torch_or_pandas(runs_dir, job, arguments):
    script = (
        "import runpy, sys\n"
        "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "except SystemExit as end: assert not end.code\n"
        "print('imported:', *{'torch', 'pandas', 'matplotlib', 'wandb'} & set(sys.modules))"
    )
    line, environment = command(job, runs_dir, arguments)
    line[1:2] = ["-c", f"import sys; sys.argv[0] = {line[1]!r}\n{script}"]
    done = subprocess.run(line, env=environment, cwd=runs_dir.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].split() == ["imported:"]


def test_runs_folder_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").touch()
    done = train("quick", tmp_path / "file" / "runs")
    assert done.returncode == 1
    assert "choose another folder" in done.stderr
    assert "Traceback" not in done.stderr
