"""The files of one run's folder, as plain Python values.

Every damaged file becomes one sentence that names it.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from moe_study.errors import DataError

ACTIVATION_COLUMNS = ("layer", "expert", "language", "topic", "count", "weight", "tokens")
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def find_runs(roots: Iterable[Path]) -> list[Path]:
    """Run folders among `roots` and directly inside them, sorted by name.

    Errors: DataError when a root is missing, or when none of them holds a run.
    """
    found: dict[Path, None] = {}
    roots = [Path(root) for root in roots]
    for root in roots:
        if not root.is_dir():
            raise DataError(f"there is no folder {root}; name the folder that holds the runs")
        candidates = [root] if is_run(root) else sorted(p for p in root.iterdir() if p.is_dir() and is_run(p))
        found.update(dict.fromkeys(candidates))
    if not found:
        names = ", ".join(str(root) for root in roots) or "nothing"
        raise DataError(f"no runs in {names}; start some with `python train.py`, or name another folder")
    return list(found)


def is_run(folder: Path) -> bool:
    return (folder / "config.yaml").exists() or (folder / "status.json").exists()


def read_config(folder: Path) -> dict[str, Any]:
    """The resolved configuration, nested."""
    path = folder / "config.yaml"
    try:
        config = yaml.load(_text(path), Loader=_Loader)
    except yaml.YAMLError as error:
        raise DataError(f"{path} is damaged: it is not YAML") from error
    return _mapping(path, config)


def read_status(folder: Path) -> dict[str, Any]:
    return _read_json(folder / "status.json")


def read_result(folder: Path) -> dict[str, Any]:
    return _read_json(folder / "result.json")


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl; a last line that was cut off by a kill is left out."""
    path = folder / "metrics.jsonl"
    lines = _text(path).split("\n")
    records = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError as error:
            if number == len(lines):  # no line end: the write was cut off
                break
            raise DataError(f"{path} is damaged: line {number} is not JSON") from error
        if not isinstance(record, dict) or "kind" not in record:
            raise DataError(f"{path} is damaged: line {number} has no kind")
        records.append(record)
    return records


def read_routing(folder: Path) -> pd.DataFrame | None:
    """Activation counts over the validation set (ACTIVATION_COLUMNS), or None for a run without a router."""
    path = folder / "routing.parquet"
    if not path.exists():
        return None
    try:
        counts = pd.read_parquet(path)
    except Exception as error:  # pyarrow raises many kinds for a damaged file
        raise DataError(f"{path} is damaged: it is not a parquet file") from error
    missing = [name for name in ACTIVATION_COLUMNS if name not in counts]
    if missing:
        raise DataError(f"{path} is damaged: it has no column {missing[0]}")
    return counts


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing; start the run again") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is damaged: it is not text") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(_text(path))
    except ValueError as error:
        raise DataError(f"{path} is damaged: it is not JSON") from error
    return _mapping(path, value)


def _mapping(path: Path, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise DataError(f"{path} is damaged: it holds no mapping")
    return value
