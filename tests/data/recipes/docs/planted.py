"""Archives as registries serve them, made here: a few files in a wheel, a tarball or a Debian package, and an archive
of Debian packages that apt reads from a folder."""

import gzip
import hashlib
import io
import lzma
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa

Files = Mapping[str, bytes]


def tar(files: Files, links: Mapping[str, str] | None = None) -> bytes:
    """A tar stream of files, and of symbolic links by their targets."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for name, target in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            archive.addfile(info)
    return stream.getvalue()


def tarball(path: Path, files: Files, links: Mapping[str, str] | None = None) -> Path:
    """As npm packs one."""
    path.write_bytes(gzip.compress(tar(files, links), mtime=0))
    return path


def wheel(path: Path, files: Files) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return path


PACKERS = {
    "": lambda content: content,
    ".gz": lambda content: gzip.compress(content, mtime=0),
    ".xz": lzma.compress,
    ".zst": lambda content: pa.compress(content, codec="zstd", asbytes=True),
}


def deb(
    path: Path, files: Files, links: Mapping[str, str] | None = None, packed: str = ".xz", control: str = ""
) -> Path:
    """A Debian package whose files begin with ./, as dpkg-deb writes them."""
    data = PACKERS[packed](tar({f"./{name}": content for name, content in files.items()}, links))
    parts = {
        "debian-binary": b"2.0\n",
        "control.tar.gz": gzip.compress(tar({"./control": control.encode()}), mtime=0),
        f"data.tar{packed}": data,
    }
    content = b"!<arch>\n"
    for name, part in parts.items():
        content += (
            f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(part):<10}`\n".encode() + part + b"\n" * (len(part) % 2)
        )
    path.write_bytes(content)
    return path


def archive(folder: Path, packages: Mapping[str, Files], translations: Mapping[str, str]) -> Path:
    """An archive of Debian packages of version 1.0 in `folder`; returns a folder like /etc/apt that names it."""
    dist, pool = folder / "dists" / "stable", folder / "pool"
    (dist / "main" / "binary-amd64").mkdir(parents=True, exist_ok=True)
    (dist / "main" / "i18n").mkdir(exist_ok=True)
    pool.mkdir(exist_ok=True)
    records = []
    for name, files in packages.items():
        fields = f"Package: {name}\nSource: {name.split('-')[0]}\nVersion: 1:1.0\nArchitecture: all\nMaintainer: a\n"
        made = deb(pool / f"{name}_1.0_all.deb", files, control=fields + "Description: x\n").read_bytes()
        records.append(
            f"{fields}Filename: pool/{name}_1.0_all.deb\nSize: {len(made)}\n"
            f"SHA256: {hashlib.sha256(made).hexdigest()}\n"
            f"Description: {name}\nDescription-md5: {hashlib.md5(name.encode()).hexdigest()}\n"
        )
    (dist / "main" / "binary-amd64" / "Packages").write_text("\n".join(records))
    for language, content in translations.items():
        (dist / "main" / "i18n" / f"Translation-{language}").write_text(content, encoding="utf-8")
    lists = [path for path in sorted(dist.rglob("*")) if path.is_file() and path.name != "Release"]
    hashes = [f" {hashlib.sha256(p.read_bytes()).hexdigest()} {p.stat().st_size} {p.relative_to(dist)}" for p in lists]
    (dist / "Release").write_text("Suite: stable\nComponents: main\nSHA256:\n" + "\n".join(hashes) + "\n")
    configured = folder / "apt"
    (configured / "sources.list.d").mkdir(parents=True, exist_ok=True)
    line = f"deb [trusted=yes arch=amd64] copy:{folder} stable main\n"
    (configured / "sources.list.d" / "planted.list").write_text(line)
    return configured
