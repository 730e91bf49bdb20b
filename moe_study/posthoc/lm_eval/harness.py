"""lm-evaluation-harness as it is used here: tasks loaded, and asked of one model.

The harness is an optional extra, imported by the functions that need it; without it they raise one sentence. Its own
tasks take their data from the Hugging Face hub; those that ship with the project (YAML files beside this one) take it
from a file that is made when they are asked.
"""

import contextlib
import difflib
import hashlib
import importlib.metadata
import io
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
import yaml

from moe_study.errors import ConfigError, StudyError, reason_of
from moe_study.runs.scores import COLUMNS

if TYPE_CHECKING:
    from lm_eval.api.model import LM
    from lm_eval.api.task import Task

LOCAL = tuple(sorted(path.stem for path in Path(__file__).parent.glob("*.yaml")))
SEED = 1234  # of the choice of examples, where a task shows some; the harness's own
RESAMPLES = 1000  # of the harness's bootstrap, for metrics that have no formula for a standard error
MISSING = "moe-study score needs lm-evaluation-harness, an optional extra; type: pip install 'moe-study[score]'"


class Asked(NamedTuple):
    """One task, ready to be asked of models."""

    name: str
    task: "Task"
    fingerprint: str  # of its questions
    limit: int | None  # how many of them; None: all


class Answers(NamedTuple):
    """What one model made of one task: the columns and facts of runs/scores.py."""

    table: pd.DataFrame
    facts: dict[str, Any]


def harness_version() -> str:
    """StudyError where the harness is not installed."""
    try:
        return importlib.metadata.version("lm_eval")
    except importlib.metadata.PackageNotFoundError:
        raise StudyError(MISSING) from None


def local_task(name: str, questions: Path) -> Asked:
    """A task of LOCAL over a file of questions."""
    spec = yaml.safe_load((Path(__file__).parent / f"{name}.yaml").read_text(encoding="utf-8"))
    cache = questions.parent / "arrow"  # where the harness's library keeps what it has read
    spec["dataset_kwargs"] = {"data_files": {spec["test_split"]: str(questions)}, "cache_dir": str(cache)}
    (task,) = _manager(False).load([spec])["tasks"].values()
    return Asked(name, task, _fingerprint(name, task, questions.stem), None)


def harness_tasks(names: Sequence[str], limit: int | None) -> list[Asked]:
    """Tasks of the harness by name (a group or tag gives each of its tasks), or by the path of a YAML file.

    ConfigError for a name that it does not have, StudyError where a task's data cannot be had.
    """
    if not names:
        return []
    manager, found = _manager(not all(Path(name).suffix in (".yaml", ".yml") for name in names)), {}
    for name in names:
        try:
            found.update(manager.load([name])["tasks"])
        except KeyError:
            near = difflib.get_close_matches(name, [*LOCAL, *manager.all_tasks], 3) or LOCAL
            raise ConfigError(f"there is no task {name}; did you mean {' or '.join(near)}?") from None
        except Exception as error:  # whatever comes out of a task's own code, or of the hub's client
            raise StudyError(
                f"the task {name} could not be loaded, since its data comes from the Hugging Face hub"
                f" ({reason_of(error)}); reach the hub once, without HF_HUB_OFFLINE, or take the tasks that need none:"
                f" {','.join(LOCAL)}"
            ) from error
    return [Asked(name, task, _fingerprint(name, task, f"first {limit}"), limit) for name, task in found.items()]


def ask(model: "LM", asked: Sequence[Asked]) -> Iterator[tuple[Asked, Answers]]:
    """Each task with the model's answers, as the harness judges them."""
    from lm_eval.evaluator import evaluate

    for one in asked:
        # As its simple_evaluate does before, which then spends seconds on listing what is installed.
        if one.task.get_config("num_fewshot") is None:
            one.task.set_config(key="num_fewshot", value=0)
        one.task.set_fewshot_seed(SEED)
        with _quiet():
            results = evaluate(
                model, {"tasks": {one.name: one.task}, "groups": {}}, limit=one.limit, bootstrap_iters=RESAMPLES
            )
        yield one, _answers(one, results)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the harness's bars and remarks, nor the processes that it forks for its bootstrap."""
    before = os.environ.get("DISABLE_MULTIPROC")
    os.environ["DISABLE_MULTIPROC"] = "1"
    try:
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        if before is None:
            del os.environ["DISABLE_MULTIPROC"]
        else:
            os.environ["DISABLE_MULTIPROC"] = before


def _manager(with_its_own_tasks: bool) -> Any:
    """The harness's index of tasks; that of its own 15,000 takes seconds."""
    harness_version()
    from datasets import disable_progress_bars
    from lm_eval.tasks import TaskManager

    logging.getLogger("lm_eval").setLevel(logging.ERROR)  # it tells what it is doing, line by line
    disable_progress_bars()
    return TaskManager(include_defaults=with_its_own_tasks)


def _fingerprint(name: str, task: "Task", questions: str) -> str:
    """Of what decides a task's questions and how they are judged."""
    parts = (name, str(task.VERSION), questions, str(task.get_config("num_fewshot")), harness_version())
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _answers(asked: Asked, results: Any) -> Answers:
    samples = results["samples"][asked.name]
    table = pd.DataFrame([row for sample in samples for row in _rows(sample)], columns=list(COLUMNS))
    table["item"] += _repeats(table)
    worked_out, higher = results["results"][asked.name], results["higher_is_better"].get(asked.name, {})
    metrics = {}
    for key, value in worked_out.items():
        name, _, filtered = key.partition(",")
        if not filtered or name.endswith("_stderr") or not isinstance(value, int | float):
            continue
        stderr = worked_out.get(f"{name}_stderr,{filtered}")
        metrics[_metric(name, filtered)] = {
            "value": float(value),
            "stderr": float(stderr) if isinstance(stderr, int | float) else None,
            "higher_is_better": higher.get(name),
            "is_mean": _is_mean(table, _metric(name, filtered), float(value)),
        }
    facts = {
        "task": asked.name,
        "harness": harness_version(),
        "task_version": str(asked.task.VERSION),
        "items": len(samples),
        "metrics": metrics,
        "chance": _chance(asked.task, samples),
    }
    return Answers(table, facts)


def _rows(sample: dict[str, Any]) -> Iterator[tuple[str, str, float, float]]:
    """One row for each metric of one answered question."""
    document = sample["doc"]
    item = str(document["id"]) if isinstance(document, dict) and "id" in document else sample["doc_hash"][:16]
    for name in sample["metrics"]:
        value = sample[name]
        pair = value if isinstance(value, tuple | list) and len(value) == 2 else (value, np.nan)
        if all(isinstance(number, int | float | np.number) for number in pair):
            yield item, _metric(name, sample["filter"]), float(pair[0]), float(pair[1])


def _repeats(table: pd.DataFrame) -> "pd.Series[str]":
    """What tells apart questions that are word for word the same: nothing for the first, #1 for the next."""
    number = table.groupby(["item", "metric"]).cumcount()
    return number.map(lambda n: f"#{n}" if n else "").astype(str)


def _metric(name: str, filtered: str) -> str:
    return name if filtered == "none" else f"{name} ({filtered})"


def _is_mean(table: pd.DataFrame, metric: str, value: float) -> bool:
    """Whether a metric is the mean of its answers, so that differences can be had answer by answer."""
    own = table[table["metric"] == metric]
    return bool(len(own) and own["weight"].isna().all() and np.isclose(own["value"].mean(), value, atol=1e-9))


def _chance(task: "Task", samples: Sequence[dict[str, Any]]) -> float | None:
    """Accuracy of guessing among a question's choices; None where there are none."""
    if task.get_config("output_type") != "multiple_choice":
        return None
    return float(np.mean([1 / len(task.doc_to_choice(sample["doc"])) for sample in samples]))
