"""Measured audits kept as small files, for the runs of a sweep that are one point when made small.

A file is named after all that its measurement depends on: the small configuration, the number of trials, the
version of torch, and the source of this package's model, design and audit. Any change there measures anew.
"""

import contextlib
import dataclasses
import functools
import hashlib
import json
from pathlib import Path
from typing import Any

import torch

from moe_study.audit.measure import Finding, Measured
from moe_study.files import write_json_atomic

PACKAGE = Path(__file__).resolve().parent.parent
SOURCES = ("audit", "design", "model")


class AuditCache:
    """The audits kept in `folder`, which need not exist."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, small_key: str, trials: int) -> Measured | None:
        """What was measured; None where nothing is kept, or nothing that can be read."""
        try:
            return _measured(json.loads(self._path(small_key, trials).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError, AttributeError, KeyError):  # not there, or damaged
            return None

    def write(self, small_key: str, trials: int, measured: Measured) -> None:
        """Keep what was measured, unless a number in it is not finite."""
        with contextlib.suppress(ValueError):
            write_json_atomic(self._path(small_key, trials), dataclasses.asdict(measured))

    def _path(self, small_key: str, trials: int) -> Path:
        depends_on = f"{small_key} {trials} {torch.__version__} {source_hash()}"
        return self.folder / f"{hashlib.sha256(depends_on.encode()).hexdigest()[:16]}.json"


@functools.cache
def source_hash() -> str:
    """Of every source file that decides what an audit measures; two milliseconds."""
    digest = hashlib.sha256()
    for source in SOURCES:
        path = PACKAGE / source
        for file in [path] if path.is_file() else sorted(path.rglob("*.py")):
            digest.update(f"{file.relative_to(PACKAGE)}\0".encode() + file.read_bytes())
    return digest.hexdigest()


def _measured(plain: Any) -> Measured:
    findings = {name: Finding(**value) for name, value in plain.items() if name != "trials"}
    return Measured(**findings, trials=plain["trials"])
