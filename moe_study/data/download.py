"""Downloads that are pinned: one file of one package version, known by its sha256 before it is fetched."""

import contextlib
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from tqdm import tqdm

from moe_study.data.locks import locked
from moe_study.errors import DataError
from moe_study.files import clear_os_errors

_BLOCK = 1 << 20
AT_ONCE = 2  # downloads: an archive serves many


@dataclass(frozen=True)
class PinnedFile:
    """One file of one version of a package, to be read as an archive and never installed."""

    requirement: str  # as the client reads it, with its version
    filename: str
    sha256: str
    size: int  # bytes

    client: ClassVar[str]

    @property
    def missing_client(self) -> str | None:
        """Says that what fetches the file is missing here."""
        raise NotImplementedError

    @property
    def advice(self) -> str:
        """What else to do where it cannot be had, as the end of a sentence."""
        return ""

    def command(self, folder: str) -> list[str]:
        """Fetches the file into `folder`."""
        raise NotImplementedError


@dataclass(frozen=True)
class Wheel(PinnedFile):
    """A wheel of the Python package index; its version is pinned with ==."""

    client = "pip"

    @property
    def missing_client(self) -> str | None:
        return None if importlib.util.find_spec("pip") else f"pip is missing from {sys.executable}"

    def command(self, folder: str) -> list[str]:
        return [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:",
                "--ignore-requires-python", "--disable-pip-version-check", "--no-input",
                "--retries=2", "--timeout=30", "--dest", folder, self.requirement]  # fmt: skip


@dataclass(frozen=True)
class NpmPackage(PinnedFile):
    """A package of the npm registry; its version is pinned with @. Packing runs no script of it."""

    client = "npm"

    @property
    def missing_client(self) -> str | None:
        return None if shutil.which("npm") else "npm (part of Node.js) is not installed"

    def command(self, folder: str) -> list[str]:
        return ["npm", "pack", "--silent", "--ignore-scripts", "--fetch-retries=2", "--no-update-notifier",
                "--cache", f"{folder}/cache", "--pack-destination", folder, self.requirement]  # fmt: skip


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


def fetch_pinned(file: PinnedFile, downloads: Path, *, progress: bool = True) -> Path:
    """The file's path under `downloads`, fetched unless it lies there, its hash checked each time.

    Raises DataError when the package index cannot be reached, when pip (or npm) is missing, or for a wrong hash.
    """
    target = downloads / file.filename
    with clear_os_errors(target, DataError):
        if not target.exists():
            with locked(downloads / f".{file.filename}.lock"):
                if not target.exists():
                    _download(file, target, progress)
    check_sha256(target, file.sha256)
    return target


def fetch_all(files: Sequence[PinnedFile], downloads: Path, *, progress: bool = True) -> None:
    """Fetch the files that are not there yet, AT_ONCE at a time; what was fetched is kept if another one fails."""
    missing = [file for file in files if not (downloads / file.filename).exists()]
    bar = tqdm(desc=f"downloading {len(missing)} packages", total=sum(file.size for file in missing), unit="B",
               unit_scale=True, disable=not (progress and missing))  # fmt: skip
    with bar, ThreadPoolExecutor(AT_ONCE) as pool:

        def fetch(file: PinnedFile) -> None:
            fetch_pinned(file, downloads, progress=False)
            bar.update(file.size)

        waiting = [pool.submit(fetch, file) for file in missing]
        try:
            for one in waiting:
                one.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _download(file: PinnedFile, target: Path, progress: bool) -> None:
    """Fetch into a temporary folder and rename, so that an interrupted download leaves nothing to trust."""
    if missing := file.missing_client:
        raise DataError(
            f"{missing}, so {file.requirement} cannot be fetched; "
            f"install {file.client} there, or put {file.filename} into {target.parent}"
        )
    prefix = f".{file.filename}-"
    for killed in target.parent.glob(f"{prefix}*"):  # nobody else is at this file: the caller holds its lock
        shutil.rmtree(killed, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=prefix, dir=target.parent) as folder:
        code, errors = _run_client(file, folder, progress)
        fetched = Path(folder) / file.filename
        if code != 0 or not fetched.exists():
            raise DataError(_download_sentence(file, target, folder, errors))
        # The hash is checked before the file takes its final name: a bad download is not kept.
        try:
            check_sha256(fetched, file.sha256)
        except DataError:
            raise DataError(
                f"the downloaded {file.filename} is not the pinned file (sha256 "
                f"{sha256_of(fetched)[:16]}..., expected {file.sha256[:16]}...) and was thrown away; "
                f"check which package index {file.client} is configured to use"
            ) from None
        os.replace(fetched, target)


def _run_client(file: PinnedFile, folder: str, progress: bool) -> tuple[int, str]:
    """Let pip or npm fetch the file into `folder`; returns its exit code and what it said on standard error."""
    bar = tqdm(desc=f"downloading {file.filename}", total=file.size, unit="B", unit_scale=True,
               disable=not progress)  # fmt: skip
    # pip's own temporary files go there too: the file that grows tells how far it is, whatever pip's version.
    process = subprocess.Popen(file.command(folder), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
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


def _download_sentence(file: PinnedFile, target: Path, folder: str, stderr: str) -> str:
    reasons = [line for line in stderr.splitlines() if line.startswith(("ERROR", "npm error"))] or stderr.splitlines()
    last = reasons[-1] if reasons else f"no {file.filename} in its answer"
    reason = last.removeprefix("ERROR:").removeprefix("npm error").strip()
    if "space left" in stderr or shutil.disk_usage(folder).free < _BLOCK:
        reason = "the disk is full"
    return (
        f"could not download {file.requirement} with {file.client} ({reason}); check the network and "
        f"{file.client}'s configuration and prepare again, or put {file.filename} into {target.parent}{file.advice}"
    )
