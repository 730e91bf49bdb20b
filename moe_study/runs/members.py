"""Which runs a sweep consists of, kept beside the runs."""

import os
from pathlib import Path

from moe_study.errors import StudyError
from moe_study.files import read_json, write_json_atomic


def write_sweep_members(runs_dir: str | os.PathLike[str], sweep: str, keys: list[str]) -> Path:
    """Record which runs the sweep `sweep` consists of, as last launched."""
    path = Path(runs_dir) / ".sweeps" / f"{sweep}.json"
    write_json_atomic(path, keys)
    return path


def read_sweep_members(runs_dir: str | os.PathLike[str], sweep: str) -> list[str]:
    """Keys of the runs of `sweep`; StudyError when it was never launched into `runs_dir`."""
    keys = read_json(Path(runs_dir) / ".sweeps" / f"{sweep}.json")
    if keys is None:
        raise StudyError(f"no sweep {sweep} was launched into {runs_dir}; run python train.py -m +sweep={sweep} first")
    return list(keys)
