"""How many cores a process may use, by everything that limits it."""

import os

import pytest

from moe_study.launch.local import slots


@pytest.mark.parametrize(
    ("slurm", "quota", "cores"),
    [
        ({}, "max 100000", 8),
        ({}, "300000 100000", 3),
        ({"SLURM_CPUS_PER_TASK": "1", "SLURM_CPUS_ON_NODE": "8"}, "max 100000", 1),  # srun -c 1 that binds nothing
        ({"SLURM_CPUS_ON_NODE": "2"}, "max 100000", 2),
        ({"SLURM_CPUS_PER_TASK": "64"}, "max 100000", 8),  # not more than the affinity
        ({"SLURM_CPUS_PER_TASK": "4"}, "50000 100000", 1),
        ({"SLURM_CPUS_PER_TASK": "", "SLURM_CPUS_ON_NODE": "many"}, "", 8),
    ],
)
def test_cores_are_the_least_of_affinity_quota_and_share_of_the_job(monkeypatch, tmp_path, slurm, quota, cores):
    for name in ("SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in slurm.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "cpu.max").write_text(quota)
    monkeypatch.setattr(slots, "CPU_QUOTA", tmp_path / "cpu.max")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    assert slots.available_cores() == cores
