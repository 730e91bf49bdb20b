"""Which traces of a study's runs are kept something of: those of one probe, as most runs have it."""

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

from moe_study.analysis.frame import done
from moe_study.analysis.study import Study
from moe_study.runs.folder import RunFolder
from moe_study.runs.traces import Trace, all_traces

TraceOf = Callable[[Path], Trace | None]  # the trace of a run's folder, if it has one
Identity = tuple[str, str]  # name and fingerprint of a probe


def traces_by_probe(study: Study) -> dict[str, TraceOf]:
    """For every probe that more than half of the finished runs have the same trace of, the trace of each run.

    Of several of one probe (of more and of fewer tokens) the one that most runs have counts, then the largest.
    """
    folders = [Path(path) for part in study.parts for path in done(part.frame)["folder"]]
    traces = {path: list(all_traces(RunFolder(path).traces_folder)) for path in folders}
    held = Counter(_identity(trace) for own in traces.values() for trace in own)
    size = {_identity(trace): len(trace.token_T) for own in traces.values() for trace in own}
    best: dict[str, Identity] = {}
    for identity in sorted(held, key=lambda one: (held[one], size[one])):
        if 2 * held[identity] > len(traces):
            best[identity[0]] = identity
    return {probe: _chosen(traces, identity) for probe, identity in sorted(best.items())}


def _identity(trace: Trace) -> Identity:
    identity = trace.manifest["identity"]
    return identity["probe"], identity["probe_fingerprint"]


def _chosen(traces: Mapping[Path, list[Trace]], wanted: Identity) -> TraceOf:
    return lambda path: next((trace for trace in traces[path] if _identity(trace) == wanted), None)
