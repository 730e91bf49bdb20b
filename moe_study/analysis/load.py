"""The files of one run's folder, as plain Python values. Every damaged file becomes one sentence that names it.

`moe_study.runs.folder` knows the files; what is added here is only what analysis alone needs: configurations of other
versions stay readable, and activation counts are checked for their columns.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from moe_study.errors import DataError
from moe_study.runs.folder import RunFolder, Status, list_runs
from moe_study.runs.members import read_members

ACTIVATION_COLUMNS = ("layer", "expert", "language", "topic", "count", "weight", "tokens")
SECTIONS = ("model", "routing", "data", "optimizer", "run")  # what makes a run's identity
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times faster, where PyYAML was built with it


def find_runs(roots: Iterable[Path], sweep: str | None = None) -> list[RunFolder]:
    """Run folders among `roots` and directly inside them; of `sweep` only, with those it never started too.

    Errors: DataError when a root is missing, or when none of them holds a run; StudyError for a sweep that was
    never launched.
    """
    roots = [Path(root) for root in roots]
    found: dict[Path, RunFolder] = {}
    for root in roots:
        if not root.is_dir():
            raise DataError(f"there is no folder {root}; name the folder that holds the runs")
        if sweep is not None:
            folders = [RunFolder(root / key) for key in read_members(root, sweep).runs]
        elif (root / "config.yaml").exists():
            folders = [RunFolder(root)]
        else:
            folders = list_runs(root)
        found.update((folder.path, folder) for folder in folders)
    if not found:
        names = ", ".join(str(root) for root in roots) or "nothing"
        raise DataError(f"no runs in {names}; start some with python train.py, or name another folder")
    return list(found.values())


def read_config(folder: RunFolder) -> dict[str, Any]:
    """The configuration as written, nested; unlike RunFolder.read_config, one of another version too."""
    path = folder.config_file
    try:
        config = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing; start the run again") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is damaged: it is not YAML; start the run again") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    if not isinstance(config, dict) or not all(isinstance(config.get(name), dict) for name in SECTIONS):
        raise DataError(f"{path} is damaged: it lacks one of the sections {', '.join(SECTIONS)}; start the run again")
    return config


def read_status(folder: RunFolder) -> tuple[Status, str]:
    """What was last written, and the state as it is now (a run whose process is gone is stale)."""
    return folder.status(), folder.state().value


def read_result(folder: RunFolder) -> dict[str, Any]:
    """The result of a run that is done."""
    result = folder.result()
    if result is None:
        raise DataError(f"{folder.result_file} is missing; start the run again")
    if not isinstance(result, dict):
        raise DataError(f"{folder.result_file} is damaged: it holds no fields; start the run again")
    return result


def read_routing(folder: RunFolder) -> pd.DataFrame | None:
    """Activation counts over the validation set (ACTIVATION_COLUMNS), or None for a run without a router."""
    path = folder.routing_file
    if not path.exists():
        return None
    try:
        counts = pd.read_parquet(path)
    except Exception as error:  # pyarrow raises many kinds for a damaged file
        raise DataError(f"{path} is damaged: it is not a parquet file; start the run again") from error
    missing = [name for name in ACTIVATION_COLUMNS if name not in counts]
    if missing:
        raise DataError(f"{path} is damaged: it has no column {missing[0]}; start the run again")
    return counts
