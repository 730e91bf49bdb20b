"""One run over one probe: traced where it is not yet, measured, and what was found kept in the run's folder.

The tables and their columns stand in analysis/specialisation/run_tables.py, the files in runs/findings.py. Findings
count as long as they were made of the same weights and the same probe, with as many permutations, by the same MEASURES.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from moe_study.analysis.specialisation.finding_columns import FINDING_COLUMNS
from moe_study.analysis.specialisation.hidden_states import clusters
from moe_study.analysis.specialisation.layer_trace import LayerTrace, first_documents
from moe_study.analysis.specialisation.run_tables import (
    CONTROL,
    CONTROL_TOKENS,
    TABLES,
    control_table,
    run_table,
    with_position,
)
from moe_study.data.probes import Probe
from moe_study.data.probes.prepared import check_probe
from moe_study.errors import ConfigError, StudyError
from moe_study.posthoc.router_states import router_states
from moe_study.posthoc.trace import Tracer, identity_of, probe_of, trace_run
from moe_study.runs.findings import Finding, find_finding, write_finding
from moe_study.runs.folder import RunFolder
from moe_study.runs.traces import Trace, TraceIdentity

MEASURES = 1  # goes up when a measure gives other numbers for the same trace
ALL_MEASURES = (*TABLES, CONTROL)
BRIEF_MEASURES = ("information", "shares", "load", "co_activation")


@dataclass(frozen=True)
class Wish:
    """Which probe, how much of it, and what to measure there."""

    probe: str
    tokens: int
    permutations: int
    path: Path | None = None  # the folder of local_files
    data_root: Path | None = None  # where probes are kept; None: each run's own
    measures: tuple[str, ...] = ALL_MEASURES

    def check(self) -> None:
        """ConfigError for what no run could be measured with."""
        check_probe(self.probe, self.tokens)
        if self.permutations < 1:
            raise ConfigError(f"{self.permutations} permutations give no null; take at least 1, or better 1000")

    @property
    def facts(self) -> dict[str, Any]:
        """What a finding must rest on, besides the trace."""
        return {"measures": MEASURES, "permutations": self.permutations}

    def probe_of(self, folder: RunFolder) -> Probe:
        """The probe in the run's own tokenizer."""
        return probe_of(folder, self.probe, data_root=self.data_root, path=self.path, tokens=self.tokens)


def kept_findings(folder: RunFolder, probe: Probe, wish: Wish) -> dict[str, Finding]:
    """What the run's folder holds of what the wish asks for, by name."""
    identity = identity_of(folder, probe)
    found = {
        name: find_finding(folder.findings_folder, identity, name, wish.facts, FINDING_COLUMNS[name])
        for name in wish.measures
    }
    return {name: finding for name, finding in found.items() if finding is not None}


def measure(folder: RunFolder, probe: Probe, wish: Wish, *, progress: bool = True) -> None:
    """Trace the run unless it is traced, measure what its folder does not hold yet, and keep it.

    StudyError for a run that cannot be traced (posthoc/trace.py), or whose hidden states can no longer be had.
    """
    kept = kept_findings(folder, probe, wish)
    missing = [name for name in wish.measures if name not in kept]
    if not missing:
        return
    trace = trace_run(folder, probe, progress=progress)
    layers = with_position({number: LayerTrace(**trace.layer(number)) for number in trace.layers})
    for name in missing:  # the hidden states come last: all else can be had of a trace alone
        notes: list[str] = []
        if name == CONTROL:
            table = _control(folder, probe, layers, wish, notes)
        else:
            table = run_table(name, layers, wish.permutations)
        _keep(folder, trace, name, table, {**wish.facts, **_about(probe, trace), "notes": notes})


def _control(
    folder: RunFolder, probe: Probe, layers: dict[int, LayerTrace], wish: Wish, notes: list[str]
) -> pd.DataFrame:
    """The hidden-state control; `notes` gets a sentence for each layer that cannot have it."""
    cluster_of = {}
    if layers:
        tracer = Tracer.of(folder)
        states = router_states(tracer, probe, tracer.labels_of(folder, probe), CONTROL_TOKENS)
        for number, layer in layers.items():
            try:
                cluster_of[number] = clusters(states.pop(number), layer.experts)
            except StudyError as error:
                notes.append(f"no hidden-state control for layer {number} of {folder.key}: {error}")
    cut = {number: first_documents(layer, CONTROL_TOKENS) for number, layer in layers.items()}
    return control_table(cut, cluster_of, wish.permutations)


def _keep(folder: RunFolder, trace: Trace, name: str, table: pd.DataFrame, facts: dict[str, Any]) -> None:
    identity = TraceIdentity(**trace.manifest["identity"])  # names the weights, too, where the checkpoint is gone
    write_finding(folder.findings_folder, identity, name, table, facts)


def _about(probe: Probe, trace: Trace) -> dict[str, Any]:
    return {"tokens": len(probe.token_T), "documents": probe.documents, "overlap": trace.overlap}
