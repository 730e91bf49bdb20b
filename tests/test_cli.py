"""The moe-study command: quick, without torch, and clear."""

import dataclasses
import errno
import json
import subprocess
import sys
import time
from types import ModuleType

import pytest

from moe_study import cli
from moe_study.design.config import LogConfig, RunConfig, RunSettings
from moe_study.runs.folder import RunFolder
from moe_study.runs.members import Launch, record_launch
from moe_study.sweeps.conf import project_root


def run_in(runs_dir, seed: int) -> RunFolder:
    config = RunConfig(run=RunSettings(seed=seed, steps=10), log=LogConfig(runs_dir=str(runs_dir)))
    return RunFolder.of(config)


@pytest.fixture
def some_runs(tmp_path):
    """One done, one failed, one preempted run."""
    runs_dir = tmp_path / "runs"
    for seed in range(3):
        folder = run_in(runs_dir, seed)
        with folder.claim(RunConfig(run=RunSettings(seed=seed, steps=10), log=LogConfig(runs_dir=str(runs_dir)))):
            folder.start(10)
            if seed == 0:
                folder.finish({"flops_per_token": 1e6, "tokens": 1000, "train_seconds": 3.0})
            elif seed == 1:
                folder.fail(ValueError("the true reason\nand a hint"))
            else:
                folder.preempt(4)
    return runs_dir


def test_help_and_plan_and_status_do_not_import_torch(some_runs):
    script = (
        "import sys; from moe_study.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "main(['plan', 'run.seed=0,1']); main(['status', sys.argv[1]])\n"
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(some_runs)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "moe-study prepare" in done.stdout


def test_plan_lists_runs_with_their_cost_and_invalid_points_with_their_reason(capsys, tmp_path):
    code = cli.main(["plan", "routing=token_top2", "routing.num_experts=1,4", f"log.runs_dir={tmp_path}"])
    out = capsys.readouterr().out
    assert code == 1
    assert "missing" in out
    assert "1 run(s) (1 missing), 1 to train" in out
    assert "cannot be picked from N=1" in out
    assert cli.main(["plan", f"log.runs_dir={tmp_path}"]) == 0


def test_a_plan_of_no_runs_is_none_that_can_be_trained(capsys, tmp_path):
    path = tmp_path / "nothing.yaml"
    path.write_text("seeds: [0]\npoints:\n  - {routing: dense}\nexclude:\n  - {routing: dense}\n")
    assert cli.main(["plan", f"+sweep={path}", f"log.runs_dir={tmp_path}"]) == 1
    assert "the sweep has no runs: every point is excluded or invalid" in capsys.readouterr().out


def test_plan_estimates_hours_from_finished_runs_and_says_where_from(capsys, some_runs, tmp_path):
    cli.main(["plan", "run.seed=7", f"log.runs_dir={some_runs}"])
    out = capsys.readouterr().out
    assert "1 run(s) (1 missing), 1 to train" in out
    assert "one run after the other, at 1G FLOPs per second, the median of 1 finished run in that folder" in out
    cli.main(["plan", "run.seed=7", f"log.runs_dir={tmp_path / 'none'}"])
    assert "how long that takes is not known: no run is finished in that folder" in capsys.readouterr().out


def test_plan_as_json_says_what_the_text_says(capsys, some_runs):
    line = ["plan", "--json", "run.seed=6,7,8", f"log.runs_dir={some_runs}"]
    assert cli.main(line) == 0
    broken = RunFolder(json.loads(capsys.readouterr().out)["runs"][0]["folder"])
    broken.path.mkdir()
    broken.fail(ValueError("the true reason"))
    assert cli.main(line) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["states"] == {"failed": 1, "missing": 2}
    assert [run["reason"] for run in found["runs"]] == ["the true reason", None, None]
    missing = found["runs"][2]
    assert missing["folder"] == str(some_runs / missing["key"])
    assert missing["train_flops"] == 3 * missing["flops_per_token"] * missing["tokens"]
    cost = found["to_train"]
    assert (cost["runs"], cost["flops"]) == (2, 2 * missing["train_flops"])
    (estimate,) = cost["hours"]
    assert estimate["hours"] == pytest.approx(cost["flops"] / 1e9 / 3600)  # 3 * 1e6 * 1000 FLOPs in 3 s
    assert cost["disk"]["bytes_when_done"] == 2 * 4 * missing["params"]


def test_status_counts_and_gives_reasons(capsys, some_runs):
    assert cli.main(["status", str(some_runs)]) == 0
    out = capsys.readouterr().out
    assert out.startswith("1 done, 1 failed, 1 preempted\n")
    assert "attempt 1: the true reason" in out
    assert "step 4 of 10" in out


def test_status_of_failed_runs_alone_ends_with_their_tracebacks(capsys, some_runs):
    folder = run_in(some_runs, 1)
    try:
        raise ValueError("the true reason")
    except ValueError as error:
        folder.fail(error)
    assert cli.main(["status", "--failed", str(some_runs)]) == 0
    first, *others = capsys.readouterr().out.splitlines()
    assert first.startswith(f"failed    {folder.path}")
    assert "log.txt" in first
    assert others[0] == "    Traceback (most recent call last):"
    assert others[-1] == "    ValueError: the true reason"
    folder.preempt(3)
    cli.main(["status", "--failed", str(some_runs)])
    assert capsys.readouterr().out == "no run has failed\n"


def test_status_as_json_has_every_run(capsys, some_runs):
    assert cli.main(["status", "--json", str(some_runs)]) == 0
    found = {run["key"]: run for run in json.loads(capsys.readouterr().out)}
    states = {run_in(some_runs, seed).key: state for seed, state in enumerate(("done", "failed", "preempted"))}
    assert {key: run["state"] for key, run in found.items()} == states
    preempted = found[run_in(some_runs, 2).key]
    assert (preempted["step"], preempted["total_steps"], preempted["attempts"]) == (4, 10, 1)
    assert found[run_in(some_runs, 1).key]["error"]["message"].startswith("the true reason")


def test_status_is_watched_until_nothing_is_under_way(capsys, some_runs, monkeypatch):
    running = run_in(some_runs, 2)
    plain = json.loads(running.status_file.read_text())
    alive = {**plain, "state": "running", "host": "elsewhere", "updated": time.time()}
    running.status_file.write_text(json.dumps(alive))
    looks = []

    def sleep(seconds):
        looks.append(seconds)
        running.preempt(5)

    monkeypatch.setattr(time, "sleep", sleep)
    assert cli.main(["status", "--watch", str(some_runs)]) == 0
    assert len(looks) == 1
    assert "1 done, 1 failed, 1 preempted" in capsys.readouterr().out


def test_status_says_why_a_run_was_cut_off_and_knows_of_clocks_that_are_ahead(capsys, some_runs):
    cut_off = run_in(some_runs, 2)
    cut_off.preempt(4, OSError(errno.ENOSPC, "No space left on device", "runs/x"))
    plain = json.loads(run_in(some_runs, 0).status_file.read_text())
    ahead = {**plain, "state": "running", "host": "elsewhere", "updated": time.time() + 1200}
    run_in(some_runs, 0).status_file.write_text(json.dumps(ahead))
    assert cli.main(["status", str(some_runs)]) == 0
    out = capsys.readouterr().out
    assert "step 4 of 10, cannot write runs/x: the disk is full" in out
    assert "a moment ago (its clock is 1200 s ahead of the one here)" in out or "1199 s ahead" in out
    assert "what a running one says stands in its log.txt: moe-study logs KEY -f" in out


def test_status_of_a_sweep_counts_runs_that_never_started(capsys, some_runs):
    record_launch(some_runs, "mine", Launch(runs=tuple(run_in(some_runs, seed).key for seed in (0, 8, 9))))
    assert cli.main(["status", "--sweep", "mine", str(some_runs)]) == 0
    assert capsys.readouterr().out == "2 missing, 1 done\n"


def test_a_sweep_in_a_folder_is_planned_and_followed_by_its_path(capsys, some_runs):
    assert cli.main(["plan", "+sweep=recipe/init", f"log.runs_dir={some_runs}"]) == 0
    keys = [line.split()[0] for line in capsys.readouterr().out.splitlines() if "missing" in line]
    record_launch(some_runs, "recipe/init", Launch(runs=(*keys, run_in(some_runs, 0).key)))
    assert cli.main(["status", "--sweep", "recipe/init", str(some_runs)]) == 0
    assert capsys.readouterr().out == f"{len(keys)} missing, 1 done\n"


def test_status_says_in_what_finished_runs_differ(capsys, some_runs):
    for seed, commit in ((0, "a"), (7, "b")):
        folder = run_in(some_runs, seed)
        if seed:
            config = run_in(some_runs, 0).read_config()
            with folder.claim(dataclasses.replace(config, run=RunSettings(seed=7, steps=10))):
                folder.start(10)
                folder.finish({"warnings": ["step 3: resumed with other threads"]})
        folder.provenance_file.write_text(json.dumps({"sources": commit * 64, "commit": commit * 40}))
    run_in(some_runs, 1).provenance_file.write_text(json.dumps({"sources": "c" * 64}))  # it has failed
    assert cli.main(["status", str(some_runs)]) == 0
    out = capsys.readouterr().out
    assert "note: these runs differ in their code: 1 have aaaaaaaaa, 1 bbbbbbbbb" in out
    assert f"{run_in(some_runs, 7).path}  step 3: resumed with other threads" in out
    assert out.count("note:") == 1


def test_status_of_a_damaged_run_names_its_file(capsys, some_runs):
    run_in(some_runs, 2).status_file.write_text("{")
    assert cli.main(["status", str(some_runs)]) == 0
    assert "status.json cannot be read" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["status", "nowhere"], "there is no folder nowhere"),
        (["status", "--sweep", "mine", "nowhere"], "no sweep mine was launched into nowhere"),
        (["plan", "+sweep=first_lok"], "did you mean first_look?"),
        (["status", "--sweep", "../mine", "nowhere"], "'../mine' is not the name of a sweep"),
        (["plan", "+sweep=int"], "did you mean recipe/init?"),
        (["plan", "routing.kk=2"], "did you mean routing.k?"),
        (["prepare", "data=parliament_nws"], "did you mean data=parliament_news?"),
    ],
)
def test_mistakes_are_one_sentence(capsys, arguments, said):
    assert cli.main(arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert said in error
    assert error.count("\n") == 1


def test_prepare_makes_a_corpus_of_local_files_ready(capsys, tmp_path):
    texts = tmp_path / "texts"
    texts.mkdir()
    for number in range(20):
        (texts / f"{number}.txt").write_text(f"Text number {number}. " * 50)
    arguments = ["data=local_files", f"data.options.path={texts}", "data.tokenizer.kind=bytes", f"data.root={tmp_path}"]
    for _ in range(2):
        assert cli.main(["prepare", *arguments, "data.validation_fraction=0.3"]) == 0
        assert "local_files is ready" in capsys.readouterr().out


def test_plots_without_a_finished_run_says_so(capsys, tmp_path, some_runs):
    run_in(some_runs, 0).status_file.write_text(run_in(some_runs, 1).status_file.read_text())
    assert cli.main(["plots", str(some_runs), "--out", str(tmp_path / "plots")]) == 1
    assert "is done yet" in capsys.readouterr().err


def test_plan_says_how_closely_sizes_were_matched(capsys, tmp_path):
    assert cli.main(["plan", "routing=token_top2", "match=active_params", f"log.runs_dir={tmp_path}"]) == 0
    assert "(matched active_params to -0.04%)" in capsys.readouterr().out


@pytest.mark.parametrize("subcommand", cli.SUBCOMMANDS, ids=lambda module: module.__name__.rpartition(".")[2])
def test_every_subcommand_is_shown_in_the_overview_and_in_the_readme(subcommand: ModuleType) -> None:
    name = subcommand.__name__.rpartition(".")[2]
    assert f"\n  moe-study {name} " in cli.DESCRIPTION, f"DESCRIPTION in moe_study/cli.py shows no command with {name}"
    listed = (project_root() / "README.md").read_text(encoding="utf-8").partition("      commands/ ")[2]
    listed = " ".join(listed.partition(" arguments.py:")[0].split())
    assert name in listed.partition("(cli.py): ")[2].replace(";", "").split(" | "), (
        f"{name} is missing where README.md lists what commands/ holds"
    )
