"""Every finished run of a frame over one probe, measured side by side: each run's folder then holds what was found.

    found = measure_runs(frame, Wish("wiki_topics", tokens=200_000, permutations=1000))
"""

import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from moe_study.analysis.format import duration
from moe_study.analysis.frame import done, each
from moe_study.analysis.specialisation.over_runs import RunFindings
from moe_study.data import load_run_tokenizer, places
from moe_study.data.probes import Probe
from moe_study.data.probes.base import tokenizer_fingerprint
from moe_study.data.probes.overlap import Overlap
from moe_study.design.routing import Selection
from moe_study.errors import StudyError
from moe_study.launch.local.processes import start_server, without_main
from moe_study.launch.local.slots import available_cores
from moe_study.launch.local.worker import end_with_parent
from moe_study.posthoc.measure import Wish, kept_findings, measure
from moe_study.posthoc.trace import needs_text
from moe_study.runs.findings import Finding
from moe_study.runs.folder import RunFolder

MOST_JOBS = 8  # each holds a model and a run's trace
KILLED = (
    "a process that measured a run was killed, most likely since memory ran out; measure fewer at a time (--jobs 1)"
)


@dataclass
class Measured:
    """What came of it, in the order of the frame."""

    runs: list[RunFindings] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)  # a sentence for each run that could not be measured
    notes: dict[str, None] = field(default_factory=dict)  # on the probe, its overlap with training text, a measure


def measure_runs(
    frame: pd.DataFrame,
    wish: Wish,
    say: Callable[[str], None] = print,
    jobs: int | None = None,
    *,
    only_experts: bool = False,
    progress: bool = True,
) -> Measured:
    """Trace and measure the finished runs of `frame` (analysis.frame.load_frame), with a line for each through `say`.

    `jobs` runs are measured at a time, each in a process with one thread (None: one for each core, at most 8). What a
    run's folder holds already is read from there. A run that cannot be measured is left out with its sentence.
    `only_experts` passes over runs without experts, of which a trace holds the loss alone; `progress` shows a bar for
    each run where one is measured at a time.
    Errors: ConfigError for a wish that no run could meet.
    """
    wish.check()
    finished = done(frame)
    if only_experts and "routing.selection" in finished:
        finished = finished[finished["routing.selection"] != Selection.DENSE]
    runs, probes = list(each(finished)), _Probes(wish)
    failed, to_do = _look(runs, probes, wish)
    if before := len(runs) - len(failed) - len(to_do):
        say(f"{before} of {len(runs)} runs were measured before; what was found is in their folders")
    jobs = min(jobs or min(available_cores(), MOST_JOBS), len(to_do))
    for count, (run, outcome) in enumerate(_side_by_side(to_do, wish, jobs, progress), start=1):
        if outcome.error is not None:
            failed[run.key] = outcome.error
        ended = "left out" if outcome.error is not None else f"measured in {duration(outcome.seconds)}"
        say(f"[{count}/{len(to_do)}] {_name(run)} ({run.key}): {ended}")
    return _gathered(runs, probes, wish, failed)


class _Probes:
    """The probe for each run; fetched and tokenized once for those of one tokenizer, and once in vain."""

    def __init__(self, wish: Wish) -> None:
        self.wish = wish
        self.known: dict[tuple[Path, str], Probe | StudyError] = {}

    def of(self, folder: RunFolder) -> Probe:
        config = folder.read_config()
        needs_text(folder, config)
        root = self.wish.data_root or places.data_root(config.data)
        key = root, tokenizer_fingerprint(load_run_tokenizer(folder))
        if key not in self.known:
            try:
                self.known[key] = self.wish.probe_of(folder)
            except StudyError as error:
                self.known[key] = error
        if isinstance(probe := self.known[key], StudyError):
            raise probe
        return probe


def _look(runs: Sequence[Any], probes: _Probes, wish: Wish) -> tuple[dict[str, str], list[Any]]:
    """(sentences on runs without a probe, by key; the runs that are not measured yet)."""
    failed: dict[str, str] = {}
    to_do = []
    for run in runs:
        folder = RunFolder(run.folder)
        try:
            if len(kept_findings(folder, probes.of(folder), wish)) < len(wish.measures):
                to_do.append(run)
        except StudyError as error:
            failed[run.key] = str(error)
    return failed, to_do


class _Outcome(NamedTuple):
    seconds: float
    error: str | None


def _side_by_side(runs: Sequence[Any], wish: Wish, jobs: int, progress: bool) -> Iterator[tuple[Any, _Outcome]]:
    """Measure the runs, `jobs` at a time; each with its outcome, as they end."""
    if jobs <= 1:
        yield from ((run, _measure(run.folder, wish, progress)) for run in runs)
        return
    context = start_server(["moe_study.posthoc.measure"], {"OMP_NUM_THREADS": "1"})
    with ProcessPoolExecutor(jobs, context, initializer=_begin) as pool:
        with without_main():
            run_of = {pool.submit(_measure, run.folder, wish, progress=False): run for run in runs}
        for future in as_completed(run_of):
            try:
                yield run_of[future], future.result()
            except BrokenProcessPool:
                yield run_of[future], _Outcome(float("nan"), KILLED)


def _begin() -> None:
    """In each process: it ends with Ctrl-C, a signal or its parent; a run that it was at is begun anew next time."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    end_with_parent()
    import torch

    torch.set_num_threads(1)


def _measure(path: str, wish: Wish, progress: bool) -> _Outcome:
    started, folder = time.perf_counter(), RunFolder(path)
    try:
        measure(folder, wish.probe_of(folder), wish, progress=progress)
    except StudyError as error:
        return _Outcome(time.perf_counter() - started, str(error))
    return _Outcome(time.perf_counter() - started, None)


def _gathered(runs: Sequence[Any], probes: _Probes, wish: Wish, failed: Mapping[str, str]) -> Measured:
    """What the folders hold now. A run of which a part could be measured stands with that part and its sentence."""
    found = Measured()
    for run in runs:
        if sentence := failed.get(run.key):
            found.left_out.append(f"{_name(run)} ({run.key}): {sentence}")
        folder = RunFolder(run.folder)
        try:
            probe = probes.of(folder)
            findings = kept_findings(folder, probe, wish)
        except StudyError:
            continue  # which `failed` says
        if "information" in findings:
            tables = {name: finding.table for name, finding in findings.items()}
            found.runs.append(RunFindings(run.label, int(run.seed), bool(run.leaks), run.key, tables))
            found.notes.update(dict.fromkeys(_notes(probe, findings)))
    return found


def _notes(probe: Probe, findings: Mapping[str, Finding]) -> list[str]:
    overlap = findings["information"].facts["overlap"]
    shared = "the training text is not here, so what the probe shares with it was not counted"
    own = [note for finding in findings.values() for note in finding.facts["notes"]]
    return [*probe.notes, shared if overlap is None else Overlap(**overlap).sentence, *own]


def _name(run: Any) -> str:
    return f"{run.label}, seed {run.seed:g}"
