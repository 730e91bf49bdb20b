"""Knock-outs of one run over one probe: measured where they are not yet, and kept as two findings.

`knockout_documents` has a row for every reading of the probe (measure.py) and document: layer, kind, expert, other,
draw (-1: the change itself; else the number of a draw of its null), document, nats (of all its tokens, changed less
unchanged), moved (assignments that are gone). Rows of kind "none" have the assignments of the routes as they are.
`knockout` is what the statistics make of them; its columns stand in the package's docstring.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from moe_study.analysis.specialisation.finding_columns import FINDING_COLUMNS
from moe_study.analysis.specialisation.knockout import (
    NONE,
    Array,
    Damage,
    Kind,
    KnockedRun,
    RouteChange,
    domain_changes,
)
from moe_study.data.locks import locked
from moe_study.data.probes import Probe
from moe_study.posthoc.knockout.measure import (
    ITSELF,
    ByDocument,
    Measured,
    Reading,
    in_whole_parts,
    measure,
    null_key,
    readings_of,
)
from moe_study.posthoc.knockout.plan import route_changes
from moe_study.posthoc.trace import Tracer, identity_of
from moe_study.runs.findings import Finding, find_finding, write_finding
from moe_study.runs.folder import RunFolder
from moe_study.runs.traces import TraceIdentity

TABLE, BY_DOCUMENT = "knockout", "knockout_documents"
VERSION = 1  # goes up when the same run and probe give other numbers
DRAWS = 3
UNCHANGED = "none"


def knock_out(
    folder: RunFolder,
    probe: Probe,
    layers: Sequence[int] | None = None,
    kinds: Sequence[Kind] = tuple(Kind),
    draws: int = DRAWS,
    progress: bool = True,
) -> KnockedRun:
    """What was asked for; the findings also keep what was measured before with as many draws.

    StudyError for a run without a model, text or experts; ConfigError for a layer that does not decide.
    """
    config = folder.read_config()
    changes = route_changes(config, layers, kinds)
    identity, facts = identity_of(folder, probe), {"version": VERSION, "draws": draws}
    whole = in_whole_parts(probe, config.model.context)
    with locked(folder.findings_folder / ".lock"):
        known = _known(folder, identity, facts)
        missing = [reading for reading in readings_of(changes, draws) if reading not in known.readings]
        if missing:
            tracer = Tracer.of(folder)
            label_D, what = tracer.labels_of(folder, probe), f"{folder.key} without its routes"
            with tqdm(unit="tok", unit_scale=True, desc=what, disable=not progress) as bar:
                new = measure(tracer, whole, label_D, missing, bar)
            known = Measured(new.assigned, known.readings | new.readings)
            write_finding(folder.findings_folder, identity, BY_DOCUMENT, _to_table(known), facts)
        if missing or _found(folder, identity, TABLE, facts) is None:
            rows = domain_changes(_knocked(known, whole, draws, _changes(known)))
            write_finding(folder.findings_folder, identity, TABLE, pd.DataFrame([asdict(row) for row in rows]), facts)
    return _knocked(known, whole, draws, changes)


def _known(folder: RunFolder, identity: TraceIdentity, facts: dict[str, Any]) -> Measured:
    found = _found(folder, identity, BY_DOCUMENT, facts)
    return Measured({}, {}) if found is None else _from_table(found.table)


def _found(folder: RunFolder, identity: TraceIdentity, name: str, facts: dict[str, Any]) -> Finding | None:
    return find_finding(folder.findings_folder, identity, name, facts, FINDING_COLUMNS[name])


def _changes(measured: Measured) -> list[RouteChange]:
    """All that were measured."""
    readings = (each for each in measured.readings if each.draw == ITSELF or each.change.kind is Kind.RANDOM_ROUTES)
    return list(dict.fromkeys(reading.change for reading in readings))


def _knocked(measured: Measured, whole: Probe, draws: int, changes: Sequence[RouteChange]) -> KnockedRun:
    tokens_D = np.maximum(np.diff(whole.start_D1) - 1, 0)  # the first token of a document has no loss
    damages = tuple(_damage(change, measured, draws) for change in changes)
    return KnockedRun(tokens_D.astype(float), measured.assigned, whole.document_labels, damages)


def _damage(change: RouteChange, measured: Measured, draws: int) -> Damage:
    drawn = [measured.readings[Reading(null_key(change), draw)] for draw in range(draws)]
    nats_ND = np.stack([by_document.nats_D for by_document in drawn])
    if change.kind is not Kind.RANDOM_ROUTES:
        itself = measured.readings[Reading(change, ITSELF)]
        return Damage(change, itself.nats_D, itself.moved_D, nats_ND)
    moved_ND = np.stack([by_document.moved_D for by_document in drawn])
    return Damage(change, nats_ND.mean(0), moved_ND.mean(0), nats_ND[:0])


# As a table -----------------------------------------------------------------------------------------------------


def _to_table(measured: Measured) -> pd.DataFrame:
    def rows() -> Iterator[pd.DataFrame]:
        for layer, assigned_D in measured.assigned.items():
            yield _rows(layer, UNCHANGED, NONE, NONE, ITSELF, np.zeros(len(assigned_D)), assigned_D)
        for (change, draw), (nats_D, moved_D) in measured.readings.items():
            yield _rows(change.layer, str(change.kind), change.expert, change.other, draw, nats_D, moved_D)

    return pd.concat(rows(), ignore_index=True)


def _rows(layer: int, kind: str, expert: int, other: int, draw: int, nats_D: Array, moved_D: Array) -> pd.DataFrame:
    places = {"layer": layer, "kind": kind, "expert": expert, "other": other, "draw": draw}
    return pd.DataFrame({**places, "document": np.arange(len(nats_D)), "nats": nats_D, "moved": moved_D})


def _from_table(table: pd.DataFrame) -> Measured:
    found = Measured({}, {})
    keys = ["layer", "kind", "expert", "other", "draw"]
    for _, part in table.groupby(keys, sort=False):
        first, nats_D, moved_D = part.iloc[0], part["nats"].to_numpy(float), part["moved"].to_numpy(float)
        if first["kind"] == UNCHANGED:
            found.assigned[int(first["layer"])] = moved_D
        else:
            change = RouteChange(int(first["layer"]), Kind(first["kind"]), int(first["expert"]), int(first["other"]))
            found.readings[Reading(change, int(first["draw"]))] = ByDocument(nats_D, moved_D)
    return found
