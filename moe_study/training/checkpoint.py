"""Saving a run so that it can go on to the last bit, and reading a trained model back.

`checkpoint/step-00000100.pt` holds everything that step 101 depends on; the newest two are kept, so that a
damaged one costs only the steps since the one before. When training ends, `checkpoint/final.pt` (the same
without the optimizer) takes their place.
"""

import contextlib
import hashlib
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch

from moe_study.errors import DataError, StudyError
from moe_study.files import atomic_file

FORMAT = 1
FINAL = "final.pt"
_STEP_NAME = re.compile(r"step-(\d+)\.pt")


def step_path(folder: Path, step: int) -> Path:
    return folder / f"step-{step:08d}.pt"


def step_checkpoints(folder: Path) -> list[Path]:
    """Checkpoints from the newest to the oldest, by the number in the name and not by its letters."""
    found = [(int(match[1]), path) for path in folder.glob("*.pt") if (match := _STEP_NAME.fullmatch(path.name))]
    return [path for _, path in sorted(found, reverse=True)]


def save(folder: Path, state: dict[str, Any], *, keep: int = 2) -> Path:
    """Write `state` under its "step", whole or not at all, then delete all but the newest `keep`."""
    path = step_path(folder, state["step"])
    _write(path, state)
    for old in step_checkpoints(folder)[max(1, keep) :]:
        old.unlink(missing_ok=True)
    return path


def save_final(folder: Path, state: dict[str, Any]) -> Path:
    """Write the finished model with its counters, without the optimizer."""
    path = folder / FINAL
    _write(path, {name: value for name, value in state.items() if name != "optimizer"})
    return path


def delete_steps(folder: Path) -> None:
    """Delete the checkpoints that a finished run no longer needs."""
    for path in step_checkpoints(folder):
        path.unlink(missing_ok=True)


def load_newest(folder: Path, *, key: str | None = None, fingerprint: str | None = None) -> dict[str, Any] | None:
    """The newest whole checkpoint, on the CPU; None if there is none. The final one counts as the newest.

    A damaged file is passed over with a warning. A whole one of another run (`key`) or of other data
    (`fingerprint`) raises, because training on would mix two experiments.
    """
    for path in [folder / FINAL, *step_checkpoints(folder)]:
        if not path.exists():
            continue
        try:
            state = _read(path)
        except Exception as error:  # whatever a damaged file makes torch or zipfile raise
            warnings.warn(f"checkpoint {path} is damaged ({error}); trying the one before", stacklevel=2)
            continue
        _check(path, state, key, fingerprint)
        return state
    return None


def fingerprint_of_newest(folder: Path) -> str | None:
    """Stands for the content of the newest checkpoint, from the checksums of its parts; None if there is none.

    Cheap: reads the archive's directory alone, so a damaged part is not seen, and is not the newest to `load_newest`.
    """
    for path in [folder / FINAL, *step_checkpoints(folder)]:
        with contextlib.suppress(OSError, zipfile.BadZipFile), zipfile.ZipFile(path) as archive:
            parts = [(part.filename.partition("/")[2], part.CRC, part.file_size) for part in archive.infolist()]
            return hashlib.sha256(repr(parts).encode()).hexdigest()
    return None


def random_states() -> dict[str, Any]:
    """States of every generator of torch: the CPU's and each GPU's."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {"cpu": torch.get_rng_state(), "cuda": cuda}


def restore_random_states(states: dict[str, Any]) -> None:
    """Set the generators; the GPUs' only where there are as many as when saving."""
    torch.set_rng_state(states["cpu"])
    if states["cuda"] and torch.cuda.is_available() and torch.cuda.device_count() == len(states["cuda"]):
        torch.cuda.set_rng_state_all(states["cuda"])


def _write(path: Path, state: dict[str, Any]) -> None:
    with atomic_file(path) as handle:
        try:
            torch.save({"format": FORMAT, **state}, handle)
        except RuntimeError as error:
            if isinstance(error.__context__, OSError):  # torch hides a full disk behind an error of its own
                raise error.__context__ from None
            raise


def _read(path: Path) -> dict[str, Any]:
    with zipfile.ZipFile(path) as archive:  # torch itself does not compare the checksums of a file's parts
        if (bad := archive.testzip()) is not None:
            raise ValueError(f"wrong checksum in {bad}")
    state = torch.load(path, map_location="cpu", weights_only=True)
    if state["format"] != FORMAT:
        raise ValueError(f"format {state['format']} instead of {FORMAT}")
    return state


def _check(path: Path, state: dict[str, Any], key: str | None, fingerprint: str | None) -> None:
    if key is not None and state["key"] != key:
        raise StudyError(
            f"{path} belongs to run {state['key']}, not to {key}; move it away or give this run its own folder"
        )
    if fingerprint is not None and state["data_fingerprint"] != fingerprint:
        raise DataError(
            f"the prepared data changed since {path} was saved; prepare the same data again, or remove the run"
            f" (moe-study remove {path.parents[1]}) to train it on the new data"
        )
