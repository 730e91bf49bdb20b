"""On what and of what a figure was measured: the machine's name and the code's commit."""

import hashlib
import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parent.parent
CHANGED = "+changes"  # behind a commit's hash: files differ from it
COMMIT_VARIABLE = "MOE_STUDY_COMMIT"  # names the commit where the code lies without its repository


def environment(device: torch.device | str = "cpu") -> dict[str, Any]:
    """What the figures were measured on."""
    found = {
        "torch": torch.__version__,
        "processor": _processor(),
        "cores": os.cpu_count(),
        "system": platform.platform(terse=True),
    }
    if torch.device(device).type == "cuda":
        found |= {"gpu": torch.cuda.get_device_name(device), "cuda": torch.version.cuda}
    return found


def machine_name(device: torch.device | str) -> str:
    """The machine's name as a folder: "nvidia-h200", "cpu-amd-epyc-2-cores"."""
    if torch.device(device).type == "cuda":
        return _slug(torch.cuda.get_device_name(device))
    return _slug(f"cpu {_processor()} {os.cpu_count()} cores")


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def code_under_test() -> tuple[str, str | None]:
    """Name of the commit, and a hash of what differs from it, results and documents apart (None: nothing)."""
    commit = _git("rev-parse", "--short=10", "HEAD")
    if commit is None:
        return os.environ.get(COMMIT_VARIABLE, "unknown"), None
    changes = _git("diff", "HEAD", "--binary", "--", ".", ":!bench/results", ":!docs")
    if not changes:
        return commit.strip(), None
    return commit.strip() + CHANGED, hashlib.sha256(changes.encode()).hexdigest()


def _git(*arguments: str) -> str | None:
    if not (ROOT / ".git").exists():
        return None  # a repository around this folder would be somebody else's
    try:
        done = subprocess.run(("git", "-C", str(ROOT), *arguments), capture_output=True, text=True, errors="replace")
    except OSError:
        return None
    return done.stdout if done.returncode == 0 else None
