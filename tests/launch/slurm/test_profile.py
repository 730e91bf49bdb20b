"""What a cluster wants: profiles in conf/cluster/, and the script and options that come of them."""

import subprocess
from pathlib import Path

import pytest

from moe_study.design.plain import to_plain
from moe_study.errors import ConfigError
from moe_study.launch.slurm.profile import ClusterProfile, check_profile
from moe_study.launch.slurm.settings import SlurmSettings
from moe_study.launch.slurm.step import needs_step, rendezvous, step_command
from moe_study.sweeps.compose import open_composer
from moe_study.sweeps.conf import choices_of, command_settings
from tests.launch.slurm.world import World, slurm_settings

FIELDS = set(ClusterProfile.__dataclass_fields__)


def script_of(runs_dir, **settings):
    """The script of a job that was sent with these."""
    world = World(runs_dir, 0, runs=1)
    world.command(**settings).round()
    return (world.scheduler.tasks[0].folder / "job.sh").read_text()



@pytest.mark.parametrize("name", choices_of("cluster"))
def test_a_committed_profile_makes_sense_and_is_no_part_of_a_run(name):
    with open_composer() as composer:
        chosen = composer.compose([f"cluster={name}"]).plain["cluster"]
        assert composer.run_config([f"cluster={name}"]) == composer.run_config([])
    check_profile(chosen)
    assert set(chosen) == FIELDS == set(command_settings()["cluster"])
    if name == "example":  # a file to copy shows them all
        assert all(chosen.values())
    slurm_settings(**chosen)


def test_the_launcher_has_the_last_word():
    committed = to_plain(slurm_settings())
    unsaid = {**committed, **dict.fromkeys(FIELDS)}
    found = SlurmSettings.of({**unsaid, "minutes": 9, "setup": []}, {"partition": "long", "minutes": 5, "setup": ["a"]})
    assert (found.partition, found.minutes, found.setup) == ("long", 9, ())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"partition": ""}, "partition is empty"),
        ({"minutes": 0}, "minutes=0 must be at least 1"),
        ({"modules": ["cuda 12"]}, "modules: 'cuda 12' must be the name of one module"),
        ({"container": "apptainer exec 'study.sif"}, "container cannot be split into words"),
        ({"options": ["gres=gpu:1"]}, "options: gres=gpu:1 is not an option of sbatch"),
        ({"options": ["--nodes=2"]}, "options: --nodes=2 is set by the launcher itself; use hydra.launcher.nodes"),
    ],
)
def test_values_that_no_cluster_could_take_are_refused_wherever_they_stand(changes, said):
    with pytest.raises(ConfigError, match=f"^cluster.{said}"):
        check_profile(changes)
    with pytest.raises(ConfigError, match=f"^hydra.launcher.{said}"):
        slurm_settings(**changes)


def test_fields_that_a_profile_does_not_have_are_refused():
    with pytest.raises(ConfigError, match=r"unknown key cluster.time; known here are account, .*minutes"):
        check_profile({"time": 60})
    with pytest.raises(ConfigError, match=r"cluster.modules must be a list, not 'cuda'"):
        check_profile({"modules": "cuda"})


def test_set_up_runs_before_python_and_whatever_it_leaves_behind(runs_dir, tmp_path):
    """The script itself, with a Python that only says what it finds."""
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho "loaded $LOADED, set $SETTING, in $PWD"\nexit 7\n')
    python.chmod(0o755)
    left = ["export SETTING='a b'", "set -eu", "cd /"]
    script = script_of(runs_dir, modules=["cuda/12.4", "gcc"], setup=left)
    real = next(word for word in script.split() if Path(word).name.startswith("python"))
    script = script.replace(real, str(python), 1)
    module = 'module() { export LOADED="$*"; }\n'
    done = subprocess.run(
        ["bash"], input=module + script, env={"SLURM_ARRAY_TASK_ID": "0"}, capture_output=True, text=True, cwd=tmp_path
    )
    here = next(line.split()[1] for line in script.splitlines() if line.startswith("cd ") and "||" in line)
    assert (done.returncode, done.stdout) == (7, f"loaded load cuda/12.4 gcc, set a b, in {here}\n"), done.stderr


def test_a_module_that_is_not_there_ends_the_job(runs_dir):
    script = "module() { echo unknown module $2 >&2; return 1; }\n" + script_of(runs_dir, modules=["cuda/99"])
    done = subprocess.run(["bash"], input=script, env={}, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "unknown module cuda/99\n")


def test_a_container_stands_before_python_or_is_an_option_of_srun():
    assert not needs_step(slurm_settings())
    apptainer = slurm_settings(container="apptainer exec --nv '/my images/study.sif'", python="python3")
    command = step_command(apptainer, ["folder", "0"])
    assert command[:4] == ["apptainer", "exec", "--nv", "/my images/study.sif"]
    assert command[-5:] == ["python3", "-m", "moe_study.launch.slurm.train", "folder", "0"]
    pyxis = step_command(slurm_settings(container="--container-image=/images/study.sqsh"), ["folder", "0"])
    assert pyxis[0] == "srun"
    assert "--container-image=/images/study.sqsh" in pyxis[: pyxis.index("/bin/sh")]
    both = step_command(slurm_settings(container="apptainer exec study.sif", nodes=2), ["folder", "0"])
    assert both[0] == "srun"
    assert both[both.index("apptainer") :][:4] == ["apptainer", "exec", "study.sif", "/bin/sh"]


@pytest.mark.parametrize(
    ("changes", "ranks", "options"),
    [
        ({}, 1, ["--nodes=1", "--ntasks-per-node=1", "--gres=gpu:1"]),
        ({"nodes": 2, "gpus_per_node": 4}, 4, ["--nodes=2", "--ntasks-per-node=4", "--gres=gpu:4"]),
        ({"nodes": 3, "ranks": 2}, 2, ["--nodes=3", "--ntasks-per-node=2", "--gres=gpu:2"]),
        ({"nodes": 2, "gpus_per_node": 0}, 1, ["--nodes=2", "--ntasks-per-node=1"]),
    ],
)
def test_nodes_and_their_gpus_say_how_many_ranks(changes, ranks, options):
    settings = slurm_settings(**changes)
    assert (settings.ranks, settings.processes) == (ranks, ranks * settings.nodes)
    sent = settings.sbatch_options(["auto"])
    assert [one for one in sent if one.startswith(("--nodes", "--ntasks", "--gres"))] == options


def test_ranks_meet_where_the_set_up_says_or_on_the_first_node(monkeypatch):
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    assert rendezvous(slurm_settings()) == {}
    found = rendezvous(slurm_settings(nodes=2, ranks=3))
    assert found["WORLD_SIZE"] == "6"
    assert 1024 < int(found["MASTER_PORT"]) < 65536
    monkeypatch.setenv("MASTER_ADDR", "node1-ib0")
    assert rendezvous(slurm_settings(nodes=2))["MASTER_ADDR"] == "node1-ib0"
