"""Scores of trained runs on downstream tasks: asked once, kept in each run's folder.

found = score_runs(frame, ScoreWish(tasks=("cloze", "topic")))
"""

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from moe_study.analysis.format import duration
from moe_study.analysis.frame import done, each
from moe_study.data import places
from moe_study.data.shards import PreparedCorpus
from moe_study.design.routing import Context
from moe_study.errors import ConfigError, DataError, StudyError
from moe_study.posthoc.lm_eval.harness import LOCAL, Asked, ask, harness_tasks, harness_version, local_task
from moe_study.posthoc.lm_eval.items import ITEMS, cloze_items, topic_items
from moe_study.posthoc.trace import needs_text, training_corpus
from moe_study.runs.folder import RunFolder
from moe_study.runs.scores import find_score, score_identity, write_score
from moe_study.training import checkpoint


@dataclass(frozen=True)
class ScoreWish:
    """Which tasks, how much of them, and how."""

    tasks: tuple[str, ...] = LOCAL
    items: int | None = None  # questions of each task; None: ITEMS of those in LOCAL, all of any other
    growing_prefixes: bool = False  # for the routings that take it
    label: str | None = None  # what routers by label are told; nobody else is
    data_root: Path | None = None  # where questions are kept; None: each run's own

    def check(self) -> None:
        """ConfigError for what no run could be asked, StudyError where the harness is not installed."""
        if not self.tasks or not all(self.tasks):
            raise ConfigError(f"name at least one task with --tasks, such as {','.join(LOCAL)}")
        if self.items is not None and self.items < 1:
            raise ConfigError(f"--items {self.items} asks nothing; take at least 1")
        harness_version()


@dataclass
class Scored:
    """What came of it."""

    keys: list[str] = field(default_factory=list)  # runs whose folder holds scores now
    asked: set[tuple[str, str]] = field(default_factory=set)  # (task, fingerprint of its questions)
    left_out: list[str] = field(default_factory=list)  # a sentence for each run that could not be scored


def score_runs(frame: pd.DataFrame, wish: ScoreWish, say: Callable[[str], None] = print) -> Scored:
    """Score the finished runs of `frame` (analysis.frame.load_frame), with a line for each through `say`.

    What a run's folder holds of the same questions and weights is not asked again. A run that cannot be scored is left
    out with its sentence. Errors: ConfigError for a wish that no run could meet, StudyError where a task's data cannot
    be had.
    """
    wish.check()
    runs, found = list(each(done(frame))), Scored()
    if wish.label is not None and not any(_is_by_label(RunFolder(run.folder)) for run in runs):
        raise ConfigError("none of these runs is routed by label, so --label changes nothing; leave it out")
    tasks = _Tasks(wish)
    for count, run in enumerate(runs, start=1):
        name = f"{run.label}, seed {run.seed:g} ({run.key})"
        try:
            asked = tasks.of(RunFolder(run.folder))
            said = _score(RunFolder(run.folder), wish, asked)
        except StudyError as error:
            if isinstance(error, ConfigError):
                raise
            found.left_out.append(f"{name}: {error}")
            say(f"[{count}/{len(runs)}] {name}: left out")
            continue
        found.keys.append(run.key)
        found.asked.update((one.name, one.fingerprint) for one in asked)
        say(f"[{count}/{len(runs)}] {name}: {said}")
    return found


def _score(folder: RunFolder, wish: ScoreWish, asked: Sequence[Asked]) -> str:
    """Score one run; what to say about it."""
    started = time.perf_counter()
    weights = checkpoint.fingerprint_of_newest(folder.checkpoint_folder)
    known = {one.name: score_identity(folder, weights, one.name, one.fingerprint) for one in asked}
    facts = {"label": wish.label if _is_by_label(folder) else None}
    missing = [one for one in asked if find_score(folder, known[one.name], facts) is None]
    if not missing:
        return "scored before"
    from moe_study.posthoc.lm_eval.model import StudyLM

    bar_on = sys.stderr if sys.stderr.isatty() else None
    model = StudyLM(folder, growing_prefixes=wish.growing_prefixes, label=facts["label"], bar_on=bar_on)
    said = []
    for one, answers in ask(model, missing):
        write_score(folder, known[one.name], answers.table, {**answers.facts, **facts, "passes": model.passes.words})
        said += [f"{one.name} {name} {own['value']:.4g}" for name, own in list(answers.facts["metrics"].items())[:1]]
    return f"{', '.join(said)}; {duration(time.perf_counter() - started)}"


def _is_by_label(folder: RunFolder) -> bool:
    return folder.read_config().routing.context is Context.LABEL


class _Tasks:
    """The tasks of a wish for each run; loaded once, or once in vain, for all runs that get the same questions."""

    def __init__(self, wish: ScoreWish) -> None:
        self.wish = wish
        self.of_harness = harness_tasks([name for name in wish.tasks if name not in LOCAL], wish.items)
        self.local: dict[tuple[str, Path, str | None], Asked | StudyError] = {}

    def of(self, folder: RunFolder) -> list[Asked]:
        """StudyError for a run without text, DataError where the text that its questions are made from is gone."""
        config = folder.read_config()
        needs_text(folder, config)
        root, corpus = self.wish.data_root or places.data_root(config.data), training_corpus(folder)
        local = [name for name in self.wish.tasks if name in LOCAL]
        return [*(self._local(name, root, corpus) for name in local), *self.of_harness]

    def _local(self, name: str, root: Path, corpus: PreparedCorpus | None) -> Asked:
        key = name, root, corpus.fingerprint if corpus else None
        if key not in self.local:
            try:
                self.local[key] = local_task(name, self._questions(name, root, corpus))
            except StudyError as error:
                self.local[key] = error
        if isinstance(task := self.local[key], StudyError):
            raise task
        return task

    def _questions(self, name: str, root: Path, corpus: PreparedCorpus | None) -> Path:
        items = self.wish.items or ITEMS
        if name == "topic":
            return topic_items([] if corpus is None else corpus.languages, root, items)
        if corpus is None:
            raise DataError(
                f"the corpus that it was trained on is not in {root}, and the task {name} is made from held-out text of"
                " it: prepare it again (moe-study prepare), or leave the task out of --tasks"
            )
        return cloze_items(corpus, root, items)
