"""Routes over training: what the experts did with a fixed probe after some steps of a run (log.trace_every).

    RUN/routes/step-00000000.npz, step-00000200.npz, ...

The probe is a slice of the run's own validation set, the same at every step: windows of model.context tokens, evenly
spread over the text and read exactly as evaluation reads them. A window counts as a document; language and topic are
its labels. The probe is named "validation" and known by what its tokens and labels are.

A file is a whole trace (traces.py) of that probe: its arrays under the names of a trace's files, uncompressed, and its
manifest (JSON in bytes) under `manifest`, where "step" and "trained" (tokens trained on by then) stand beside what
every trace has. It is written whole or not at all; its bytes are a function of the run and the step. All files of a run
are of one probe. A dense run has none.

    for trace in all_routes(folder.routes_folder):       # by step
        LayerTrace(**trace.layer(trace.layers[0]))       # analysis/specialisation
"""

import contextlib
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from moe_study.errors import DataError
from moe_study.files import atomic_file
from moe_study.runs.growing_arrays import Array, GrowingArray
from moe_study.runs.traces import FORMAT, MANIFEST, Trace, TraceIdentity, TraceWriter, fits_together

PROBE = "validation"
NAME = re.compile(r"step-(\d{8,})\.npz")
ENTRY = MANIFEST.removesuffix(".json")


class StepTrace(Trace):
    """The routes after `step` steps, when `trained` tokens had been trained on; read as any other trace."""

    def __init__(self, path: Path, manifest: dict[str, Any], arrays: dict[str, Array]) -> None:
        super().__init__(path, manifest)
        self._arrays = arrays
        self.step: int = manifest["step"]
        self.trained: int = manifest["trained"]

    def read(self, name: str) -> Array:
        return self._arrays[name]


def steps_of(routes: Path) -> list[int]:
    """Steps after which routes were kept in that folder, in order; none where it is missing."""
    found = (NAME.fullmatch(path.name) for path in routes.glob("step-*.npz"))
    return sorted(int(match[1]) for match in found if match)


def all_routes(routes: Path) -> Iterator[StepTrace]:
    """What was kept, by step. DataError where a file cannot be read."""
    for step in steps_of(routes):
        yield read_routes(routes, step)


def read_routes(routes: Path, step: int) -> StepTrace:
    """What was kept after `step` steps. DataError where it cannot be read."""
    path = _path(routes, step)
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = dict(stored)
        manifest = json.loads(bytes(arrays.pop(ENTRY)))
        if manifest["format"] != FORMAT:
            raise DataError(f"{path} was written by another version of moe_study; delete it, or train the run again")
        trace = StepTrace(path, manifest, arrays)
        if not fits_together(trace):
            raise ValueError("its arrays do not fit together")
        return trace
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} is damaged; delete it: the other steps are of use without it") from error


@contextlib.contextmanager
def write_routes(routes: Path, run: str, fingerprint: str, step: int, trained: int) -> Iterator[TraceWriter]:
    """Write the routes after `step` steps of `run` on the probe of that fingerprint, in the place of older ones.

    The file appears when the block ends without an error.
    """
    arrays: dict[str, GrowingArray] = {}

    def new_array(name: str, dtype: np.dtype[Any]) -> GrowingArray:
        arrays[name] = GrowingArray(dtype)
        return arrays[name]

    writer = TraceWriter(TraceIdentity(run, None, PROBE, fingerprint), new_array)
    yield writer
    manifest = {**writer.finish(), "step": step, "trained": trained}
    kept = {name: array.values() for name, array in arrays.items() if name in manifest["files"]}
    entry = np.frombuffer(json.dumps(manifest, ensure_ascii=False).encode(), np.uint8)
    with atomic_file(_path(routes, step), DataError) as handle:
        np.savez(handle, allow_pickle=False, **{ENTRY: entry}, **kept)


def drop_routes(routes: Path, after: int, other_than: str | None = None) -> None:
    """Forget routes of steps later than `after`, and those on another probe than the one of that fingerprint."""
    for step in steps_of(routes):
        if step > after or (other_than is not None and _fingerprint(routes, step) != other_than):
            _path(routes, step).unlink()


def _fingerprint(routes: Path, step: int) -> str | None:
    try:
        fingerprint: str = read_routes(routes, step).manifest["identity"]["probe_fingerprint"]
        return fingerprint
    except DataError:  # damaged, or of another version
        return None


def _path(routes: Path, step: int) -> Path:
    return routes / f"step-{step:08d}.npz"
