"""What was found out about a trained run on one probe, as tables: RUN/findings/PROBE-FINGERPRINT/NAME.parquet.

A finding is one table and the facts that it rests on (identity of the trace, number of permutations, ...), in one file,
written whole or not at all. Who computes them (posthoc/) asks for the very trace; who draws them (analysis/) takes all
that are there. Names, and the columns of each, stand with the code that makes it.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from moe_study.errors import DataError
from moe_study.files import atomic_file
from moe_study.runs.traces import TraceIdentity

if TYPE_CHECKING:
    import pandas as pd  # takes a quarter of a second, which a command without a frame does not need

FORMAT = 1  # goes up when older findings cannot be read any more
NAME = re.compile(r"[a-z][a-z0-9_]*")


class Finding(NamedTuple):
    """A table, and what it rests on."""

    table: "pd.DataFrame"
    identity: TraceIdentity
    facts: dict[str, Any]


def write_finding(
    findings: Path, identity: TraceIdentity, name: str, table: "pd.DataFrame", facts: dict[str, Any]
) -> None:
    """Keep `table` under `name`, in the place of an older one; `facts` hold what JSON can hold."""
    if not NAME.fullmatch(name):
        raise ValueError(f"{name!r} is not a name of small letters, digits and underscores")
    kept = table.copy(deep=False)
    kept.attrs = {"format": FORMAT, "identity": vars(identity), "facts": facts}
    with atomic_file(_path(findings, identity, name), DataError) as handle:
        kept.to_parquet(handle, index=False)


def find_finding(findings: Path, identity: TraceIdentity, name: str, facts: dict[str, Any]) -> Finding | None:
    """The finding of that identity with those facts (others may stand beside them); None where there is none."""
    found = _read(_path(findings, identity, name))
    if found is None or any(found.facts.get(fact) != value for fact, value in facts.items()):
        return None
    wanted = {part: value for part, value in vars(identity).items() if value is not None}
    return found if wanted.items() <= vars(found.identity).items() else None


def all_findings(findings: Path, name: str) -> Iterator[Finding]:
    """Those of `name` on every probe, by name of the probe; damaged ones count as absent, since they can be remade."""
    for path in sorted(findings.glob(f"*/{name}.parquet")):
        if (found := _read(path)) is not None:
            yield found


def finding_names(findings: Path) -> list[str]:
    """Names of all findings in that folder, on whichever probe."""
    return sorted({path.stem for path in findings.glob("*/*.parquet") if NAME.fullmatch(path.stem)})


def _path(findings: Path, identity: TraceIdentity, name: str) -> Path:
    return identity.folder_in(findings) / f"{name}.parquet"


def _read(path: Path) -> Finding | None:
    import pandas as pd

    if not path.exists():
        return None
    try:
        table = pd.read_parquet(path)
        if table.attrs["format"] != FORMAT:
            return None
        return Finding(table, TraceIdentity(**table.attrs["identity"]), table.attrs["facts"])
    except Exception:  # pyarrow raises many kinds for a damaged file
        return None
