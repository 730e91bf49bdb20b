"""What was found out about a trained run on one probe, as tables: RUN/findings/PROBE-FINGERPRINT/NAME.parquet.

A finding is one table and the facts that it rests on (identity of the trace, number of permutations, ...), in one file,
written whole or not at all. Who computes them (posthoc/) asks for the very trace; who draws them (analysis/) takes all
that are there. Names, and the columns of each, stand with the code that makes it; who reads one says which `columns` it
must have, and a table without them counts as damaged, as does a file that cannot be read: it can be remade.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from moe_study.errors import DataError
from moe_study.files import atomic_file
from moe_study.runs.columns import Columns, fault_of
from moe_study.runs.traces import TraceIdentity

if TYPE_CHECKING:
    import pandas as pd  # takes a quarter of a second, which a command without a frame does not need

FORMAT = 1  # goes up when older findings cannot be read any more
FACTS = {"tokens": int, "documents": int, "notes": list, "overlap": dict | None}  # what some findings have
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


def find_finding(
    findings: Path, identity: TraceIdentity, name: str, facts: dict[str, Any], columns: Columns | None = None
) -> Finding | None:
    """The finding of that identity with those facts (others may stand beside them); None where there is none."""
    try:
        found = _read(_path(findings, identity, name), columns)
    except DataError:
        return None
    if found is None or any(found.facts.get(fact) != value for fact, value in facts.items()):
        return None
    wanted = {part: value for part, value in vars(identity).items() if value is not None}
    return found if wanted.items() <= vars(found.identity).items() else None


def all_findings(
    findings: Path, name: str, columns: Columns | None = None, problems: list[str] | None = None
) -> Iterator[Finding]:
    """Those of `name` on every probe, by name of the probe; a damaged one is left out, its sentence in `problems`."""
    for path in sorted(findings.glob(f"*/{name}.parquet")):
        try:
            if (found := _read(path, columns)) is not None:
                yield found
        except DataError as error:
            if problems is not None and str(error) not in problems:
                problems.append(str(error))


def finding_names(findings: Path) -> list[str]:
    """Names of all findings in that folder, on whichever probe."""
    return sorted({path.stem for path in findings.glob("*/*.parquet") if NAME.fullmatch(path.stem)})


def _path(findings: Path, identity: TraceIdentity, name: str) -> Path:
    return identity.folder_in(findings) / f"{name}.parquet"


def _read(path: Path, columns: Columns | None) -> Finding | None:
    """None where there is none, or one of another version; DataError where it is damaged."""
    import pandas as pd

    advice = "delete it, and the command that measured it (specialise, knockout, score or results) does so again"
    try:
        if not path.exists():
            return None
        table = pd.read_parquet(path)
        if table.attrs["format"] != FORMAT:
            return None
        found = Finding(table, TraceIdentity(**table.attrs["identity"]), dict(table.attrs["facts"]))
    except Exception as error:  # pyarrow raises many kinds for a damaged file
        raise DataError(f"{path} is damaged: it is not a finding; {advice}") from error
    known = (found.identity.run, found.identity.probe, found.identity.probe_fingerprint)
    if not all(isinstance(part, str) for part in known):
        raise DataError(f"{path} is damaged: it does not say whose it is; {advice}")
    if (fault := _fault_of_facts(found.facts) or fault_of(table, columns or {})) is not None:
        raise DataError(f"{path} is damaged: {fault}; {advice}")
    return found


def _fault_of_facts(facts: dict[str, Any]) -> str | None:
    """What is wrong with the first fact that any finding may have and this one has otherwise."""
    for name, kind in FACTS.items():
        if name in facts and not isinstance(facts[name], kind):
            return f"its {name} are {facts[name]!r:.40}"
    return None
