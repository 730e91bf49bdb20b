"""Run folders as pandas frames: one row per run, and long frames of what was measured on the way.

Nothing is dropped in silence: a run that is not done, or whose files are damaged, keeps its row, with its
state and the reason in `error`; `done` and `not_done` split a frame.
"""

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from moe_study.analysis.labels import add_labels
from moe_study.analysis.records import records
from moe_study.design.config import RunConfig
from moe_study.design.identity import SEED, completed, described, is_of_point
from moe_study.design.plain import flatten, from_plain
from moe_study.errors import ConfigError, DataError, StudyError
from moe_study.runs.activations import COLUMNS as ACTIVATION_COLUMNS
from moe_study.runs.folder import RunFolder
from moe_study.runs.listing import find_runs
from moe_study.runs.result import causality_of, executed_costs

Row = Mapping[str, Any]  # one row of a frame
RESULT_NUMBERS = (
    "validation_loss", "bits_per_byte", "accuracy", "tokens", "steps", "num_params", "num_active_params",
    "flops_per_token", "train_seconds", "tokens_per_second", "peak_memory_bytes",
)  # fmt: skip
EXECUTED = ("executed_active_params", "executed_flops_per_token")  # by the rows that ran over the validation set
EXPERT_RATES = ("wanted_per_token", "kept_per_token", "executed_per_token")
RUN_NAMES = ("label", "point", "key", "seed")  # what each row of a long frame says of its run
COUNTS = (SEED, "run.batch_size", "run.eval_tokens", "model.context")  # whole numbers, which frames reckon with
CAUSALITY = ("own_future", "others_future", "mixes_batch")


def load_frame(folders: Iterable[Path], sweep: str | None = None) -> pd.DataFrame:
    """One row per run of `folders` (run folders, or folders of them).

    Columns: folder, key (the folder's name), identity (the key that the run would have today), state (as in
    status.json, or `damaged`), error, step, total_steps, seed, point (identity without the seed), label (shortest text
    that tells the points of this frame apart), the settings that the run was trained with (`routing.num_experts`), each
    in its one spelling (design/normal.py), RESULT_NUMBERS, EXECUTED, EXPERT_RATES (means over layers),
    CAUSALITY, `leaks` (the routing reads later tokens), and evaluation (hash of what the loss was measured
    on: only losses with the same one can be compared). A run that stands in two folders is taken once, a done
    one first. `sweep` keeps the runs that were planned by the sweep of that name.
    """
    rows = [_row(folder) for folder in find_runs(folders, sweep)]
    frame = pd.DataFrame(rows)
    for name in (*RESULT_NUMBERS, *EXECUTED, *EXPERT_RATES):
        frame[name] = pd.to_numeric(frame[name]) if name in frame else math.nan
    for name in (*CAUSALITY, "leaks", "evaluation", "seed", "step", "total_steps"):
        if name not in frame:
            frame[name] = None
    return add_labels(_each_run_once(frame))


def _each_run_once(frame: pd.DataFrame) -> pd.DataFrame:
    """One row for each identity: of a run that stands in two folders, or was trained again after keys have moved, the
    done one, and of two done ones that under today's key."""
    identity = frame["identity"].fillna(frame["key"]) if "identity" in frame else frame["key"]
    rank = 2 * frame["state"].ne("done") + identity.ne(frame["key"])
    first = rank.sort_values(kind="stable").index
    kept = first[~identity.loc[first].duplicated()]
    return frame.loc[kept].sort_index().reset_index(drop=True)


def done(frame: pd.DataFrame) -> pd.DataFrame:
    """The runs with a result."""
    finished = frame["state"] == "done"
    return frame if finished.all() else frame[finished]  # a hundred columns are not copied where all rows stay


def not_done(frame: pd.DataFrame) -> pd.DataFrame:
    """The runs without a result, whatever the reason."""
    finished = frame["state"] == "done"
    return frame.iloc[:0] if finished.all() else frame[~finished]


def curves(frame: pd.DataFrame, problems: list[str] | None = None) -> pd.DataFrame:
    """Losses over training. Columns: label, point, key, seed, kind (train, validation), step, tokens, loss,
    seconds.

    Losses are of the language model alone, in nats per token. A damaged file raises DataError, or, with
    `problems`, adds its sentence there and leaves that run out; so do the other long frames.
    """
    columns = ["kind", "step", "tokens", "loss", "seconds"]

    def one(run: Row) -> pd.DataFrame:
        long = RunFolder(run["folder"]).metrics_table(("train", "validation"), columns)
        return long.assign(loss=pd.to_numeric(long["loss"]))  # null where it was not finite

    return long_frame(frame, one, columns, problems)


def routing_history(frame: pd.DataFrame, problems: list[str] | None = None) -> pd.DataFrame:
    """Expert shares over training. Columns: label, point, key, seed, step, tokens, layer, expert, share, entropy
    (nats, of the router, over the layer's tokens), and EXPERT_RATES; one row per step, layer and expert."""
    recorded = ["step", "layer", "share", "entropy", *EXPERT_RATES]

    def one(run: Row) -> pd.DataFrame:
        folder = RunFolder(run["folder"])
        wide = folder.metrics_table(("routing",), recorded)
        if wide[["layer", "share"]].isna().any(axis=None):
            raise DataError(f"{folder.metrics_file} is damaged: a record of routing lacks its layer or shares")
        wide["tokens"] = wide["step"] * run["run.batch_size"] * run["model.context"]
        return wide.assign(entropy=pd.to_numeric(wide["entropy"]))  # null where there are no probabilities

    wide = long_frame(frame, one, [*recorded, "tokens"], problems)
    experts = [len(share) for share in wide["share"]]
    long = wide.loc[wide.index.repeat(experts)].reset_index(drop=True)
    long["share"] = pd.Series([one for share in wide["share"] for one in share], dtype=float)
    long["expert"] = pd.Series([expert for count in experts for expert in range(count)], dtype=int)
    return long[[*RUN_NAMES, "step", "tokens", "layer", "expert", "share", "entropy", *EXPERT_RATES]]


def activations(frame: pd.DataFrame, problems: list[str] | None = None) -> pd.DataFrame:
    """Activation counts over the validation set after training. Columns: label, point, key, seed and
    ACTIVATION_COLUMNS; runs without a router have no rows."""
    columns = list(ACTIVATION_COLUMNS)

    def one(run: Row) -> pd.DataFrame:
        counts = RunFolder(run["folder"]).read_activations()
        return pd.DataFrame(columns=columns) if counts is None else counts[columns]

    return long_frame(frame, one, columns, problems)


def domain_losses(frame: pd.DataFrame, problems: list[str] | None = None) -> pd.DataFrame:
    """Validation loss by domain.

    Columns: label, point, key, seed, by (language, topic), name, loss, tokens.
    """
    columns = ["by", "name", "loss", "tokens"]

    def one(run: Row) -> pd.DataFrame:
        folder = RunFolder(run["folder"])
        result = _read_result(folder)
        try:
            rows = [
                {"by": by, "name": name, "loss": float(value["loss"]), "tokens": int(value["tokens"])}
                for by in ("language", "topic")
                for name, value in (result.get(f"by_{by}") or {}).items()
            ]
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            what = f"its losses by domain lack their fields ({error!r:.60})"
            raise DataError(f"{folder.result_file} is damaged: {what}; {folder.advice_to_retrain}") from error
        return pd.DataFrame(rows, columns=columns)

    return long_frame(frame, one, columns, problems)


def each(frame: pd.DataFrame) -> Iterator[Any]:
    """The rows as named tuples, of the columns without a dot in their name."""
    if len(frame):  # pandas makes a class for the tuples, and looks at every column
        yield from frame[[name for name in frame if "." not in str(name)]].itertuples()


def long_frame(
    frame: pd.DataFrame, one: Callable[[Row], pd.DataFrame], columns: list[str], problems: list[str] | None
) -> pd.DataFrame:
    """The frames that `one` makes of each run, one under the other, with label, point, key and seed in front.

    A run for which it raises a StudyError is left out, and its sentence added to `problems`; without them it is raised.
    """
    parts, runs = [], []
    for run in records(frame):
        try:
            part = one(run)
        except StudyError as error:
            if problems is None:
                raise
            if str(error) not in problems:
                problems.append(str(error))
            continue
        if len(part):
            parts.append(part)
            runs.append(run)
    if not parts:
        return pd.DataFrame(columns=[*RUN_NAMES, *columns])
    long = pd.concat(parts, ignore_index=True)
    for position, name in enumerate(RUN_NAMES):
        of_parts = pd.Series([run[name] for run in runs]).repeat([len(part) for part in parts])
        long.insert(position, name, of_parts.reset_index(drop=True))
    return long


def _row(folder: RunFolder) -> dict[str, Any]:
    """One run as a flat row; a damaged file becomes the state `damaged` with its sentence."""
    row: dict[str, Any] = {"folder": str(folder.path), "key": folder.key, "state": "damaged", "error": None}
    try:
        status, state = folder.status(), folder.state().value
        if not folder.path.exists():
            return {**row, "state": state}
        row.update(_settings(folder))
        row["step"], row["total_steps"], row["attempts"] = status.step, status.total_steps, status.attempts
        if status.error:
            row["error"] = f"{status.error['type']}: {status.message}"
        if state == "done":
            row.update(_result(folder, _read_result(folder), row))
        row["state"] = state
    except StudyError as error:
        row["error"] = str(error)
    except OSError as error:  # of another user, or on a disk that fails
        row["error"] = f"{error.filename or folder.path} cannot be read: {error.strerror}"
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        row["error"] = f"{folder.path} is damaged: a file lacks its fields ({error!r}); {folder.advice_to_retrain}"
    return row


def _settings(folder: RunFolder) -> dict[str, Any]:
    """The settings that the run was trained with, each in its one spelling, and what identifies it and its point.

    Those of a later version, which this one cannot read, stand as they were written.
    """
    try:
        whole = completed(folder.read_plain_config(), RunConfig())
    except ConfigError as error:
        raise DataError(f"{folder.config_file} is damaged: {error}; restore it, or move {folder.path} away") from error
    try:
        settings, identity, point = described(from_plain(RunConfig, whole))
    except (ConfigError, AssertionError):  # a kind of value that this version does not know, or knows as invalid
        settings, identity = flatten(whole), folder.key
        if wrong := [name for name in COUNTS if type(settings[name]) is not int]:
            what = f"{folder.config_file} is damaged: its {wrong[0]} is {settings[wrong[0]]!r:.40}"
            raise DataError(f"{what}; restore it, or move {folder.path} away") from None
        point = _hash({name: value for name, value in settings.items() if is_of_point(name)})
    return {"seed": settings[SEED], "identity": identity, "point": point, **settings}


def _read_result(folder: RunFolder) -> dict[str, Any]:
    """The result of a run that says it is done."""
    result = folder.result()
    if result is None:
        raise DataError(f"{folder.result_file} is missing; start the run again")
    return result


def _result(folder: RunFolder, result: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, Any]:
    path = folder.result_file
    if result.get("key", folder.key) != folder.key:
        raise DataError(f"{path} belongs to the run {result['key']}; move it back to the folder of that name")
    for name in ("validation_loss", "causality"):
        if result.get(name) is None:
            raise DataError(f"{path} is damaged: it has no {name}; {folder.advice_to_retrain}")
    for name in (*RESULT_NUMBERS, *EXECUTED):
        if (value := result.get(name)) is not None and not _is_number(value, finite=name == "validation_loss"):
            raise DataError(f"{path} is damaged: its {name} is {value!r:.40}; {folder.advice_to_retrain}")
    if missing := set(CAUSALITY) - set(result["causality"]):
        raise DataError(f"{path} is damaged: its causality lacks {min(missing)}; {folder.advice_to_retrain}")
    values = {name: result.get(name) for name in RESULT_NUMBERS}
    for name in EXPERT_RATES:
        values[name] = _mean(result.get(name))
    values.update(executed_costs(folder, result))
    verdict = causality_of(result)
    values.update({name: getattr(verdict, name) for name in CAUSALITY}, leaks=verdict.leaks)
    # What decides whether two losses are of the same text: the data, the window, and how much is read.
    measured_on = [result.get("data_fingerprint"), row["model.context"], row["run.eval_tokens"]]
    values["evaluation"] = _hash(measured_on)
    return values


def _is_number(value: Any, *, finite: bool) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and (math.isfinite(value) or not finite)


def _mean(by_layer: Mapping[str, float] | None) -> float:
    values = list(by_layer.values()) if by_layer else []
    return sum(values) / len(values) if values else math.nan


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:12]
