"""All that is computed of a set of runs, once: frame, comparisons, table, what is absent, what differs in its making.

Reports, pictures and notebooks render what a Study holds and compute nothing.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from moe_study.analysis import frame as frames
from moe_study.analysis.absent import AbsentRun, absent_runs
from moe_study.analysis.comparison import (
    LEVEL,
    MARGIN,
    Asked,
    Comparison,
    Tested,
    as_one_family,
    losses_by_seed,
    measure,
)
from moe_study.analysis.effects.contrasts import Contrast, Effect, distinct_contrasts, effects
from moe_study.analysis.effects.costs import DESCRIBED, costs_of_points
from moe_study.analysis.effects.equal_cost import AskedAtCost, EqualCost, at_equal_cost, default_requests
from moe_study.analysis.effects.equal_loss import AskedReach, EqualLoss, at_equal_loss
from moe_study.analysis.effects.families import Family, families
from moe_study.analysis.effects.fronts import Front, front
from moe_study.analysis.effects.grids import Grid, find_grids
from moe_study.analysis.effects.leak_price import LeakPrice, leak_prices
from moe_study.analysis.effects.power import Power, powers
from moe_study.analysis.effects.trends import AskedTrend, Trend, sizes_of_points, trends
from moe_study.analysis.evaluation_sets import evaluation_sets
from moe_study.analysis.format import with_leak_mark
from moe_study.analysis.frame import done, load_frame
from moe_study.analysis.pairs import default_questions, default_reference, settings_of
from moe_study.analysis.planned import Request, planned_reaches, planned_requests
from moe_study.analysis.probes import ProbeFindings, probe_findings
from moe_study.analysis.scores import score_table
from moe_study.analysis.specialisation.over_training import saturation_over_training
from moe_study.analysis.table import RANKED, perplexity_table
from moe_study.design.config import RunConfig
from moe_study.design.plain import flatten, to_plain
from moe_study.errors import StudyError
from moe_study.runs.folder import RunFolder
from moe_study.runs.members import Members, read_members
from moe_study.runs.mixed import mixed


@dataclass(frozen=True)
class Part:
    """The runs of one evaluation set: only their losses can be compared with one another."""

    name: str  # empty where a study has one part
    frame: pd.DataFrame  # finished runs, and those without a result that belong here; labelled together
    reference: str
    table: pd.DataFrame
    comparisons: tuple[Comparison, ...]  # those that were tested
    others: tuple[Comparison, ...]  # not planned: described, without a test
    effects: tuple[Effect, ...]  # main effects and interactions that were planned, and so tested with the comparisons
    equal_costs: tuple[EqualCost, ...]  # comparisons at equal cost that were planned, and so tested with them
    trends: tuple[Trend, ...]  # differences over size that were planned, and so tested with them
    margin: float
    mixed: tuple[str, ...]  # sentences on runs of different making
    reaches: tuple[EqualLoss, ...] = ()  # costs at equal loss that were planned: described, without a test
    problems: list[str] = field(default_factory=list)  # of files that pictures need; filled when these are read

    @functools.cached_property
    def runs(self) -> pd.DataFrame:
        """The runs with a result."""
        return done(self.frame)

    @functools.cached_property
    def absent(self) -> tuple[AbsentRun, ...]:
        return absent_runs(self.frame)

    @functools.cached_property
    def losses(self) -> pd.DataFrame:
        """Points down, seeds across."""
        return losses_by_seed(self.runs)

    @functools.cached_property
    def leaking(self) -> frozenset[str]:
        """Labels of the points that read later tokens."""
        return frozenset(self.table[self.table["leaks"].eq(True)]["label"])

    def marked(self, label: str) -> str:
        """The label of a point, with a mark where it reads later tokens."""
        return with_leak_mark(label, label in self.leaking)

    @functools.cached_property
    def costs(self) -> pd.DataFrame:
        """Points down, costs (Cost) across: means over runs."""
        return costs_of_points(self.runs)

    @functools.cached_property
    def sizes(self) -> pd.DataFrame:
        """What trends go by: costs, and tokens trained on."""
        return sizes_of_points(self.runs)

    @functools.cached_property
    def families(self) -> tuple[Family, ...]:
        """Points that differ in size alone, as ladders; see effects/families.py."""
        return families(self.runs)

    @functools.cached_property
    def grids(self) -> tuple[Grid, ...]:
        """Crossed factors among the points that read nothing later, then among all points where that adds any; see
        effects/grids.py."""
        plain, settings = flatten(to_plain(RunConfig())), settings_of(self.runs)
        causal = {label: own for label, own in settings.items() if label not in self.leaking}
        apart = find_grids(causal, plain)
        if len(causal) == len(settings):
            return apart
        return (*apart, *(grid for grid in find_grids(settings, plain) if self.leaking & set(grid.points)))

    @functools.cached_property
    def other_effects(self) -> tuple[Effect, ...]:
        """Main effects and interactions of `grids` that nobody planned: described, without a test. Those with points
        that read later tokens come last."""
        known = {effect.contrast.identity for effect in self.effects}
        found = [contrast for contrast in distinct_contrasts(self.grids) if contrast.identity not in known]
        described = effects(found, self.losses, self.leaking, self.margin, LEVEL)
        return tuple(sorted(described, key=lambda effect: effect.leaks))

    @functools.cached_property
    def other_equal_costs(self) -> tuple[EqualCost, ...]:
        """Every point at the curve of every other family that nobody planned: described, without a test."""
        known = {(one.cost, one.asked.labels) for one in self.equal_costs}
        asked = [a for a in default_requests(self.families, self.costs) if (a.cost, a.labels) not in known]
        return tuple(at_equal_cost(asked, self.losses, self.costs, self.leaking, self.margin, LEVEL))

    @functools.cached_property
    def fronts(self) -> tuple[Front, ...]:
        """The Pareto front of the ranked points by each cost that is known; all others are set apart."""
        standings = dict(zip(self.table["label"], self.table["standing"], strict=True))
        known = [cost for cost in DESCRIBED if self.costs[cost].gt(0).any()]
        return tuple(front(cost, self.losses, self.costs, standings, RANKED) for cost in known)

    @functools.cached_property
    def powers(self) -> tuple[Power, ...]:
        """Of all that was tested, and last of a typical pair of points."""
        family = max((one.family for one in self.tested), default=0)
        return powers(self.tested, family, self.margin, LEVEL)

    @functools.cached_property
    def leak_prices(self) -> tuple[LeakPrice, ...]:
        """Of each leaking point whose causal twin was trained."""
        return leak_prices(self.runs, self.comparisons, self.margin, LEVEL)

    @property
    def tested(self) -> tuple[Tested, ...]:
        """All that was tested in this part."""
        return (*self.comparisons, *self.effects, *self.equal_costs, *self.trends)

    @functools.cached_property
    def curves(self) -> pd.DataFrame:
        return frames.curves(self.runs, self.problems)

    @functools.cached_property
    def routing_history(self) -> pd.DataFrame:
        return frames.routing_history(self.runs, self.problems)

    @functools.cached_property
    def activations(self) -> pd.DataFrame:
        return frames.activations(self.runs, self.problems)

    @functools.cached_property
    def saturation(self) -> pd.DataFrame:
        """Of runs that kept routes over training."""
        return saturation_over_training(self.runs, self.problems)

    @functools.cached_property
    def scores(self) -> pd.DataFrame:
        """What runs scored on downstream tasks, where they were asked (moe-study score)."""
        return score_table(self.runs, self.reference, problems=self.problems)

    @functools.cached_property
    def probes(self) -> tuple[ProbeFindings, ...]:
        """What the experts do with labelled texts, for each probe that runs were measured on."""
        return probe_findings(self.runs, self.problems)


@dataclass(frozen=True)
class Study:
    """What one report is about."""

    frame: pd.DataFrame  # every run that was asked for
    parts: tuple[Part, ...]  # one for each evaluation set; none where no run is done
    planned: bool  # the tested comparisons are those of the sweep file

    @property
    def comparisons(self) -> list[Comparison]:
        """Those that were tested: of one family over all parts."""
        return [c for part in self.parts for c in part.comparisons]

    @property
    def tested(self) -> list[Tested]:
        """All that was tested: comparisons, planned effects, trends and comparisons at equal cost, as one family."""
        return [one for part in self.parts for one in part.tested]

    @property
    def family(self) -> int:
        """Hypotheses that had an interval, and paid for one another."""
        return max((one.family for one in self.tested), default=0)

    @functools.cached_property
    def absent(self) -> tuple[AbsentRun, ...]:
        return absent_runs(self.frame)

    @property
    def problems(self) -> list[str]:
        return list(dict.fromkeys(problem for part in self.parts for problem in part.problems))


def read_study(
    runs: Sequence[Path],
    sweep: str | None = None,
    reference: str | None = None,
    rank_leaking: bool = False,
    margin: float | None = None,
) -> Study:
    """Everything that the runs in `runs` (folders of runs, or single ones) say.

    With `sweep`, only its runs, and the comparisons that it planned. `margin` (nats per token) replaces those that
    the sweep file states. Errors: StudyError when `reference` is no point, or when there are no runs.
    """
    frame = load_frame(runs, sweep)
    plans = [read_members(root, sweep) for root in runs] if sweep is not None else []
    names = {key: name for members in plans for key, name in members.names.items()}
    frame = frame.assign(planned_as=[names.get(key, "") for key in frame["key"]])
    return study_of(frame, plans, reference, rank_leaking, margin)


def study_of(
    frame: pd.DataFrame,
    plans: Sequence[Members] = (),
    reference: str | None = None,
    rank_leaking: bool = False,
    margin: float | None = None,
) -> Study:
    """The Study of a frame (see load_frame); `plans` say which comparisons were planned of its runs."""
    if margin is not None and not 0 < margin < float("inf"):
        raise StudyError(f"the margin must be more than 0 nats per token, not {margin:g}")
    parts, asked, reaches = [], [], []
    for name, runs in evaluation_sets(frame):
        own = [one for members in plans for one in planned_requests(members, runs)]
        asked.append(own if margin is None else [replace(one, margin=margin) for one in own])
        reaches.append([one for members in plans for one in planned_reaches(members, runs)])
        usual = _one_margin(own) if margin is None else margin
        parts.append(_part(name, runs, known_reference(runs, reference), rank_leaking, usual))
    asked, at_loss = _in_the_parts_that_can_answer(asked, parts), _in_the_parts_that_can_answer(reaches, parts)
    automatic = [_automatic(part, rank_leaking) for part in parts]
    is_planned = any(asked)
    tested = _tested(parts, asked if is_planned else automatic)
    others = [_not_among(a, p) if is_planned else [] for a, p in zip(automatic, asked, strict=True)]
    compared = [
        replace(
            part,
            comparisons=tuple(one for one in found if isinstance(one, Comparison)),
            effects=tuple(one for one in found if isinstance(one, Effect)),
            equal_costs=tuple(one for one in found if isinstance(one, EqualCost)),
            trends=tuple(one for one in found if isinstance(one, Trend)),
            others=tuple(measure(part.frame, rest, part.margin, LEVEL)),
            reaches=tuple(at_equal_loss(own, part.losses, part.costs, part.leaking, LEVEL) if own else ()),
        )
        for part, found, rest, own in zip(parts, tested, others, at_loss, strict=True)
    ]
    return Study(frame, tuple(compared), is_planned)


def _part(name: str, frame: pd.DataFrame, reference: str, rank_leaking: bool, margin: float) -> Part:
    """A part before its comparisons, which are tested together with those of the others."""
    table = perplexity_table(frame, reference, rank_leaking)
    nothing: dict[str, Any] = dict.fromkeys(("comparisons", "others", "effects", "equal_costs", "trends"), ())
    return Part(name, frame, reference, table, margin=margin, mixed=_mixed(frame), **nothing)


def known_reference(part: pd.DataFrame, reference: str | None) -> str:
    """The label that is compared with: `reference`, or the default; StudyError where no finished run is called so."""
    labels = list(dict.fromkeys(done(part)["label"]))
    if reference is not None and reference not in labels:
        raise StudyError(f"no finished run is called {reference}; the points here are {', '.join(labels)}")
    return reference if reference is not None else default_reference(part)


def _one_margin(asked: Sequence[Request]) -> float:
    """The margin that all planned comparisons share, if they do: the one to draw."""
    margins = {one.margin for one in asked if one.margin is not None}
    return margins.pop() if len(margins) == 1 else MARGIN


def _automatic(part: Part, rank_leaking: bool) -> list[Request]:
    questions = default_questions(part.frame, part.reference, rank_leaking)
    return [Asked(*pair, question) for question, pairs in questions.items() for pair in pairs]


Wanted = TypeVar("Wanted", bound=Request | AskedReach)


def _in_the_parts_that_can_answer(planned: list[list[Wanted]], parts: Sequence[Part]) -> list[list[Wanted]]:
    """Each planned request in the parts with finished runs of all its points; in the first part where none has them."""

    def answers(part: Part, asked: Wanted) -> bool:
        return asked.labels <= set(part.losses.index)

    kept = [[one for one in asked if answers(part, one)] for part, asked in zip(parts, planned, strict=True)]
    answered = {one.written for asked in kept for one in asked}
    if not planned:
        return []
    first = [one for one in planned[0] if one.written not in answered or answers(parts[0], one)]
    return [first, *kept[1:]]


def _tested(parts: Sequence[Part], asked: Sequence[Sequence[Request]]) -> list[list[Tested]]:
    """What was asked of every part, tested together."""
    measured = [_measured(part, requests) for part, requests in zip(parts, asked, strict=True)]
    found = iter(as_one_family([one for group in measured for one in group]))
    return [[next(found) for _ in group] for group in measured]


def _measured(part: Part, requests: Sequence[Request]) -> list[Tested]:
    pairs = [one for one in requests if isinstance(one, Asked)]
    contrasts = [one for one in requests if isinstance(one, Contrast)]
    at_cost = [one for one in requests if isinstance(one, AskedAtCost)]
    over_size = [one for one in requests if isinstance(one, AskedTrend)]
    return [
        *measure(part.frame, pairs, part.margin, LEVEL),
        *effects(contrasts, part.losses, part.leaking, part.margin, LEVEL),
        *at_equal_cost(at_cost, part.losses, part.costs, part.leaking, part.margin, LEVEL),
        *(trends(over_size, part.losses, part.sizes, part.leaking, part.margin, LEVEL) if over_size else ()),
    ]


def _not_among(asked: Sequence[Request], planned: Sequence[Request]) -> list[Asked]:
    known = {one.labels for one in planned if isinstance(one, Asked)}
    return [one for one in asked if isinstance(one, Asked) and one.labels not in known]


def _mixed(part: pd.DataFrame) -> tuple[str, ...]:
    runs = done(part)
    columns = zip(runs["key"], runs["label"], runs["seed"], strict=True)
    names = {key: f"{label}, seed {seed:g}" for key, label, seed in columns}
    return tuple(found.sentence(names) for found in mixed(RunFolder(folder) for folder in runs["folder"]))
