"""What the page shows of the experts of runs: heat maps by label, and texts coloured by expert.

All of it is data for files/experts.js, which draws one run, layer and label at a time.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from moe_study.analysis.page.embedded import numbers
from moe_study.analysis.page.texts import chosen_documents, document_data, picks, token_span
from moe_study.analysis.plots.knockout import ALL_LAYERS, KIND
from moe_study.analysis.plots.shares import most_used
from moe_study.analysis.probes import ProbeFindings, RunFinding
from moe_study.analysis.study import Part
from moe_study.data.run_tokenizer import load_run_tokenizer
from moe_study.errors import StudyError
from moe_study.runs.folder import RunFolder
from moe_study.runs.traces import Trace, find_trace

BUDGET = 2_500_000  # bytes of one probe's data; lowest seeds come first, and what does not fit is said
MOST_EXPERTS = 64  # rows of a heat map


@dataclass
class Inside:
    """One probe of one part."""

    id: str
    probe: str
    data: dict[str, Any]
    notes: list[str] = field(default_factory=list)


def inside_of(part: Part, probe: ProbeFindings, id: str, names: dict[str, str]) -> Inside | None:
    """Heat maps and texts of the runs whose points are in `names` (label: name with marks); None where none has any."""
    found = [one for one in probe.found.get("shares", ()) if one.label in names and len(one.finding.table)]
    knocked = {one.key: one.finding.table for one in probe.found.get("knockout", ())}
    if not found:
        return None
    folders = dict(zip(part.runs["key"], map(RunFolder, part.runs["folder"]), strict=True))
    texts = _Texts(folders)
    inside = Inside(id, probe.name, {"probe": probe.name, "documents": [], "labels": {}, "runs": []})
    size, left_out = 0, 0
    for one in _lowest_seeds_first(found):
        run = _run(one, names[one.label], probe.shares_of(one), knocked.get(one.key), texts)
        size += len(json.dumps(run))
        if size > BUDGET and inside.data["runs"]:
            left_out += 1
            continue
        inside.data["runs"].append(run)
    order = [names[label] for label in part.table["label"] if label in names]
    inside.data["runs"].sort(key=lambda run: (order.index(run["name"]), run["seed"]))
    inside.data.update(documents=texts.documents, labels=texts.labels or _labels_of(found))
    inside.notes = [*texts.problems]
    if left_out:
        inside.notes.append(f"{len(inside.data['runs'])} of {len(found)} runs, lowest seeds first: more would not fit")
    return inside


def _lowest_seeds_first(found: Iterable[RunFinding]) -> list[RunFinding]:
    return sorted(found, key=lambda one: one.seed)


def _labels_of(found: Sequence[RunFinding]) -> dict[str, list[str]]:
    tables = pd.concat([one.finding.table[["label", "domain"]] for one in found]).drop_duplicates()
    return {str(label): sorted(map(str, own["domain"])) for label, own in tables.groupby("label")}


class _Texts:
    """The documents of one probe, from the first run whose trace and tokenizer are there."""

    def __init__(self, folders: dict[str, RunFolder]) -> None:
        self.folders = folders
        self.documents: list[dict[str, Any]] = []
        self.labels: dict[str, list[str]] = {}
        self.chosen: list[int] = []
        self.problems: list[str] = []

    def trace_of(self, one: RunFinding) -> Trace | None:
        """The run's trace, if the documents can be shown with it."""
        trace = find_trace(self.folders[one.key].traces_folder, one.finding.identity)
        if trace is None:
            self._tell(f"texts: the trace of {one.label}, seed {one.seed}, is not there any more")
            return None
        if not self.documents:
            self._open(trace, one)
        return trace if self.documents else None

    def _open(self, trace: Trace, one: RunFinding) -> None:
        try:
            tokenizer = load_run_tokenizer(self.folders[one.key])
        except StudyError as error:
            return self._tell(f"texts: {error}")
        self.chosen = chosen_documents(trace)
        self.documents = document_data(trace, self.chosen, tokenizer)
        named = {**trace.document_labels, **trace.token_labels}
        self.labels = {name: list(values) for name, (_, values) in named.items()}
        return None

    def _tell(self, sentence: str) -> None:
        if sentence not in self.problems:
            self.problems.append(sentence)


def _run(
    one: RunFinding, name: str, shares: pd.DataFrame, knocked: pd.DataFrame | None, texts: _Texts
) -> dict[str, Any]:
    trace = texts.trace_of(one)
    spans = [] if trace is None else [token_span(trace, document) for document in texts.chosen]
    maps = {key: {"lift": _lift(own)} for key, own in _by_layer_and_label(shares)}
    if knocked is not None and len(knocked):
        for key, own in _by_layer_and_label(knocked[(knocked["kind"] == KIND) & (knocked["layer"] != ALL_LAYERS)]):
            if key in maps:
                maps[key]["removed"] = _damage(own)
    experts = shares.groupby("layer")["expert"].max()
    layers = []
    for layer in sorted({layer for layer, _ in maps}):
        of_layer = {label: found for (number, label), found in maps.items() if number == layer}
        entry: dict[str, Any] = {"layer": layer, "experts": int(experts[layer]) + 1, "maps": of_layer}
        if trace is not None and layer in trace.layers:
            entry["picks"] = picks(trace.layer(layer), spans)
        layers.append(entry)
    return {"name": name, "seed": one.seed, "key": one.key, "leaks": one.leaks, "layers": layers}


def _by_layer_and_label(table: pd.DataFrame) -> list[tuple[tuple[int, str], pd.DataFrame]]:
    by_layer = {int(layer): table[table["layer"] == layer] for layer in table["layer"].unique()}
    return [
        ((layer, str(label)), own)
        for layer, rows in by_layer.items()
        for label, own in rows.groupby("label", sort=False)
    ]


def _lift(rows: pd.DataFrame) -> dict[str, Any]:
    """Lift of each expert (rows) by domain (columns), and where it is within the null's band."""
    kept = most_used(rows, MOST_EXPERTS)
    within = (kept["null_low"] <= kept["share"]) & (kept["share"] <= kept["null_high"])
    return _matrix(kept, kept["lift"], {"within": within})


def _damage(rows: pd.DataFrame) -> dict[str, Any]:
    """Change of each domain's loss without each expert, nats per token."""
    used = rows.groupby("expert")["share_overall"].first().nlargest(MOST_EXPERTS).index
    kept = rows[rows["expert"].isin(used)]
    within = (kept["null_low"] <= kept["change"]) & (kept["change"] <= kept["null_high"])
    return _matrix(kept, kept["change"], {"within": within, "needed": kept["needed"].eq(True)})


def _matrix(rows: pd.DataFrame, values: "pd.Series[float]", marks: dict[str, "pd.Series[bool]"]) -> dict[str, Any]:
    experts, row_N = np.unique(rows["expert"].to_numpy(dtype=int), return_inverse=True)
    domains, column_N = np.unique(rows["domain"].to_numpy(dtype=object), return_inverse=True)
    value_RC = np.full((len(experts), len(domains)), np.nan)
    value_RC[row_N, column_N] = np.round(values.to_numpy(dtype=float), 4)
    found = {"experts": experts.tolist(), "domains": list(map(str, domains)), "value": numbers(value_RC.ravel())}
    for name, marked in marks.items():
        flag_RC = np.zeros(value_RC.shape, int)
        flag_RC[row_N, column_N] = marked.to_numpy(dtype=int)
        found[name] = "".join(map(str, flag_RC.ravel()))
    return found
