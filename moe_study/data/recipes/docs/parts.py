"""What was extracted of each package, kept beside the downloads: a preparation that was killed does not read it again.

    downloads/extracted/NAME-KEY.parquet   works: name, language, paragraphs
    downloads/extracted/NAME-KEY.json      its sha256, the package's licence, and what was left out; written last

KEY stands for the archive's sha256, the way it was read, and the version of the code that reads it. A part whose hash
is not what was written down is made again.
"""

import dataclasses
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from moe_study.data.download import sha256_of
from moe_study.data.recipes.docs.extract import VERSIONS, Extract, Work
from moe_study.data.recipes.docs.sources import Family
from moe_study.data.tally import LeftOut, Tally
from moe_study.errors import DataError, StudyError
from moe_study.files import atomic_file, read_json, write_json_atomic

_SCHEMA = pa.schema({"work": pa.string(), "language": pa.string(), "paragraphs": pa.list_(pa.string())})


@dataclass(frozen=True)
class Part:
    """A package's works on disk."""

    content: Path
    record: dict[str, Any]

    @property
    def licence(self) -> str:
        return str(self.record["licence"])

    def works(self, language: str) -> Iterator[Work]:
        """Its works in that language, in the order of their files."""
        table = pq.read_table(self.content, filters=[("language", "==", language)])
        names, paragraphs = table["work"].to_pylist(), table["paragraphs"]
        for row, name in enumerate(names):
            yield Work(name, language, paragraphs[row].as_py())

    def tell(self, tally: Tally) -> None:
        """Add what was read and left out to a preparation's tally."""
        tally.files += self.record["files"]
        for reason, entry in self.record["left_out"].items():
            known = tally.left_out.setdefault(reason, LeftOut())
            known.count += entry["count"]
            known.examples += entry["examples"][: max(0, 3 - len(known.examples))]


def part_path(folder: Path, filename: str, sha256: str, family: Family) -> Path:
    """Where the part of a package lies that has this hash."""
    read = [sha256, VERSIONS[family.reader], family.name, family.files, family.reader]
    key = hashlib.sha256("\0".join(map(str, read)).encode()).hexdigest()
    return folder / f"{filename}-{key[:16]}.parquet"


def kept(path: Path) -> Part | None:
    """The part at `path` if it is whole."""
    try:
        record = read_json(path.with_suffix(".json"))
        whole = record is not None and sha256_of(path) == record["sha256"]
    except (OSError, StudyError, KeyError, TypeError):
        return None
    return Part(path, record) if whole else None


def keep(path: Path, made: Extract) -> Part:
    """Write a part; its record comes last and stands for the whole."""
    table = pa.table(
        [
            pa.array([work.name for work in made.works], pa.string()),
            pa.array([work.language for work in made.works], pa.string()),
            pa.array([work.paragraphs for work in made.works], pa.list_(pa.string())),
        ],
        schema=_SCHEMA,
    )
    with atomic_file(path, DataError) as handle:
        pq.write_table(table, handle, compression="zstd")
    tally = made.tally
    left_out = {reason: dataclasses.asdict(entry) for reason, entry in tally.left_out.items()}
    record = {"sha256": sha256_of(path), "licence": made.licence, "files": tally.files, "left_out": left_out}
    write_json_atomic(path.with_suffix(".json"), record)
    return Part(path, record)


def part_of(path: Path, make: Callable[[], Extract]) -> Part:
    """The part at `path`, made unless it lies there whole."""
    return kept(path) or keep(path, make())
