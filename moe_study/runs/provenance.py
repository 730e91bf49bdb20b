"""Where a result came from: the code, the versions, the machine. No torch is imported for it."""

import functools
import hashlib
import os
import platform
import socket
import subprocess
import time
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

import moe_study
from moe_study.files import read_json

PACKAGE = Path(moe_study.__file__).resolve().parent
DISTRIBUTION = "moe-study"
COPIED_FROM = "copied_from.json"  # beside a copy of the package: the code_of what was copied
TEXTS = ("commit", "diff", "version", "sources", "host", "cpu", "device", "data_fingerprint", "tokenizer_sha256")
LATEST = 1e11  # unix seconds that a calendar still has
LIBRARIES = ("torch", "numpy", "hydra-core", "omegaconf", "tokenizers", "tiktoken")


def collect() -> dict[str, Any]:
    """The code, versions, host, CPU and time, ready for JSON."""
    return {
        **code_version(),
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in LIBRARIES}},
        "host": socket.gethostname(),
        "platform": platform.platform(),
        "cpu": cpu_model(),
        "cpus": os.cpu_count(),
        "time": time.time(),
    }


@functools.cache
def code_version() -> dict[str, str | None]:
    """Which code this process runs; the same for as long as it lives, whatever becomes of the files meanwhile."""
    return code_of(PACKAGE)


def code_of(package: Path) -> dict[str, str | None]:
    """The code in the folder `package`, from its repository or, where it is an installed one, from its files.

    `commit`; `diff`, a hash of what differs from it (changes to tracked files, and untracked modules in the package;
    None: nothing); both None outside of a clone. `version` as installed (None: it is not); `sources`, a hash of all
    modules. A copy that jobs import (launch/slurm/snapshot.py) is what it was copied from.
    """
    clone = package.parent
    if (copied := read_json(clone / COPIED_FROM)) is not None:
        return copied  # type: ignore[no-any-return]
    commit = _git(clone, "rev-parse", "HEAD")
    modules = sorted(package.rglob("*.py"))
    return {
        "commit": commit.decode().strip() if commit else None,
        "diff": _changes(clone, package) if commit else None,
        "version": _version(DISTRIBUTION),
        "sources": _hash_files(modules, package),
    }


def fault_of(record: Any) -> str | None:
    """What is wrong with what a provenance.json holds; None where every field that is read has its type."""
    if not isinstance(record, dict):
        return "it holds no fields"
    for name in TEXTS:
        if not isinstance(record.get(name), str | None):
            return f"its {name} is {record[name]!r:.40}"
    versions = record.get("versions")
    if versions is not None and not (isinstance(versions, dict) and all(map(_is_text, versions.values()))):
        return f"its versions are {versions!r:.40}"
    if not (isinstance(at := record.get("time"), int | float | None) and 0 <= (at or 0) < LATEST):
        return f"its time is {at!r:.40}"
    earlier = record.get("earlier")
    if earlier is not None and not isinstance(earlier, list):
        return f"its earlier attempts are {earlier!r:.40}"
    return next((fault for attempt in earlier or () if (fault := fault_of(attempt)) is not None), None)


def _is_text(value: Any) -> bool:
    return isinstance(value, str | None)


def cpu_model() -> str:
    """What the processor calls itself."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    except (OSError, UnicodeDecodeError):
        pass
    return platform.processor() or platform.machine()


def _changes(clone: Path, package: Path) -> str | None:
    changed = _git(clone, "diff", "HEAD", "--binary") or b""
    listed = _git(clone, "ls-files", "--others", "-z", "--", str(package)) or b""
    new = [clone / name.decode(errors="surrogateescape") for name in listed.split(b"\0") if name.endswith(b".py")]
    if not changed and not new:
        return None
    return hashlib.sha256(changed + (_hash_files(new, clone).encode() if new else b"")).hexdigest()


def _hash_files(files: Iterable[Path], root: Path) -> str:
    """One hash over names and contents; a file that is gone or cannot be read counts by its name."""
    digest = hashlib.sha256()
    for file in files:
        try:
            content = hashlib.sha256(file.read_bytes()).hexdigest()
        except OSError:
            content = "unreadable"
        digest.update(f"{file.relative_to(root).as_posix()} {content}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def _git(clone: Path, *arguments: str) -> bytes | None:
    if not (clone / ".git").exists():
        return None  # an installed package: the repository around it is somebody else's
    try:
        done = subprocess.run(("git", "-C", str(clone), *arguments), capture_output=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
