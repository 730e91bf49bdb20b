"""What is said of log.trace_every where nothing is left to train."""

from dataclasses import replace
from pathlib import Path

from moe_study.launch.run_sweep import opening
from moe_study.launch.untraced import about_untraced
from moe_study.runs.folder import RunFolder
from moe_study.sweeps.plan import plan_overrides
from tests.launch.driving import train


def test_a_finished_run_without_routes_is_told_so(tmp_path: Path) -> None:
    runs_dir = tmp_path / "runs"
    assert train("quick", runs_dir).returncode == 0
    again = train("quick", runs_dir, "log.trace_every=100")
    assert again.returncode == 0 and "is done already" in again.stdout
    assert "log.trace_every has nothing to do where a run is done: 1 run is done and has kept no routes" in again.stderr


def test_a_sweep_counts_its_finished_runs_without_routes_and_no_others(tmp_path: Path) -> None:
    overrides = ["run.seed=0,1,2,3", f"log.runs_dir={tmp_path}", "log.trace_every=5"]
    plan = plan_overrides(overrides)
    configs = [run.config for run in plan.runs]
    assert about_untraced(configs) is None  # nothing is done yet
    for config in configs[:3]:
        folder = RunFolder.of(config)
        with folder.claim(config):
            folder.start(10)
            folder.finish({})
    RunFolder.of(configs[2]).routes_folder.mkdir()
    plan = plan_overrides(overrides)
    assert "2 runs are done and have kept no routes" in opening(plan, plan.to_start())
    silent = [replace(config, log=replace(config.log, trace_every=None)) for config in configs]
    assert about_untraced(silent) is None


def test_a_dense_run_has_no_routes_to_keep(tmp_path: Path) -> None:
    plan = plan_overrides(["routing=dense", f"log.runs_dir={tmp_path}", "log.trace_every=5"])
    (run,) = plan.runs
    with run.folder.claim(run.config):
        run.folder.start(10)
        run.folder.finish({})
    assert about_untraced([run.config]) is None
