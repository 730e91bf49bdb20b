"""All that is computed of a set of runs, once: frame, comparisons, table, what is absent, what differs in its making.

Reports, pictures and notebooks render what a Study holds and compute nothing.
"""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd

from moe_study.analysis import frame as frames
from moe_study.analysis.absent import AbsentRun, absent_runs
from moe_study.analysis.comparison import (
    LEVEL,
    MARGIN,
    Asked,
    Comparison,
    as_one_family,
    losses_by_seed,
    measure,
)
from moe_study.analysis.frame import done, load_frame, not_done
from moe_study.analysis.labels import add_labels
from moe_study.analysis.pairs import default_questions, default_reference
from moe_study.analysis.planned import planned_comparisons
from moe_study.analysis.probes import ProbeFindings, probe_findings
from moe_study.analysis.specialisation.over_training import saturation_over_training
from moe_study.analysis.table import perplexity_table
from moe_study.errors import StudyError
from moe_study.runs.folder import RunFolder
from moe_study.runs.members import Members, read_members
from moe_study.runs.mixed import mixed

TEXT_SETTINGS = ("model.context", "run.eval_tokens")  # and all of data.: what losses are measured on


@dataclass(frozen=True)
class Part:
    """The runs of one evaluation set: only their losses can be compared with one another."""

    name: str  # empty where a study has one part
    frame: pd.DataFrame  # finished runs, and those without a result that belong here; labelled together
    reference: str
    table: pd.DataFrame
    comparisons: tuple[Comparison, ...]  # those that were tested
    others: tuple[Comparison, ...]  # not planned: described, without a test
    margin: float
    mixed: tuple[str, ...]  # sentences on runs of different making
    problems: list[str] = field(default_factory=list)  # of files that pictures need; filled when these are read

    @property
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

    @property
    def leaking(self) -> frozenset[str]:
        """Labels of the points that read later tokens."""
        return frozenset(self.table[self.table["leaks"].eq(True)]["label"])

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
    def probes(self) -> tuple[ProbeFindings, ...]:
        """What the experts do with labelled texts, for each probe that runs were measured on."""
        return probe_findings(self.runs)


@dataclass(frozen=True)
class Study:
    """What one report is about."""

    frame: pd.DataFrame  # every run that was asked for
    parts: tuple[Part, ...]  # one for each evaluation set; none where no run is done
    planned: bool  # the tested comparisons are those of the sweep file

    @property
    def comparisons(self) -> list[Comparison]:
        """Those that were tested: one family over all parts."""
        return [c for part in self.parts for c in part.comparisons]

    @property
    def family(self) -> int:
        """Comparisons that had an interval, and paid for one another."""
        return max((c.family for c in self.comparisons), default=0)

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
    parts, planned = [], []
    for name, runs in evaluation_sets(frame):
        asked = [one for members in plans for one in planned_comparisons(members, runs)]
        planned.append([replace(one, margin=margin or one.margin) for one in asked])
        parts.append(_part(name, runs, _known_reference(runs, reference), rank_leaking, margin or _one_margin(asked)))
    planned = _in_the_parts_that_can_answer(planned, parts)
    automatic = [_automatic(part, rank_leaking) for part in parts]
    is_planned = any(planned)
    tested = _tested(parts, planned if is_planned else automatic)
    others = [_not_among(a, p) if is_planned else [] for a, p in zip(automatic, planned, strict=True)]
    compared = [
        replace(part, comparisons=tuple(found), others=tuple(measure(part.frame, rest, part.margin, LEVEL)))
        for part, found, rest in zip(parts, tested, others, strict=True)
    ]
    return Study(frame, tuple(compared), is_planned)


def _part(name: str, frame: pd.DataFrame, reference: str, rank_leaking: bool, margin: float) -> Part:
    """A part before its comparisons, which are tested together with those of the others."""
    table = perplexity_table(frame, reference, rank_leaking)
    return Part(name, frame, reference, table, comparisons=(), others=(), margin=margin, mixed=_mixed(frame))


def evaluation_sets(frame: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """(name, runs) for each evaluation set, labelled anew; the name is empty when there is only one.

    Runs without a result stand with the set whose text they would be evaluated on; those of which that is not known,
    or which have no such set, with every set.
    """
    runs, without = done(frame), not_done(frame)
    texts = _texts(frame)
    sets = {str(key): part for key, part in runs.groupby("evaluation")}
    text_of = {key: set(texts[part.index]) for key, part in sets.items()}
    homeless = ~texts[without.index].isin(set().union(*text_of.values()))
    names = {key: str(part["data.name"].iloc[0]) for key, part in sets.items()}
    for key in sorted(sets, key=lambda key: (names[key], key)):
        shared = list(names.values()).count(names[key]) > 1
        name = f"{names[key]}-{key[:6]}" if shared else names[key]
        own = without[texts[without.index].isin(text_of[key]) | homeless]
        part = add_labels(pd.concat([sets[key], own]).sort_index() if len(own) else sets[key])
        yield (name if len(sets) > 1 else ""), part


def _texts(frame: pd.DataFrame) -> "pd.Series[str]":
    """What decides, of a run's configuration, on which text its loss is measured."""
    columns = [c for c in frame if str(c).startswith("data.") and c != "data.root"] + list(TEXT_SETTINGS)
    known = frame.reindex(columns=columns)
    return known.apply(lambda row: repr(tuple(row)), axis=1).astype(str)


def _known_reference(part: pd.DataFrame, reference: str | None) -> str:
    labels = list(dict.fromkeys(done(part)["label"]))
    if reference is not None and reference not in labels:
        raise StudyError(f"no finished run is called {reference}; the points here are {', '.join(labels)}")
    return reference if reference is not None else default_reference(part)


def _one_margin(asked: Sequence[Asked]) -> float:
    """The margin that all planned comparisons share, if they do: the one to draw."""
    margins = {one.margin for one in asked if one.margin is not None}
    return margins.pop() if len(margins) == 1 else MARGIN


def _automatic(part: Part, rank_leaking: bool) -> list[Asked]:
    questions = default_questions(part.frame, part.reference, rank_leaking)
    return [Asked(*pair, question) for question, pairs in questions.items() for pair in pairs]


def _in_the_parts_that_can_answer(planned: list[list[Asked]], parts: Sequence[Part]) -> list[list[Asked]]:
    """Each planned comparison in the parts with finished runs of both sides; in the first part where none has them."""

    def answers(part: Part, asked: Asked) -> bool:
        return {asked.point, asked.against} <= set(part.losses.index)

    kept = [[one for one in asked if answers(part, one)] for part, asked in zip(parts, planned, strict=True)]
    answered = {one.written for asked in kept for one in asked}
    if not planned:
        return []
    first = [one for one in planned[0] if one.written not in answered or answers(parts[0], one)]
    return [first, *kept[1:]]


def _tested(parts: Sequence[Part], asked: Sequence[Sequence[Asked]]) -> list[list[Comparison]]:
    """The comparisons of every part, tested together."""
    measured = [measure(part.frame, pairs, part.margin, LEVEL) for part, pairs in zip(parts, asked, strict=True)]
    found = iter(as_one_family([c for group in measured for c in group]))
    return [[next(found) for _ in group] for group in measured]


def _not_among(asked: Sequence[Asked], planned: Sequence[Asked]) -> list[Asked]:
    known = {frozenset((one.point, one.against)) for one in planned}
    return [one for one in asked if frozenset((one.point, one.against)) not in known]


def _mixed(part: pd.DataFrame) -> tuple[str, ...]:
    runs = done(part)
    columns = zip(runs["key"], runs["label"], runs["seed"], strict=True)
    names = {key: f"{label}, seed {seed:g}" for key, label, seed in columns}
    return tuple(found.sentence(names) for found in mixed(RunFolder(folder) for folder in runs["folder"]))
