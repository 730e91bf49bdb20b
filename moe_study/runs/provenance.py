"""Where a result came from: the code, the versions, the machine. No torch is imported for it."""

import functools
import hashlib
import os
import platform
import socket
import subprocess
import time
from importlib import metadata
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[2]
PACKAGES = ("torch", "numpy", "hydra-core", "omegaconf", "tokenizers", "tiktoken")


def collect() -> dict[str, Any]:
    """Commit, hash of what differs from it, versions, host and time, ready for JSON."""
    return {
        **code_version(),
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
        "host": socket.gethostname(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "time": time.time(),
    }


@functools.cache
def code_version() -> dict[str, str | None]:
    """`commit`, and `diff`: a hash of the changes to tracked files (None: no changes); both None without git."""
    commit = _git("rev-parse", "HEAD")
    diff = _git("diff", "HEAD", "--binary") if commit else None
    return {
        "commit": commit.decode().strip() if commit else None,
        "diff": hashlib.sha256(diff).hexdigest() if diff else None,
    }


def _git(*arguments: str) -> bytes | None:
    if not (PROJECT / ".git").exists():
        return None  # an installed package: the repository around it is somebody else's
    try:
        done = subprocess.run(("git", "-C", str(PROJECT), *arguments), capture_output=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
