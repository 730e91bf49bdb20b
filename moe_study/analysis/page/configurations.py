"""Every run's configuration, as what differs from the defaults and as a whole, and where its result came from."""

import contextlib
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import yaml

from moe_study.analysis.format import NOTHING, duration, number
from moe_study.analysis.page.tables import Cell, Column, Table, known, marked
from moe_study.analysis.study import Study
from moe_study.design.config import RunConfig
from moe_study.design.identity import is_of_point
from moe_study.design.plain import flatten, to_plain
from moe_study.errors import StudyError
from moe_study.runs.folder import RunFolder

MOST_PROVENANCE = 300  # runs whose whole record stands in the page


@dataclass(frozen=True)
class PointConfiguration:
    """One design point: its settings, which all of its seeds share."""

    name: str  # its label with its mark
    seeds: Sequence[int]
    apart: Sequence[str]  # setting=value: what tells it from other points
    differs: Sequence[tuple[str, str, str]]  # setting, value, default
    whole: str  # as YAML


@dataclass(frozen=True)
class Record:
    """Where one run's result came from."""

    run: str
    text: str


def configurations(study: Study, marks: Mapping[str, str]) -> list[PointConfiguration]:
    """Those of all points, done or not, in the order of the frame; runs without a readable one are left out."""
    defaults = {name: _text(value) for name, value in flatten(to_plain(RunConfig())).items()}
    plains = _plain_configurations(study)
    flat = {label: {str(n): _text(v) for n, v in flatten(plain).items()} for label, plain in plains.items()}
    varying = _varying(list(flat.values()))
    found = []
    for label, settings in flat.items():
        differs = [
            (name, value, defaults.get(name, NOTHING))
            for name, value in settings.items()
            if is_of_point(name) and value != defaults.get(name)
        ]
        seeds = sorted(int(seed) for seed in study.frame[study.frame["label"] == label]["seed"].dropna())
        apart = [f"{name}={settings[name]}" for name in varying if name in settings]
        whole = yaml.safe_dump(plains[label], sort_keys=False, allow_unicode=True)
        found.append(PointConfiguration(marked(label, marks), seeds, apart, differs, whole))
    return found


def _plain_configurations(study: Study) -> dict[str, dict[str, Any]]:
    """Of each point (label), that of its first run."""
    found = {}
    for label, own in study.frame[study.frame["label"] != study.frame["key"]].groupby("label", sort=False):
        with contextlib.suppress(StudyError):
            found[str(label)] = RunFolder(own["folder"].iloc[0]).read_plain_config()
    return found


def _varying(points: Sequence[Mapping[str, str]]) -> list[str]:
    """The settings in which some points differ."""
    names = dict.fromkeys(name for settings in points for name in settings if is_of_point(name))
    return [name for name in names if len({settings.get(name) for settings in points}) > 1]


def _text(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=1000).removesuffix("...\n").strip()


def runs_table(study: Study, marks: Mapping[str, str]) -> Table:
    """Every run: its point, seed, key, state and result, and which code and machine it came from."""
    columns = [
        Column("run", False), Column("seed", True), Column("key", False), Column("state", False),
        Column("loss", True, "validation, nats per token"), Column("training time", True), Column("commit", False),
        Column("torch", False), Column("device", False), Column("host", False), Column("started", True, "UTC"),
    ]  # fmt: skip
    rows = [_run_row(run, marks) for run in study.frame.to_dict("records")]
    return Table("runs-table", "Runs and where their results came from", columns, rows)


def _run_row(run: Mapping[Any, Any], marks: Mapping[str, str]) -> list[Cell]:
    made = RunFolder(str(run["folder"])).known_provenance()
    versions = made.get("versions") or {}
    name, seed = marked(str(run["label"]), marks), known(run.get("seed"))
    at = made.get("time")
    loss, seconds = (float(run.get(name, math.nan)) for name in ("validation_loss", "train_seconds"))
    commit = f"{made['commit'][:9]}{' with changes' if made.get('diff') else ''}" if made.get("commit") else None
    texts = [str(value or NOTHING) for value in (commit, versions.get("torch"), made.get("device"), made.get("host"))]
    return [
        Cell(name, name),
        Cell(NOTHING if seed is None else f"{seed:g}", seed),
        Cell(str(run["key"]), str(run["key"])),
        Cell(str(run["state"]), str(run["state"])),
        Cell(number(loss, "{:.4f}"), known(loss)),
        Cell(duration(seconds), known(seconds)),
        *(Cell(text, text) for text in texts),
        Cell(_date(at), known(at) if isinstance(at, int | float) else None),
    ]


def _date(at: Any) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime(at)) if isinstance(at, int | float) else NOTHING


def records(study: Study, marks: Mapping[str, str]) -> list[Record]:
    """The whole provenance of each run as YAML."""
    found = []
    for run in study.frame.head(MOST_PROVENANCE).to_dict("records"):
        if made := RunFolder(str(run["folder"])).known_provenance():
            seed = "" if pd.isna(run["seed"]) else f", seed {run['seed']:g}"
            text = yaml.safe_dump(made, sort_keys=False, allow_unicode=True)
            found.append(Record(f"{marked(str(run['label']), marks)}{seed} ({run['key']})", text))
    return found
