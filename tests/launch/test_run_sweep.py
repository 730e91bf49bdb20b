"""Sweeps through the launchers of this machine: the project's own, and Hydra's."""


import pytest

from moe_study.errors import StudyError
from moe_study.launch.run_sweep import Launching, conclude
from moe_study.runs.folder import State, list_runs
from moe_study.runs.members import read_members
from moe_study.sweeps.plan import plan_overrides
from tests.launch.driving import train

FOLDERS = Launching(lambda plan, runs: None)


@pytest.fixture
def runs_dir(tmp_path):
    return tmp_path / "runs"


@pytest.fixture
def sweep_file(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("seeds: [0, 1]\npoints: [{routing: [dense, token_top1]}, {routing: token_top2, routing.k: [2, 9]}]")
    return file


def by_seed(runs_dir):
    return {folder.read_config().run.seed: folder.state() for folder in list_runs(runs_dir)}


def test_sweep_file_from_plan_to_summary(runs_dir, sweep_file, tmp_path):
    stopped = train("quick", runs_dir, "-m", f"+sweep={sweep_file}")
    assert stopped.returncode == 1
    assert "error: 2 of 8 points are invalid" in stopped.stderr
    assert stopped.stderr.count("cannot be picked from N=4") == 1
    assert not runs_dir.exists()
    done = train("quick", runs_dir, "-m", f"+sweep={sweep_file}", "skip_invalid=true")
    assert done.returncode == 0, done.stderr
    assert "mine: 6 runs (6 missing); 6 to train now" in done.stderr
    assert "mine: 6 done" in done.stderr
    assert sorted(read_members(runs_dir, "mine").runs) == [folder.key for folder in list_runs(runs_dir)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.yaml", "runs"]
    again = train("quick", runs_dir, "-m", f"+sweep={sweep_file}", "skip_invalid=true")
    assert again.returncode == 0
    assert "mine: 6 runs (6 done); 0 to train now" in again.stderr


def test_run_that_a_launcher_lost_makes_the_sweep_fail(tmp_path, capsys):
    plan = plan_overrides(["run.seed=0,1", f"log.runs_dir={tmp_path}"])
    done, lost = plan.to_start()
    for run in (done, lost):
        with run.folder.claim(run.config):
            run.folder.start(10)
            if run is done:
                run.folder.finish({})
    with pytest.raises(StudyError, match="1 of 2 runs are unfinished; rerun the command to resume them"):
        conclude(plan, [done, lost], FOLDERS)
    assert "1 stale, 1 done" in capsys.readouterr().err


def test_warnings_of_new_results_are_counted_at_the_end(tmp_path, capsys):
    plan = plan_overrides(["run.seed=0,1,2", f"log.runs_dir={tmp_path}"])
    for run, warnings in zip(plan.runs, ([], ["step 3: resumed with other threads"], []), strict=True):
        with run.folder.claim(run.config):
            run.folder.start(10)
            run.folder.finish({"warnings": warnings})
    conclude(plan, plan.runs[:2], FOLDERS)
    assert "1 of the new results have a warning" in capsys.readouterr().err
    conclude(plan, plan.runs[2:], FOLDERS)
    assert "have a warning" not in capsys.readouterr().err


@pytest.mark.parametrize("plugin", ["hydra/launcher=basic", "hydra/sweeper=basic"])
@pytest.mark.long
def test_hydras_own_launcher_and_sweeper_work_too(runs_dir, plugin):
    done = train("quick", runs_dir, "-m", "run.seed=0,1", plugin)
    assert done.returncode == 0, done.stderr
    assert by_seed(runs_dir) == {0: State.DONE, 1: State.DONE}


@pytest.mark.long
def test_hydras_own_sweeper_reports_a_failed_run(runs_dir):
    done = train("unlucky", runs_dir, "-m", "run.seed=0,1", "hydra/sweeper=basic")
    assert done.returncode == 1
    assert by_seed(runs_dir) == {0: State.DONE, 1: State.FAILED}


@pytest.mark.parametrize("arguments", [("-m", "run.seed=0,1"), ("run.seed=0",)])
def test_missing_corpus_is_told_before_anything_starts(runs_dir, tmp_path, arguments):
    done = train(None, runs_dir, *arguments, f"data.root={tmp_path / 'data'}")
    assert done.returncode == 1
    assert "moe-study prepare data=parliament_news" in done.stderr
    assert "Traceback" not in done.stderr
    assert list_runs(runs_dir) == []


def test_runs_folder_that_cannot_be_written_is_told_before_anything_starts(tmp_path):
    (tmp_path / "file").touch()
    done = train("quick", tmp_path / "file" / "runs", "-m", "run.seed=0,1")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: cannot write")
    assert "Traceback" not in done.stderr


def test_several_runs_in_a_job_are_for_a_launcher_that_has_jobs(runs_dir):
    for launcher in ((), ("hydra/launcher=basic",)):
        wrong = train("quick", runs_dir, "-m", "run.seed=7", "job.runs=2", *launcher)
        assert wrong.returncode == 1
        assert "error: job.runs=2 is for hydra/launcher=slurm" in wrong.stderr
        wrong = train("quick", runs_dir, "-m", "run.seed=7", "cluster=example", *launcher)
        assert wrong.returncode == 1
        assert "error: cluster=example is for hydra/launcher=slurm" in wrong.stderr
