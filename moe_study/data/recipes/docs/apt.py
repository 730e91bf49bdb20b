"""Debian's packages and lists, by apt in a root of its own: nothing is installed, and nobody's apt is touched.

The lists are fetched once, from the archives that this machine's apt is set up with, and stay until their folder is
deleted: they say which versions there are, and what each file's sha256 is, which apt has checked against the archive's
signature. So a preparation that was killed resumes with the versions that it began with.
"""

import re
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from moe_study.data.download import PinnedFile, sha256_of
from moe_study.data.locks import locked
from moe_study.errors import DataError, StudyError
from moe_study.files import read_json, write_bytes_atomic, write_json_atomic, write_text_atomic

CONFIGURED = Path("/etc/apt")
_COMPONENT = "non-free"  # where documentation lies whose licence forbids changes to parts of it: the standards, GNU's
_MARK = "updated.json"


@dataclass(frozen=True)
class DebianPackage(PinnedFile):
    """One version of a package in the lists of an apt root, which name its sha256."""

    configuration: Path = Path()  # the root's
    source: str = ""  # the source package that it was built from

    client: ClassVar[str] = "apt-get"

    @property
    def missing_client(self) -> str | None:
        return None if shutil.which("apt-get") else "apt-get (of Debian and its relatives) is not installed"

    @property
    def advice(self) -> str:
        return f"; if its archive has a newer version by now, delete {self.configuration.parent} to take it"

    def command(self, folder: str) -> list[str]:
        # apt-get downloads to where it is called.
        return ["env", "-C", folder, "apt-get", "--quiet=2", "-c", str(self.configuration),
                "-o", "Acquire::Retries=3", "download", self.requirement]  # fmt: skip


class AptRoot:
    """Lists of packages and translations in a folder, and the packages that they name.

    folder      made if need be; deleting it takes newer lists the next time
    locales     whose translations of descriptions are fetched, as de or zh_CN
    configured  where the archives to ask are named
    """

    def __init__(self, folder: Path, locales: Iterable[str], configured: Path = CONFIGURED) -> None:
        self.folder = folder.resolve()
        self._locales = tuple(locales)
        self._configured = configured
        self.configuration = self.folder / "apt.conf"

    def update(self) -> None:
        """Fetch the lists, unless they are there and whole; DataError where they cannot be had."""
        if not shutil.which("apt-get"):
            raise DataError(
                "apt-get is not installed, so Debian's documentation cannot be fetched; prepare this corpus on Debian "
                "or a relative of it (a container will do) and copy its folder, or choose another data="
            )
        with locked(self.folder / ".lock"):
            self._configure()
            if not self._is_whole():
                shutil.rmtree(self.folder / "lists")  # apt would keep a damaged one whose archive did not change
                (self.folder / "lists" / "partial").mkdir(parents=True)
                self._run("apt-get", "--quiet=2", "-o", "Acquire::Retries=3", "update")
                found = self._lists()
                if not found:
                    raise DataError(f"apt found no list of packages; check the archives that {self._configured} names")
                write_json_atomic(self.folder / _MARK, {str(path.name): sha256_of(path) for path in found})

    def fingerprint(self) -> dict[str, str]:
        """Names and sha256 of the lists, as they were fetched."""
        return dict(read_json(self.folder / _MARK) or {})

    def packages(self, patterns: Iterable[str]) -> dict[str, DebianPackage]:
        """For each pattern the package whose whole name fits it, in the newest version; those without one are missing.

        Where several names fit, as linux-doc-6.1 and linux-doc-6.12, it is the last by its numbers.
        """
        names = self._run("apt-cache", "pkgnames").split()
        chosen: dict[str, str] = {}
        for pattern in patterns:
            if fitting := [name for name in names if re.fullmatch(pattern, name)]:
                chosen[pattern] = max(fitting, key=_by_numbers)
        found = self._shown(set(chosen.values()))
        return {pattern: found[name] for pattern, name in chosen.items() if name in found}

    def sources(self) -> dict[str, str]:
        """The source package of every package."""
        found: dict[str, str] = {}
        for path in self._targets("Packages"):
            package = ""
            with open(path, encoding="utf-8", errors="replace") as handle:
                for line in handle:
                    if line.startswith("Package: "):
                        package = line[9:].strip()
                        found.setdefault(package, package)
                    elif line.startswith("Source: ") and found.get(package) == package:
                        found[package] = line[8:].split()[0]
        return found

    def descriptions(self, locale: str) -> list[Path]:
        """The lists of descriptions in that language."""
        return self._targets("Translations", f"Language: {locale}")

    # -----------------------------------------------------------------------------------------------------------

    def _shown(self, names: Iterable[str]) -> dict[str, DebianPackage]:
        asked = sorted(names)
        if not asked:
            return {}
        found: dict[str, DebianPackage] = {}
        for record in self._run("apt-cache", "show", "--no-all-versions", *asked).split("\n\n"):
            fields: dict[str, str] = dict(re.findall(r"^([A-Za-z0-9-]+): (.*)$", record, re.MULTILINE))
            if not {"Package", "Version", "Architecture", "SHA256", "Size"} <= fields.keys():
                continue
            name, version = fields["Package"], fields["Version"]
            found[name] = DebianPackage(
                requirement=f"{name}={version}",
                filename=f"{name}_{version.replace(':', '%3a')}_{fields['Architecture']}.deb",
                sha256=fields["SHA256"],
                size=int(fields["Size"]),
                configuration=self.configuration,
                source=fields.get("Source", name).split()[0],
            )
        return found

    def _configure(self) -> None:
        """Write the root's configuration, in which nothing but the archives' addresses and keys is this machine's."""
        if '"' in str(self.folder):
            raise DataError(
                f"apt cannot work in {self.folder}, whose name holds a quotation mark; choose another data.root"
            )
        for folder in ("lists/partial", "cache/archives/partial", "archives"):
            (self.folder / folder).mkdir(parents=True, exist_ok=True)
        shutil.rmtree(self.folder / "archives")
        for path in [self._configured / "sources.list", *sorted((self._configured / "sources.list.d").glob("*"))]:
            if path.suffix in (".list", ".sources") and path.is_file():
                content = with_component(path.read_text(encoding="utf-8"), path.suffix == ".sources")
                write_text_atomic(self.folder / "archives" / path.name, content)
        write_bytes_atomic(self.folder / "status", b"")  # nothing is installed here
        locales = " ".join(f'"{locale}";' for locale in self._locales)
        write_text_atomic(
            self.configuration,
            "\n".join(
                [
                    "#clear APT::Update;",  # another's hooks
                    "#clear DPkg;",
                    "#clear Acquire::Languages;",
                    f"Acquire::Languages {{ {locales} }};",
                    'Acquire::GzipIndexes "false";',
                    f'Dir::State::lists "{self.folder}/lists";',
                    f'Dir::State::status "{self.folder}/status";',
                    f'Dir::Cache "{self.folder}/cache";',
                    'Dir::Cache::pkgcache "packages.bin";',
                    'Dir::Cache::srcpkgcache "";',
                    'Dir::Etc::sourcelist "-";',
                    f'Dir::Etc::sourceparts "{self.folder}/archives";',
                    'APT::Sandbox::User "";',
                    "",
                ]
            ),
        )

    def _is_whole(self) -> bool:
        try:
            known = self.fingerprint()
            return bool(known) and all(
                sha256_of(self.folder / "lists" / name) == expected for name, expected in known.items()
            )
        except (OSError, StudyError):
            return False

    def _lists(self) -> list[Path]:
        return [*self._targets("Packages"), *self._targets("Translations")]

    def _targets(self, created_by: str, *more: str) -> list[Path]:
        said = self._run("apt-get", "indextargets", "--format", "$(FILENAME)", f"Created-By: {created_by}", *more)
        return [path for path in map(Path, said.splitlines()) if path.exists()]

    def _run(self, program: str, *arguments: str) -> str:
        command = [program, "-c", str(self.configuration), *arguments]
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8", errors="replace"
        )
        if done.returncode != 0:
            reasons = [line for line in done.stderr.splitlines() if line.startswith("E:")] or done.stderr.splitlines()
            reason = reasons[-1].removeprefix("E:").strip() if reasons else f"exit status {done.returncode}"
            raise DataError(
                f"{program} {arguments[-1] if arguments else ''} failed ({reason}); check the network and the archives "
                f"that {self._configured} names, and prepare again"
            )
        return done.stdout


def with_component(content: str, is_stanzas: bool) -> str:
    """A list of archives that also asks for documentation that is not free, where it asks for main."""
    lines = []
    for line in content.splitlines():
        words = line.split()
        asks = words[:1] == ["Components:"] if is_stanzas else words[:1] == ["deb"]
        if asks and "main" in words and _COMPONENT not in words:
            line = f"{line.split(' #')[0].rstrip()} {_COMPONENT}"
        lines.append(line)
    return "\n".join(lines) + "\n"


def _by_numbers(name: str) -> list[tuple[int, int | str]]:
    parts = re.split(r"(\d+)", name)
    return [(1, int(part)) if part.isdigit() else (0, part) for part in parts]
