"""Every finished run of a frame over one probe: traced where it is not yet, then measured (analysis/specialisation).

What was measured is kept in the run's folder (runs/findings.py), a table for each measure; their columns stand in
analysis/specialisation/run_tables.py. Findings count as long as they were made of the same weights and the same probe,
with as many permutations, by the same MEASURES.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from moe_study.analysis.format import duration
from moe_study.analysis.frame import done, each
from moe_study.analysis.specialisation.layer_trace import LayerTrace
from moe_study.analysis.specialisation.run_tables import TABLES, run_table, with_position
from moe_study.data.probes import Probe
from moe_study.data.probes.overlap import Overlap
from moe_study.data.probes.prepared import check_probe
from moe_study.errors import ConfigError, StudyError
from moe_study.posthoc.trace import identity_of, probe_of, trace_run
from moe_study.runs.findings import Finding, find_finding, write_finding
from moe_study.runs.folder import RunFolder

MEASURES = 1  # goes up when a measure gives other numbers for the same trace


@dataclass(frozen=True)
class Wish:
    """Which probe, and how much of it."""

    probe: str
    tokens: int
    permutations: int
    path: Path | None = None  # the folder of local_files
    data_root: Path | None = None  # where probes are kept; None: each run's own

    def check(self) -> None:
        """ConfigError for what no run could be measured with."""
        check_probe(self.probe, self.tokens)
        if self.permutations < 1:
            raise ConfigError(f"{self.permutations} permutations give no null; take at least 1, or better 1000")


@dataclass(frozen=True)
class RunFindings:
    """What was found out about one run."""

    point: str  # its label
    seed: int
    leaks: bool
    key: str
    tables: Mapping[str, pd.DataFrame]  # by their names in run_tables


@dataclass
class Measured:
    """What came of it."""

    runs: list[RunFindings] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)  # a sentence for each run that could not be measured
    notes: dict[str, None] = field(default_factory=dict)  # on the probe and its overlap with training text


def measure_runs(frame: pd.DataFrame, wish: Wish, say: Callable[[str], None] = print) -> Measured:
    """Trace and measure the finished runs of `frame` (analysis.frame.load_frame), with a line for each through `say`.

    A run that cannot be traced is left out with its sentence. Errors: ConfigError for a wish that no run could meet.
    """
    wish.check()
    found, runs = Measured(), done(frame)
    for place, run in enumerate(each(runs), start=1):
        name, started = f"{run.label}, seed {run.seed:g}", time.perf_counter()
        folder = RunFolder(run.folder)
        try:
            probe = probe_of(folder, wish.probe, data_root=wish.data_root, path=wish.path, tokens=wish.tokens)
            findings = found_already(folder, probe, wish)
            outcome = "measured before" if findings else "measured in "
            findings = findings or measure(folder, probe, wish)
            if outcome.endswith(" "):
                outcome += duration(time.perf_counter() - started)
            tables = {name: finding.table for name, finding in findings.items()}
            found.runs.append(RunFindings(run.label, int(run.seed), bool(run.leaks), run.key, tables))
            found.notes.update(dict.fromkeys(_notes(probe, findings)))
        except StudyError as error:
            found.left_out.append(f"{name} ({run.key}): {error}")
            outcome = "left out"
        say(f"[{place}/{len(runs)}] {name} ({run.key}): {outcome}")
    return found


def found_already(folder: RunFolder, probe: Probe, wish: Wish) -> dict[str, Finding] | None:
    """All findings that the wish asks for, if each of them is there."""
    identity, found = identity_of(folder, probe), {}
    for name in TABLES:
        if (finding := find_finding(folder.findings_folder, identity, name, _facts(wish))) is None:
            return None
        found[name] = finding
    return found


def measure(folder: RunFolder, probe: Probe, wish: Wish) -> dict[str, Finding]:
    """Trace the run unless it is traced; measure and keep what is not there yet."""
    trace, identity = trace_run(folder, probe), identity_of(folder, probe)
    layers = with_position({number: LayerTrace(**trace.layer(number)) for number in trace.layers})
    facts = {**_facts(wish), "tokens": len(probe.token_T), "documents": probe.documents, "overlap": trace.overlap}
    found = {}
    for name in TABLES:
        finding = find_finding(folder.findings_folder, identity, name, _facts(wish))
        if finding is None:
            finding = Finding(run_table(name, layers, wish.permutations), identity, facts)
            write_finding(folder.findings_folder, identity, name, finding.table, facts)
        found[name] = finding
    return found


def _facts(wish: Wish) -> dict[str, Any]:
    """What a finding must rest on, besides the trace."""
    return {"measures": MEASURES, "permutations": wish.permutations}


def _notes(probe: Probe, findings: Mapping[str, Finding]) -> list[str]:
    overlap = findings["information"].facts["overlap"]
    shared = "the training text is not here, so what the probe shares with it was not counted"
    return [*probe.notes, shared if overlap is None else Overlap(**overlap).sentence]
