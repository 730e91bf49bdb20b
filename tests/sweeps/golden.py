"""The keys and full configurations of everything that is committed, kept in golden_keys.json.

    python -m tests.sweeps.golden        # write the file anew, after test_golden.py has said why
"""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from moe_study.design.config import RunConfig
from moe_study.design.identity import SEED, is_outside, settings_of
from moe_study.design.plain import to_plain
from moe_study.sweeps.compose import Composer, open_composer
from moe_study.sweeps.conf import project_root
from moe_study.sweeps.plan import Plan, plan_command, plan_grid
from moe_study.sweeps.sweep_file import read_grid, scales_of, sweep_names

FILE = Path(__file__).with_name("golden_keys.json")
Entry = list[dict[str, Any]]  # of each point: its overrides, its keys by seed, and its settings where unlike DEFAULTS
Scaled = dict[str, Any]  # of a sweep at one of its scales: how many points and comparisons, and a hash of the keys
DEFAULTS = "defaults"


def entries() -> list[str]:
    """What is committed: conf/routing/*.yaml, and sweeps/**/*.yaml, without scales, by the sweep's name."""
    root = project_root()
    routings = sorted(path.stem for path in (root / "conf" / "routing").glob("*.yaml"))
    sweeps = [name for name, scales in _sweeps().items() if not scales]
    return [f"routing={name}" for name in routings] + [f"+sweep={name}" for name in sweeps]


def scaled_entries() -> list[str]:
    """Sweeps with scales, each at each of them, as NAME@SCALE."""
    return [f"{name}@{scale}" for name, scales in _sweeps().items() for scale in scales]


@functools.cache
def _sweeps() -> dict[str, list[str]]:
    """The committed sweeps with their scales, read once for all that are collected by them."""
    root = project_root()
    return {name: scales_of(name, root) for name in sweep_names(root)}


@functools.cache
def plan_of_one_seed(composer: Composer, name: str) -> Plan:
    """The plan of a sweep with its first seed alone, since planning takes its time for every run."""
    grid = read_grid(name, project_root())
    first = grid.points[0].get(SEED)
    points = tuple(point for point in grid.points if point.get(SEED) == first)
    return plan_grid(composer, dataclasses.replace(grid, points=points))


def summary(plan: Plan) -> Scaled:
    """What is held of a sweep at one of its scales."""
    digest = hashlib.sha256(" ".join(sorted(run.key for run in plan.runs)).encode()).hexdigest()
    return {"points": len(plan.runs), "comparisons": len(plan.comparisons), "keys": digest[:16]}


def golden(composer: Composer, entry: str, defaults: dict[str, Any]) -> Entry:
    """The points that `entry`, an override, means; seeds of one point stand together."""
    points: dict[str, dict[str, Any]] = {}
    for run in plan_command(composer, [entry], project_root()).runs:
        name = " ".join(o for o in run.overrides if not o.startswith((f"{SEED}=", "log.")))
        settings = full(run.config)
        different = {setting: value for setting, value in settings.items() if defaults.get(setting) != value}
        different |= {setting: "gone" for setting in defaults if setting not in settings}
        point = points.setdefault(name, {"point": name, "keys": {}, "settings": different})
        point["keys"][str(run.config.run.seed)] = run.key
    return list(points.values())


def full(config: RunConfig) -> dict[str, Any]:
    """All settings that can have a part in a run's identity, but the seed, as JSON holds them."""
    plain = {name: value for name, value in settings_of(config).items() if not is_outside(name) and name != SEED}
    return dict(to_plain(plain))


def lines(held: dict[str, Any]) -> Iterator[str]:
    """JSON with a point on each line, so that a change of the file can be read."""
    yield "{"
    for number, (entry, points) in enumerate(held.items()):
        comma = "," if number < len(held) - 1 else ""
        if isinstance(points, dict):  # defaults, a sweep at a scale
            yield f"{json.dumps(entry)}: {json.dumps(points)}{comma}"
            continue
        yield f"{json.dumps(entry)}: ["
        yield ",\n".join(f"  {json.dumps(point)}" for point in points)
        yield f"]{comma}"
    yield "}"


def main() -> None:
    with open_composer() as composer:
        defaults = full(composer.run_config([]))
        held = {DEFAULTS: defaults} | {entry: golden(composer, entry, defaults) for entry in entries()}
        held |= {name: summary(plan_of_one_seed(composer, name)) for name in scaled_entries()}
    FILE.write_text("\n".join(lines(held)) + "\n", encoding="utf-8")
    keys = sum(len(point["keys"]) for entry in entries() for point in held[entry])
    print(f"{FILE}: {keys} keys of {len(entries())} files, and {len(scaled_entries())} hashes of sweeps at a scale")


if __name__ == "__main__":
    main()
