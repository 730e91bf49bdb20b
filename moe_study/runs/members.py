"""Which runs a sweep consists of, and what it compares: RUNS_DIR/.sweeps/NAME.json.

A sweep can be launched as its file stands, or with more on the command line. Seeds (`+sweep=x run.seed=4`) add to it;
anything else (`+sweep=x run.tokens=10_000`) makes another form of it, which is shown by itself, so that a trial is
never mixed with the study. Each launch replaces what the same command line meant before: the sweep file is the desired
state of what it names. A sweep's members are the runs of all launches of the form that was launched last.

    {"launches": [{"overrides": [], "runs": [KEY, ...], "comparisons": [...]},
                  {"overrides": ["run.seed=4"], "runs": [KEY, ...], "comparisons": [...]}]}

The last launch is at the end. A sweep at one of its scales is a sweep of its own, NAME@SCALE. Older files hold a list
of keys, which is read as a launch of the file as it stood.
"""

import contextlib
import os
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from moe_study.design.plain import from_plain, to_plain
from moe_study.errors import ConfigError, StudyError
from moe_study.files import read_json, write_json_atomic
from moe_study.runs.lock import LockHeld, hold
from moe_study.runs.reaches import PlannedReach, over_launches, with_lateness, without_runs

COSTS = ("total_params", "active_params", "flops", "seconds", "ffn_flops", "expert_flops")  # to compare points at
SIZES = ("active_params", "total_params", "flops", "tokens")  # per doubling of which a trend can be asked for
LOCK_PATIENCE = 10.0  # seconds; others hold it for as long as one small file takes


@dataclass(frozen=True)
class PlannedComparison:
    """Two sides that a sweep file asks to compare, and the runs that are meant."""

    left: str  # as the sweep file has it, in one line
    right: str
    left_runs: tuple[str, ...] = ()  # keys
    right_runs: tuple[str, ...] = ()
    why: str = ""  # the question that it answers
    margin: float | None = None  # nats per token within which the two count as the same; None: the usual one
    late: bool = False  # stated when runs of both sides were done already
    at: str = ""  # of COSTS: the left point against the curve of all right ones, at the left one's cost

    @property
    def identity(self) -> tuple[str, ...]:
        return self.left, self.right, self.at


@dataclass(frozen=True)
class PlannedCell:
    """The runs of one point that a planned effect needs."""

    block: str  # what else than its settings the points of a block share
    levels: tuple[str, ...]  # one for each setting of the effect
    runs: tuple[str, ...] = ()  # keys


@dataclass(frozen=True)
class PlannedEffect:
    """A main effect (of one setting) or an interaction (of two) that a sweep file asks for."""

    text: str  # as the sweep file has it, in one line
    factors: tuple[str, ...]  # settings by dotted name, or groups
    levels: tuple[tuple[str, ...], ...]  # of each factor, the first is what the others are compared with
    cells: tuple[PlannedCell, ...] = ()
    carried: tuple[str, ...] = ()  # settings that differ with the cells
    why: str = ""
    margin: float | None = None
    late: bool = False  # stated when a run of every cell was done already


@dataclass(frozen=True)
class PlannedRung:
    """The runs of both sides of a planned trend at one size."""

    level: str  # value of the setting that makes the sizes
    left_runs: tuple[str, ...] = ()  # keys
    right_runs: tuple[str, ...] = ()


@dataclass(frozen=True)
class PlannedTrend:
    """A difference whose change with size a sweep file asks for."""

    text: str  # as the sweep file has it, in one line
    left: str  # both sides in one line each
    right: str
    over: str  # the setting that makes the sizes, by dotted name, or a group
    by: str  # of SIZES: per doubling of what, of the right side
    rungs: tuple[PlannedRung, ...] = ()
    why: str = ""
    margin: float | None = None  # nats per token and doubling
    late: bool = False  # stated when runs of both sides were done at every size


@dataclass(frozen=True)
class Launch:
    """What one command line meant when it was last given."""

    overrides: tuple[str, ...] = ()  # what stood on it besides the sweep; without what changes no run
    runs: tuple[str, ...] = ()  # keys
    comparisons: tuple[PlannedComparison, ...] = ()
    names: dict[str, str] = field(default_factory=dict)  # key -> the overrides that tell the run from the others
    effects: tuple[PlannedEffect, ...] = ()
    trends: tuple[PlannedTrend, ...] = ()
    reaches: tuple[PlannedReach, ...] = ()

    @property
    def form(self) -> frozenset[str]:
        """The overrides that make other points of it than the sweep file has: all but seeds."""
        return frozenset(override for override in self.overrides if not _sets_seed(override))

    @property
    def adds_seeds(self) -> bool:
        return any(map(_sets_seed, self.overrides))


@dataclass(frozen=True)
class Members:
    """What a sweep consists of."""

    launches: tuple[Launch, ...]  # of all forms

    @property
    def current(self) -> tuple[Launch, ...]:
        """The launches of the form that was launched last."""
        return tuple(launch for launch in self.launches if launch.form == self.launches[-1].form)

    @property
    def runs(self) -> list[str]:
        """The keys of all members, each once."""
        return _each_once(launch.runs for launch in self.current)

    @property
    def names(self) -> dict[str, str]:
        """What members are called, also those that were never started; by key."""
        return {key: name for launch in self.current for key, name in launch.names.items()}

    @property
    def comparisons(self) -> list[PlannedComparison]:
        """What the sweep file asked for at the last launch, with the runs of all of this form on either side."""
        return [self._over_all_launches(asked) for asked in self.launches[-1].comparisons] if self.launches else []

    @property
    def effects(self) -> list[PlannedEffect]:
        """As `comparisons`."""
        return [self._of_all_launches(asked) for asked in self.launches[-1].effects] if self.launches else []

    @property
    def trends(self) -> list[PlannedTrend]:
        """As `comparisons`."""
        return [self._trend_of_all_launches(asked) for asked in self.launches[-1].trends] if self.launches else []

    @property
    def reaches(self) -> list[PlannedReach]:
        """As `comparisons`."""
        of_all = [launch.reaches for launch in self.current] if self.launches else [()]
        return [over_launches(asked, of_all) for asked in of_all[-1]]

    def _trend_of_all_launches(self, asked: PlannedTrend) -> PlannedTrend:
        same = [trend for launch in self.current for trend in launch.trends if trend.text == asked.text]
        rungs = []
        for rung in asked.rungs:
            own = [other for trend in same for other in trend.rungs if other.level == rung.level]
            left, right = (_each_once(runs) for runs in ([o.left_runs for o in own], [o.right_runs for o in own]))
            rungs.append(replace(rung, left_runs=tuple(left), right_runs=tuple(right)))
        return replace(asked, rungs=tuple(rungs))

    def _of_all_launches(self, asked: PlannedEffect) -> PlannedEffect:
        runs: dict[tuple[str, tuple[str, ...]], list[str]] = {}
        for launch in self.current:
            for effect in launch.effects:
                for cell in effect.cells if effect.text == asked.text else ():
                    runs.setdefault((cell.block, cell.levels), []).extend(cell.runs)
        cells = (replace(cell, runs=tuple(dict.fromkeys(runs[cell.block, cell.levels]))) for cell in asked.cells)
        return replace(asked, cells=tuple(cells))

    def _over_all_launches(self, asked: PlannedComparison) -> PlannedComparison:
        same = [
            comparison
            for launch in self.current
            for comparison in launch.comparisons
            if comparison.identity == asked.identity
        ]
        left = _each_once(comparison.left_runs for comparison in same)
        right = _each_once(comparison.right_runs for comparison in same)
        return replace(asked, left_runs=tuple(left), right_runs=tuple(right))


def read_members(runs_dir: str | os.PathLike[str], sweep: str) -> Members:
    """The members of `sweep`; of one that was launched at a single scale, its name alone will do.

    StudyError when it was never launched into `runs_dir`, or at several scales, or its list is damaged.
    """
    path = _file(runs_dir, sweep)
    plain = read_json(path)
    if plain is None:
        others = list_sweeps(runs_dir)
        if at_scales := [other for other in others if other.rpartition("@")[0] == sweep]:
            if len(at_scales) == 1:
                return read_members(runs_dir, at_scales[0])
            raise StudyError(f"{sweep} was launched at several scales; say which: {' or '.join(at_scales)}")
        there = f" ({', '.join(others)} {'was' if len(others) == 1 else 'were'})" if others else ""
        raise StudyError(
            f"no sweep {sweep} was launched into {runs_dir}{there}; run python train.py -m +sweep={sweep} first"
        )
    if isinstance(plain, list):
        plain = {"launches": [{"runs": plain}]}
    try:
        members: Members = from_plain(Members, plain)
    except ConfigError as error:
        raise StudyError(f"{path} is damaged ({error}); delete it, then rerun the sweep's command") from error
    return members


def plain_members(members: Members) -> dict[str, object]:
    """As files have it: `reaches` only where some are asked, so that other files are as older versions read them."""
    return {"launches": [{k: v for k, v in to_plain(one).items() if v or k != "reaches"} for one in members.launches]}


def record_launch(
    runs_dir: str | os.PathLike[str], sweep: str, launch: Launch, done: Collection[str] = frozenset()
) -> Path:
    """Note what a command line means by `sweep`, in place of what the same one meant before; the file's path.

    A comparison that was not asked for before, and of which both sides have runs among the keys `done`, is late.
    """

    def with_launch(launches: tuple[Launch, ...]) -> list[Launch]:
        earlier = [asked for before in launches for asked in before.comparisons]
        comparisons = tuple(_with_lateness(asked, earlier, done) for asked in launch.comparisons)
        before = [effect for launch in launches for effect in launch.effects]
        effects = tuple(_effect_with_lateness(asked, before, done) for asked in launch.effects)
        asked_before = [trend for launch in launches for trend in launch.trends]
        trends = tuple(_trend_with_lateness(asked, asked_before, done) for asked in launch.trends)
        known = [reach for before in launches for reach in before.reaches]
        reaches = tuple(with_lateness(asked, known, done) for asked in launch.reaches)
        others = (other for other in launches if set(other.overrides) != set(launch.overrides))
        return [*others, replace(launch, comparisons=comparisons, effects=effects, trends=trends, reaches=reaches)]

    return _change(runs_dir, sweep, with_launch)


def drop_added_runs(runs_dir: str | os.PathLike[str], keys: Collection[str]) -> None:
    """Let `keys` be members of no sweep to which only seeds on a command line have added them.

    Any other run stays a member: it is missing, and the sweep trains it again.
    """

    def without(launches: tuple[Launch, ...]) -> list[Launch]:
        kept = [_without(launch, keys) if launch.adds_seeds else launch for launch in launches]
        return [launch for launch in kept if launch.runs or not launch.adds_seeds]

    for sweep in list_sweeps(runs_dir):
        with contextlib.suppress(StudyError):  # a damaged list, which its own readers tell of
            launches = read_members(runs_dir, sweep).launches
            if any(set(launch.runs) & set(keys) for launch in launches if launch.adds_seeds):
                _change(runs_dir, sweep, without)


def list_sweeps(runs_dir: str | os.PathLike[str]) -> list[str]:
    """The names of all sweeps that were launched into `runs_dir`; those in folders as paths."""
    root = Path(runs_dir) / ".sweeps"
    return sorted(path.relative_to(root).with_suffix("").as_posix() for path in root.rglob("*.json"))


def _change(runs_dir: str | os.PathLike[str], sweep: str, change: Callable[[tuple[Launch, ...]], list[Launch]]) -> Path:
    """Rewrite a sweep's launches; two processes that do so at the same time lose nothing."""
    path = _file(runs_dir, sweep)
    try:
        with hold(path.with_suffix(".lock"), LOCK_PATIENCE):
            before = read_members(runs_dir, sweep).launches if path.exists() else ()
            write_json_atomic(path, plain_members(Members(tuple(change(before)))))
    except LockHeld:
        raise StudyError(f"{path} is in use by another process; rerun the command in a moment") from None
    return path


def _with_lateness(
    asked: PlannedComparison, earlier: Iterable[PlannedComparison], done: Collection[str]
) -> PlannedComparison:
    left, right = set(asked.left_runs), set(asked.right_runs)
    for before in earlier:
        old_left, old_right = set(before.left_runs), set(before.right_runs)
        if before.at != asked.at:
            continue
        if (left & old_left and right & old_right) or (left & old_right and right & old_left):
            return replace(asked, late=before.late)
    return replace(asked, late=bool(left & set(done) and right & set(done)))


def _effect_with_lateness(
    asked: PlannedEffect, earlier: Iterable[PlannedEffect], done: Collection[str]
) -> PlannedEffect:
    runs = {key for cell in asked.cells for key in cell.runs}
    for before in earlier:
        if set(before.factors) == set(asked.factors) and runs & {key for cell in before.cells for key in cell.runs}:
            return replace(asked, late=before.late)
    return replace(asked, late=bool(asked.cells) and all(set(cell.runs) & set(done) for cell in asked.cells))


def _trend_with_lateness(
    asked: PlannedTrend, earlier: Iterable[PlannedTrend], done: Collection[str]
) -> PlannedTrend:
    runs = {key for rung in asked.rungs for key in (*rung.left_runs, *rung.right_runs)}
    for before in earlier:
        own = {key for rung in before.rungs for key in (*rung.left_runs, *rung.right_runs)}
        if (before.text, before.by) == (asked.text, asked.by) and runs & own:
            return replace(asked, late=before.late)
    known = (set(side) & set(done) for rung in asked.rungs for side in (rung.left_runs, rung.right_runs))
    return replace(asked, late=bool(asked.rungs) and all(known))


def _sets_seed(override: str) -> bool:
    return override.lstrip("+").startswith("run.seed=")


def _without(launch: Launch, keys: Collection[str]) -> Launch:
    def kept(runs: Iterable[str]) -> tuple[str, ...]:
        return tuple(key for key in runs if key not in keys)

    pairs = tuple(
        replace(asked, left_runs=kept(asked.left_runs), right_runs=kept(asked.right_runs))
        for asked in launch.comparisons
    )
    effects = tuple(
        replace(asked, cells=tuple(replace(cell, runs=kept(cell.runs)) for cell in asked.cells))
        for asked in launch.effects
    )
    trends = tuple(
        replace(
            asked,
            rungs=tuple(
                replace(rung, left_runs=kept(rung.left_runs), right_runs=kept(rung.right_runs)) for rung in asked.rungs
            ),
        )
        for asked in launch.trends
    )
    reaches = tuple(without_runs(asked, keys) for asked in launch.reaches)
    return replace(launch, runs=kept(launch.runs), comparisons=pairs, effects=effects, trends=trends, reaches=reaches)


def _each_once(groups: Iterable[Iterable[str]]) -> list[str]:
    return list(dict.fromkeys(key for group in groups for key in group))


def _file(runs_dir: str | os.PathLike[str], sweep: str) -> Path:
    """StudyError for a name that leads out of the folder of these files."""
    parts = PurePosixPath(sweep).parts
    if not parts or ".." in parts or sweep.startswith("/"):
        raise StudyError(f"{sweep!r} is not the name of a sweep, which is its path below sweeps/, such as recipe/init")
    return Path(runs_dir, ".sweeps", *parts[:-1], f"{parts[-1]}.json")
