"""Every finished run of a frame over one probe: traced where it is not yet, then measured (analysis/specialisation)."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from moe_study.analysis.format import duration
from moe_study.analysis.frame import done, each
from moe_study.analysis.specialisation.layer_trace import LayerTrace
from moe_study.analysis.specialisation.points import MeasuredRun, measure_run
from moe_study.data.probes.overlap import Overlap
from moe_study.data.probes.prepared import check_probe
from moe_study.errors import ConfigError, StudyError
from moe_study.posthoc.trace import probe_of, trace_run
from moe_study.runs.folder import RunFolder


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


@dataclass
class Measured:
    """What came of it."""

    runs: list[MeasuredRun] = field(default_factory=list)
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
        try:
            found.runs.append(_measure(RunFolder(run.folder), run.label, int(run.seed), bool(run.leaks), wish, found))
            outcome = f"measured in {duration(time.perf_counter() - started)}"
        except StudyError as error:
            found.left_out.append(f"{name} ({run.key}): {error}")
            outcome = "left out"
        say(f"[{place}/{len(runs)}] {name} ({run.key}): {outcome}")
    return found


def _measure(folder: RunFolder, label: str, seed: int, leaks: bool, wish: Wish, found: Measured) -> MeasuredRun:
    probe = probe_of(folder, wish.probe, data_root=wish.data_root, path=wish.path, tokens=wish.tokens)
    trace = trace_run(folder, probe)
    layers = {number: LayerTrace(**trace.layer(number)) for number in trace.layers}
    measured = measure_run(label, seed, leaks, layers, wish.permutations)
    found.notes.update(dict.fromkeys(probe.notes))
    shared = "the training text is not here, so what the probe shares with it was not counted"
    found.notes[shared if trace.overlap is None else Overlap(**trace.overlap).sentence] = None
    return measured
