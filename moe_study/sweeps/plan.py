"""From a grid to the runs it means: composed, validated, each once, with what has become of each so far."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Glob, Override
from tqdm import tqdm

from moe_study.design.accounting import flops_per_token
from moe_study.design.config import DataConfig, RunConfig
from moe_study.design.data_options import place_options
from moe_study.design.identity import settings_of
from moe_study.design.matching import Solution
from moe_study.design.unused import explain_unused, is_used, unused
from moe_study.errors import ConfigError
from moe_study.runs.folder import RunFolder, State
from moe_study.runs.members import Launch, PlannedComparison, PlannedEffect, PlannedTrend, record_launch
from moe_study.runs.reaches import PlannedReach
from moe_study.sweeps.candidates import Candidate
from moe_study.sweeps.comparisons import Question, resolve
from moe_study.sweeps.compose import Composed, Composer, open_composer, read, resolve_run
from moe_study.sweeps.conf import is_outside_the_key, is_setting, project_root
from moe_study.sweeps.effects import EffectQuestion, resolve_effects
from moe_study.sweeps.partial import NO_MEANING, Meaning, matching_excludes
from moe_study.sweeps.reaches import ReachQuestion, resolve_reaches
from moe_study.sweeps.same_points import SamePoints, same_points
from moe_study.sweeps.sweep_file import Grid, as_overrides, read_grid, with_overrides
from moe_study.sweeps.trends import TrendQuestion, resolve_trends
from moe_study.sweeps.values import as_text

TO_START = (State.MISSING, State.STALE, State.PREEMPTED)
TO_RETRY = (State.FAILED, State.DIVERGED)


@dataclass(frozen=True)
class PlannedRun:
    """One run of a plan."""

    key: str
    overrides: tuple[str, ...]  # what Hydra composes it from
    config: RunConfig
    state: State  # when planned
    reason: str = ""  # what the error says of a failed or diverged run
    matched: Solution | None = None  # what match= made equal, and how closely
    unused: tuple[str, ...] = ()  # settings that the overrides give and that have no effect
    also: tuple[tuple[str, ...], ...] = ()  # other overrides that mean this run

    @property
    def folder(self) -> RunFolder:
        return RunFolder.of(self.config)

    @property
    def train_flops(self) -> float:
        """Forward and backward passes over all tokens."""
        return 3 * flops_per_token(self.config) * self.config.total_steps * self.config.tokens_per_step


NO_RUNS = "the sweep has no runs: every point is excluded or invalid"


@dataclass(frozen=True)
class InvalidPoint:
    overrides: tuple[str, ...]
    reason: str


@dataclass(frozen=True)
class Plan:
    name: str | None  # of the sweep file
    runs: tuple[PlannedRun, ...]
    invalid: tuple[InvalidPoint, ...] = ()
    excluded: int = 0
    duplicates: int = 0
    skip_invalid: bool = False
    added: tuple[str, ...] = ()  # overrides beside the sweep file that change what its runs are
    idle_excludes: tuple[str, ...] = ()  # entries of exclude that match no point
    comparisons: tuple[PlannedComparison, ...] = ()  # what the sweep file asks for
    effects: tuple[PlannedEffect, ...] = ()  # and of main effects and interactions
    trends: tuple[PlannedTrend, ...] = ()  # and of differences over size
    reaches: tuple[PlannedReach, ...] = ()  # and of costs at equal loss, which are not tested
    lost_comparisons: tuple[str, ...] = ()  # a sentence for each that its points cannot answer

    def to_start(self, retry_failed: bool = False) -> list[PlannedRun]:
        """What a launcher shall train: longest first, so that the last one does not run alone."""
        states = TO_START + TO_RETRY if retry_failed else TO_START
        wanted = [run for run in self.runs if run.state in states]
        return sorted(wanted, key=lambda run: -run.train_flops)

    def with_states(self, states: Mapping[str, State]) -> "Plan":
        """The plan with the state of every run, by key, as somebody knows it who may have asked a scheduler."""
        runs = tuple(dataclasses.replace(run, state=states[run.key]) for run in self.runs)
        return dataclasses.replace(self, runs=runs)

    def check(self) -> None:
        """ConfigError listing every invalid point, unless they are to be skipped or nothing would be left."""
        if self.problem is not None:
            raise ConfigError(f"{self.problem}\n{self.invalid_listing()}".rstrip())

    @property
    def problem(self) -> str | None:
        """Why it cannot be trained."""
        if self.invalid and not self.skip_invalid:
            return (
                f"{len(self.invalid)} of {len(self.runs) + len(self.invalid)} points are invalid; mend or exclude "
                "them, or add skip_invalid=true"
            )
        return None if self.runs else NO_RUNS

    def invalid_listing(self) -> str:
        """Each reason once, with the points it holds for."""
        reasons: dict[str, list[str]] = {}
        for point in self.invalid:
            reasons.setdefault(point.reason, []).append(self.label(point))
        return "\n".join(f"  {reason}\n" + "\n".join(f"    {p}" for p in points) for reason, points in reasons.items())

    def label(self, point: "PlannedRun | InvalidPoint") -> str:
        """What tells the point from the others of the plan."""
        return " ".join(override for override in point.overrides if override not in self._shared)

    def warnings(self) -> list[str]:
        """What somebody who wrote the sweep did not mean, a line each."""
        idle = [] if self.runs else [NO_RUNS]
        idle += [f"exclude: {entry} matches no point of the sweep" for entry in self.idle_excludes]
        idle += [f"not compared under this command line: {problem}" for problem in self.lost_comparisons]
        if len(self.runs) > 1 or any(run.also for run in self.runs):
            return idle  # same_points says what has no effect
        return [*idle, *(why for run in self.runs if (why := explain_unused(run.config, run.unused)))]

    def same_points(self) -> list[SamePoints]:
        """Points that are written differently and train the same."""
        spelled = ((run.config, (run.overrides, *run.also), run.unused) for run in self.runs)
        return same_points(spelled, self._shared)

    @functools.cached_property
    def _shared(self) -> set[str]:
        runs = [set(overrides) for run in self.runs for overrides in (run.overrides, *run.also)]
        every = [*runs, *(set(point.overrides) for point in self.invalid)]
        return set.intersection(*every) if len(every) > 1 else set()

    def record_members(self) -> None:
        """Let analysis know which runs the sweep consists of."""
        if self.name is not None and self.runs:
            names = {run.key: self.label(run) for run in self.runs}
            done = frozenset(run.key for run in self.runs if run.state is State.DONE)
            launch = Launch(self.added, tuple(names), self.comparisons, names, self.effects, self.trends, self.reaches)
            record_launch(self.runs[0].config.log.runs_dir, self.name, launch, done)


def plan_command(composer: Composer, arguments: Sequence[str], root: Path) -> Plan:
    """The plan of a command line: `sweep=NAME` reads a sweep file, `scale=NAME` chooses one of its scales, and other
    overrides go to every point.

    A misspelt key or choice raises at once; a point that has no meaning is listed in the plan.
    """
    overrides = composer.parse(arguments)
    settings = _settings(composer, [o for o in overrides if is_setting(o.key_or_group)])
    grid = _grid(settings.get("sweep"), settings.get("scale"), root)
    of_runs = [o for o in overrides if not is_setting(o.key_or_group)]
    added = sorted(str(o.input_line) for o in of_runs if not is_outside_the_key(o.key_or_group))
    plan = plan_grid(composer, with_overrides(grid, of_runs), flag(settings, "skip_invalid"))
    if plan.lost_comparisons and all(override.startswith("run.seed=") for override in added):
        raise ConfigError("\n".join(plan.lost_comparisons))  # the file alone says so: no override has moved its points
    return dataclasses.replace(plan, added=tuple(added))


def _grid(sweep: Any, scale: Any, root: Path) -> Grid:
    """What the settings `sweep` and `scale` of a command line mean."""
    if sweep is None:
        if scale is not None:
            raise ConfigError(f"scale={scale} chooses the size of a sweep; add +sweep=NAME")
        return Grid(None, ({},))
    for name, value in (("sweep", sweep), ("scale", scale)):
        if isinstance(value, Glob | list | dict):
            raise ConfigError(f"{name} takes one name, and each sweep and scale has a command of its own")
    return read_grid(str(sweep), root, None if scale is None else str(scale))


def _settings(composer: Composer, overrides: Sequence[Override]) -> dict[str, Any]:
    """What the command line says of the command itself; ConfigError for what nothing would read."""
    for override in overrides:
        if override.is_sweep_override():
            raise ConfigError(f"{override.input_line} lists several values, and a command has one; give one of them")
    if nested := [str(o.input_line) for o in overrides if o.key_or_group.partition(".")[0] in ("job", "cluster")]:
        composer.compose(nested)
    return {override.key_or_group: override.value() for override in overrides}


def plan_point(composer: Composer, overrides: Sequence[str]) -> Plan:
    """The plan of one point that somebody else chose; ConfigError if it has no meaning."""
    plan = plan_grid(composer, Grid(None, (dict(_split(override) for override in overrides),)))
    plan.check()
    return plan


def _split(override: str) -> tuple[str, str]:
    key, _, value = override.partition("=")
    return key, value


def flag(settings: Mapping[str, Any], name: str) -> bool:
    """A switch of the command line; ConfigError if it is not a truth value."""
    value = settings.get(name, False)
    if not isinstance(value, bool):
        raise ConfigError(f"{name} must be true or false, not {value!r}")
    return value


def plan_grid(composer: Composer, grid: Grid, skip_invalid: bool = False) -> Plan:
    runs: dict[str, PlannedRun] = {}
    invalid: dict[tuple[str, ...], InvalidPoint] = {}
    excluded = duplicates = 0
    idle = set(range(len(grid.exclude)))
    candidates: list[Candidate] = []
    for point in tqdm(grid.points, "planning", unit=" points", leave=False, delay=2.0, disable=None):
        overrides = as_overrides(point)
        if grid.name is not None and "log.sweep" not in point:
            overrides += (f"log.sweep={as_text(grid.name)}",)
        composed = composer.compose(overrides)
        planned, meaning = _planned(composed, overrides)
        if matching := matching_excludes(grid.exclude, composed, meaning):
            idle -= set(matching)
            excluded += 1
            continue
        if isinstance(planned, InvalidPoint):
            invalid.setdefault(overrides, planned)
            continue
        candidates.append(Candidate(planned.key, planned.config, composed, meaning))
        if known := runs.get(planned.key):
            _check_places(known.config.data, planned.config.data)
            duplicates += 1
            runs[planned.key] = _with_other_overrides(known, planned)
        else:
            runs[planned.key] = planned
    skip_invalid = skip_invalid or grid.skip_invalid
    questions = grid.questions if skip_invalid or not invalid else ()  # first the points, then what they are asked
    comparisons, lost = resolve((q for q in questions if isinstance(q, Question)), candidates)
    effects, unanswered = resolve_effects((q for q in questions if isinstance(q, EffectQuestion)), candidates)
    trends, without_line = resolve_trends((q for q in questions if isinstance(q, TrendQuestion)), candidates)
    reaches, without_curve = resolve_reaches((q for q in questions if isinstance(q, ReachQuestion)), candidates)
    return Plan(
        grid.name,
        tuple(runs.values()),
        tuple(invalid.values()),
        excluded,
        duplicates,
        skip_invalid,
        idle_excludes=tuple(as_text(dict(grid.exclude[place])) for place in sorted(idle)),
        comparisons=comparisons,
        effects=effects,
        trends=trends,
        reaches=reaches,
        lost_comparisons=(*lost, *unanswered, *without_line, *without_curve),
    )


def _check_places(one: DataConfig, other: DataConfig) -> None:
    """ConfigError where two points are one but for where their data lies, unless the same data lies in both places."""
    first, second = (
        {"root": data.root} | {f"options.{name}": place for name, place in place_options(data).items()}
        for data in (one, other)
    )
    differing = sorted(name for name in first | second if first.get(name) != second.get(name))
    if not differing:
        return
    from moe_study.data import fingerprint  # imports NumPy

    if (found := fingerprint(one)) is None or found != fingerprint(other):
        raise ConfigError(
            f"points differ in data.{differing[0]} alone, which says where data lies and not what it is, so they would "
            "share one run; give each of them a data.name of its own"
        )


def _planned(composed: Composed, overrides: tuple[str, ...]) -> tuple[PlannedRun | InvalidPoint, Meaning]:
    """The run of a point that is well written, an InvalidPoint if it has no meaning; and what it means."""
    written, match = read(composed.plain)
    try:
        config, matched = resolve_run(written, match)
    except ConfigError as error:
        return InvalidPoint(overrides, str(error)), NO_MEANING
    folder = RunFolder.of(config)
    state = folder.state()
    reason = folder.status().message if state in TO_RETRY else ""
    ignored = unused(written)
    given = tuple(name for name in composed.given if name in ignored)
    settings = {name: value for name, value in settings_of(config).items() if is_used(config, name)}
    return PlannedRun(config.key, overrides, config, state, reason, matched, given), Meaning(settings, ignored)


def _with_other_overrides(run: PlannedRun, same: PlannedRun) -> PlannedRun:
    """The run, with what else means it."""
    if same.overrides in (run.overrides, *run.also):
        return run
    given = tuple(dict.fromkeys((*run.unused, *same.unused)))
    return dataclasses.replace(run, also=(*run.also, same.overrides), unused=given)


def plan_overrides(overrides: Sequence[str]) -> Plan:
    """The plan of a command line, for programs that are not started by Hydra."""
    with open_composer() as composer:
        return plan_command(composer, overrides, project_root())
