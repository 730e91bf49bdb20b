"""What is kept of a sweep's runs: results/NAME/runs.parquet, one row for each, and manifest.json.

The two suffice for every table and verdict: `read_archive` gives the Study that was written down, without run folders.
"""

import functools
import io
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from moe_study.analysis.frame import CAUSALITY, EXECUTED, EXPERT_RATES, RESULT_NUMBERS
from moe_study.analysis.records import records
from moe_study.analysis.study import Study, study_of
from moe_study.design.identity import ABSENT, is_outside
from moe_study.design.plain import from_plain, to_plain
from moe_study.errors import ConfigError, DataError
from moe_study.files import read_json, write_bytes_atomic, write_json_atomic
from moe_study.runs.folder import RunFolder
from moe_study.runs.members import Members, plain_members

RUNS, MANIFEST = "runs.parquet", "manifest.json"
MADE = ("commit", "sources", "cpu", "device", "data_fingerprint")  # of a run's provenance
VERSIONS = ("torch", "python")
REPLICATES = "replicates"  # in a manifest of runs that stand beside the first ones of a sweep: its name
TOLD = ("sweep", "command", "runs", "done", "hardware", "hours_by_the_clock", "members")  # of a manifest, by overviews
NEEDED = ("key", "state", "seed", "identity", "point", "label", "evaluation", "leaks", *CAUSALITY, "validation_loss")
_AS_JSON = b"moe_study_json"  # in the file's own notes: the columns whose cells are JSON


@dataclass(frozen=True)
class Archive:
    """A sweep's runs as they were kept, and what the manifest says of them."""

    folder: Path
    name: str  # of the sweep, with its scale
    frame: pd.DataFrame  # as load_frame gives it, without folders; with MADE of each run
    members: Members
    manifest: Mapping[str, Any]

    def study(self) -> Study:
        """The study, computed from the rows when it is first asked for."""
        return self._study

    @functools.cached_property
    def _study(self) -> Study:
        """How a run was made is not a setting in which points differ."""
        settings = self.frame[[column for column in self.frame if not str(column).startswith("made.")]]
        return study_of(settings, [self.members])


def rows_of(frame: pd.DataFrame) -> pd.DataFrame:
    """The runs of a study's frame as they are kept: what they are, what came out, and how each was made.

    Paths, and settings of what a run prints, are left out.
    """
    kept = frame[[str(column) for column in frame if column != "folder" and not is_outside(str(column))]]
    made = [_made(RunFolder(folder)) for folder in frame["folder"]]
    return pd.concat([kept.reset_index(drop=True), pd.DataFrame(made)], axis=1)


def _made(folder: RunFolder) -> dict[str, Any]:
    record = folder.known_provenance()
    versions = record.get("versions") or {}
    found = {name: record.get(name) for name in MADE} | {name: versions.get(name) for name in VERSIONS}
    return {f"made.{name}": value for name, value in found.items()}


def write_archive(folder: Path, rows: pd.DataFrame, members: Members, manifest: Mapping[str, Any]) -> list[Path]:
    """The two files of an archive; the same runs give the same bytes."""
    columns = [str(name) for name in rows if rows[name].dtype == object]
    encoded = rows.copy()
    for name in columns:
        encoded[name] = [json.dumps(to_plain(value)) for value in rows[name]]
    table = pa.Table.from_pandas(encoded, preserve_index=False)
    table = table.replace_schema_metadata({_AS_JSON: json.dumps(columns).encode()})
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    write_bytes_atomic(folder / RUNS, buffer.getvalue())
    write_json_atomic(folder / MANIFEST, {**manifest, "members": plain_members(members)})
    return [folder / RUNS, folder / MANIFEST]


def read_archive(folder: Path) -> Archive:
    """What `write_archive` wrote; DataError where a file is missing or damaged."""
    manifest = read_json(folder / MANIFEST)
    if manifest is None:
        raise DataError(f"{folder / MANIFEST} is missing; moe-study results writes it")
    try:
        _need(TOLD, manifest, MANIFEST)
        table = pq.read_table(folder / RUNS)
        columns = json.loads((table.schema.metadata or {})[_AS_JSON])
        frame = table.to_pandas()
        for name in columns:
            frame[name] = pd.Series([_tuples(json.loads(cell)) for cell in frame[name]], dtype=object)
        _need(NEEDED, frame, RUNS)
        for name in (*RESULT_NUMBERS, *EXECUTED, *EXPERT_RATES):  # of a later version: not known of these runs
            frame[name] = pd.to_numeric(frame[name]) if name in frame else math.nan
        members: Members = from_plain(Members, manifest["members"])
        name = str(manifest["sweep"])
    except (OSError, KeyError, TypeError, ValueError, pa.ArrowException, ConfigError) as error:
        raise DataError(f"{folder} is damaged ({error}); write it again with moe-study results") from error
    return Archive(folder, name, _with_todays_settings(frame).assign(folder=frame["key"]), members, manifest)


def _need(names: Iterable[str], found: Any, where: str) -> None:
    """ValueError for what a file lacks, or where it is of another kind."""
    if not isinstance(found, dict | pd.DataFrame):
        raise ValueError(f"{where} is no mapping")
    if missing := [name for name in names if name not in found]:
        raise ValueError(f"{where} lacks {', '.join(missing)}")


def archives(root: Path) -> list[Archive]:
    """The archives of all sweeps below `root`, by name; what only stands beside one of them is none.

    DataError for one in a folder that is not called as its sweep: links would lead nowhere.
    """
    found = [read_archive(path.parent) for path in sorted(root.rglob(MANIFEST))]
    kept = [archive for archive in found if REPLICATES not in archive.manifest]
    for archive in kept:
        if archive.folder != root / archive.name:
            raise DataError(f"{archive.folder} holds what was kept of {archive.name}; move it to {root / archive.name}")
    return kept


def _with_todays_settings(frame: pd.DataFrame) -> pd.DataFrame:
    """Settings that were added after the rows were written have the values that they had before (ABSENT)."""
    later = {name: value for name, value in ABSENT.items() if name not in frame and not is_outside(name)}
    rows = records(frame)
    return frame.assign(**{name: pd.Series([of(row) for row in rows], dtype=object) for name, of in later.items()})


def _tuples(value: Any) -> Any:
    """Lists as the tuples that a frame of run folders has."""
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
