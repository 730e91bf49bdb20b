"""Members of packages: wheels, tarballs and Debian packages, read one after another and never unpacked.

Nothing is written to a disk and no link is followed, so no name in an archive leads anywhere: a member that is not a
plain file, or whose name points upwards, is left out. What unpacks to more than the limits is refused.
"""

import bz2
import gzip
import io
import lzma
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NamedTuple, Protocol, cast

from moe_study.data.tally import Tally
from moe_study.errors import DataError

ODD_NAME = "in archives, with names that lead out of them"
NO_FILE = "in archives, wanted by name but links or devices"
_AR_MAGIC, _AR_HEADER = b"!<arch>\n", 60
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Limits:
    """Bytes and numbers beyond which an archive is refused."""

    member: int = 64 << 20  # of one member
    total: int = 4 << 30  # of all of it
    ratio: int = 250  # unpacked over packed; documentation has up to 40
    members: int = 500_000


class _Stream(Protocol):
    """What is read from front to back."""

    def read(self, size: int = ..., /) -> bytes: ...


class Member(NamedTuple):
    """One file in an archive."""

    name: str  # no leading ./ or /
    content: bytes


LIMITS = Limits()


def members(
    path: Path, wanted: Callable[[str], bool], limits: Limits = LIMITS, tally: Tally | None = None
) -> Iterator[Member]:
    """The plain files of a .whl, .zip, .tar.gz, .tgz or .deb whose names are wanted, in the archive's order.

    DataError names the archive if it is damaged, cut short, or larger inside than `limits`.
    """
    tally = tally if tally is not None else Tally()
    with _clear_errors(path):
        if path.name.endswith((".whl", ".zip")):
            yield from _zip_members(path, wanted, limits, tally)
        elif path.name.endswith((".tgz", ".tar.gz")):
            with open(path, "rb") as handle:
                yield from _tar_members(gzip.GzipFile(fileobj=handle), path, wanted, limits, tally)
        elif path.name.endswith(".deb"):
            with open(path, "rb") as handle:
                yield from _tar_members(_deb_data(handle, path), path, wanted, limits, tally)
        else:
            raise DataError(f"{path} is no archive that can be read; give .whl, .zip, .tgz, .tar.gz or .deb")


def unpack_gzip(content: bytes, limits: Limits = LIMITS) -> bytes:
    """What a compressed member holds; DataError beyond the limits or where it is damaged."""
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(content)) as stream:
            unpacked = stream.read(limits.member + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"a compressed member is damaged ({error})") from None
    if len(unpacked) > limits.member:
        raise DataError(f"a compressed member holds more than {limits.member:,} bytes")
    return unpacked


@contextmanager
def _clear_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (zipfile.BadZipFile, tarfile.TarError, lzma.LZMAError, zlib.error, EOFError, NotImplementedError) as error:
        raise DataError(
            f"{path} is damaged or cut short ({error or type(error).__name__}); delete it and prepare again"
        ) from None
    except OSError as error:
        if error.errno is not None:  # of the disk, not of what the file says
            raise
        raise DataError(f"{path} is damaged or cut short ({error}); delete it and prepare again") from None
    except DataError as error:
        message = str(error)
        raise error if str(path) in message else DataError(f"{path}: {message}") from None


def _safe_name(name: str, tally: Tally) -> str | None:
    """The name without what stands for "here"; None where it leads elsewhere."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts or "\\" in name or "\0" in name or name.startswith("/"):
        tally.leave_out(ODD_NAME, name[:80])
        return None
    return "/".join(parts)


# Zip files ---------------------------------------------------------------------------------------------------


def _zip_members(path: Path, wanted: Callable[[str], bool], limits: Limits, tally: Tally) -> Iterator[Member]:
    budget = _Budget(path, path.stat().st_size, limits)
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            budget.count_member()
            name = _safe_name(info.filename, tally)
            if not name or info.is_dir() or not wanted(name):
                continue
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind not in (0, stat.S_IFREG):
                tally.leave_out(NO_FILE, name[:80])
                continue
            with archive.open(info) as stream:  # a header may lie about the size: what comes out is counted
                content = stream.read(limits.member + 1)
            budget.check_member(name, len(content))
            budget.spend(len(content))
            yield Member(name, content)


# Tar streams -------------------------------------------------------------------------------------------------


def _tar_members(
    stream: _Stream, path: Path, wanted: Callable[[str], bool], limits: Limits, tally: Tally
) -> Iterator[Member]:
    budget = _Budget(path, path.stat().st_size, limits)
    with tarfile.open(fileobj=cast("IO[bytes]", _Counted(stream, budget)), mode="r|") as archive:
        for info in archive:
            archive.members = []  # type: ignore[attr-defined]  # a stream's past is of no use
            budget.count_member()
            name = _safe_name(info.name.removeprefix("./"), tally)
            if not name or not wanted(name):
                continue
            if not info.isfile():
                if not info.isdir():
                    tally.leave_out(NO_FILE, name[:80])
                continue
            budget.check_member(name, info.size)
            source = archive.extractfile(info)
            assert source is not None  # a file
            yield Member(name, source.read())


class _Counted(io.RawIOBase):
    """Reads from `stream` what a budget allows."""

    def __init__(self, stream: _Stream, budget: "_Budget") -> None:
        self._stream, self._budget = stream, budget

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        block = self._stream.read(_BLOCK if size < 0 else min(size, _BLOCK))
        self._budget.spend(len(block))
        return block


class _Budget:
    """What may still come out of an archive."""

    def __init__(self, path: Path, packed: int, limits: Limits) -> None:
        self._path, self._limits = path, limits
        self._most = min(limits.total, max(limits.member, packed * limits.ratio))
        self._bytes = self._members = 0

    def spend(self, size: int) -> None:
        self._bytes += size
        if self._bytes > self._most:
            raise DataError(f"{self._path} unpacks to more than {self._most:,} bytes; it is not what it should be")

    def count_member(self) -> None:
        self._members += 1
        if self._members > self._limits.members:
            raise DataError(f"{self._path} has more than {self._limits.members:,} members; it is not what it should be")

    def check_member(self, name: str, size: int) -> None:
        if size > self._limits.member:
            raise DataError(
                f"{self._path}: {name} holds more than {self._limits.member:,} bytes; it is not what it should be"
            )


# Debian packages ---------------------------------------------------------------------------------------------


def _deb_data(handle: IO[bytes], path: Path) -> _Stream:
    """The tar stream with a Debian package's files: the member data.tar.* of its ar archive (deb(5))."""
    if handle.read(len(_AR_MAGIC)) != _AR_MAGIC:
        raise DataError(f"{path} is not a Debian package; delete it and prepare again")
    end = path.stat().st_size
    while len(header := handle.read(_AR_HEADER)) == _AR_HEADER:
        name, size = header[:16].decode("latin-1").rstrip().rstrip("/"), header[48:58].decode("latin-1").strip()
        start = handle.tell()
        if not size.isdigit() or header[58:] != b"`\n" or start + int(size) > end:
            break
        if name.startswith("data.tar"):
            return _decompressed(name.removeprefix("data.tar"), _Slice(handle, int(size)), path)
        handle.seek(start + int(size) + int(size) % 2)
    raise DataError(f"{path} is damaged or cut short (no data.tar in it); delete it and prepare again")


def _decompressed(suffix: str, packed: "_Slice", path: Path) -> _Stream:
    if suffix == "":
        return io.BufferedReader(packed)
    if suffix == ".gz":
        return gzip.GzipFile(fileobj=packed)
    if suffix == ".xz":
        return lzma.LZMAFile(cast("IO[bytes]", packed))
    if suffix == ".bz2":
        return bz2.BZ2File(cast("IO[bytes]", packed))
    if suffix == ".zst":
        import pyarrow as pa  # Python reads it from 3.14 on

        stream: _Stream = pa.CompressedInputStream(pa.PythonFile(packed, "r"), "zstd")
        return stream
    raise DataError(f"{path} holds data.tar{suffix}, which this version cannot read")


class _Slice(io.RawIOBase):
    """The next `size` bytes of a file, as a file."""

    def __init__(self, handle: IO[bytes], size: int) -> None:
        self._handle, self._left = handle, size

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        block = self._handle.read(self._left if size < 0 else min(size, self._left))
        self._left -= len(block)
        return block

    def readinto(self, buffer: "bytearray | memoryview") -> int:  # type: ignore[override]
        block = self.read(len(buffer))
        buffer[: len(block)] = block
        return len(block)
