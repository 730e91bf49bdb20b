"""Whether runs that stand side by side were made by the same code, the same torch and from the same data."""

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from moe_study.runs.folder import RunFolder

Record = Mapping[str, Any]  # what provenance.json holds

SHOWN = 4  # runs named of each group but the largest
DIGITS = 9  # of a hash
UNKNOWN = "not recorded"


@dataclass(frozen=True)
class Mixture:
    """One respect in which some runs came about differently."""

    what: str  # code, torch or data
    groups: tuple[tuple[str, tuple[str, ...]], ...]  # (value, keys of its runs), the largest group first

    def sentence(self, names: Mapping[str, str] | None = None) -> str:
        """The difference in one line; `names` are what keys are called by."""
        (value, keys), *others = self.groups
        parts = [f"{len(keys)} have {value}"]
        for value, keys in others:
            parts.append(f"{len(keys)} {value} ({_listed([(names or {}).get(key, key) for key in keys])})")
        return f"these runs differ in their {self.what}: {', '.join(parts)}"


def mixed(folders: Iterable[RunFolder]) -> tuple[Mixture, ...]:
    """In which of code, torch and data fingerprint the runs of `folders` differ; empty where in none.

    Code is the modules of the package: commits that leave them as they are make no difference. A run that was resumed
    under other code has other code than one that was not. What a run has not recorded counts as a value of its own.
    """
    records = {folder.key: folder.known_provenance() for folder in folders}
    found = (_mixture(what, identity, name, records) for what, (identity, name) in RESPECTS.items())
    return tuple(mixture for mixture in found if mixture is not None)


def _mixture(what: str, identity: "Text", name: "Text", records: Mapping[str, Record]) -> Mixture | None:
    """Groups of one `identity`, each under the `name` that its first run has for it."""
    groups: dict[str, list[str]] = {}
    for key, record in records.items():
        groups.setdefault(identity(record), []).append(key)
    if len(groups) < 2:
        return None
    named = [(name(records[keys[0]]), tuple(keys)) for keys in groups.values()]
    return Mixture(what, tuple(sorted(named, key=lambda group: (-len(group[1]), group[0]))))


def _over_attempts(one: "Text", record: Record) -> str:
    """`one` of the last attempt, and of the attempts that it resumed from."""
    attempts = [record]
    for before in reversed(record.get("earlier") or []):
        if not attempts[-1].get("first_step"):
            break  # that attempt began at step 0, so nothing of an earlier one is in it
        attempts.append(before)
    return ", resumed from ".join(dict.fromkeys(map(one, attempts)))


def _modules(record: Record) -> str:
    """A hash of the package's modules; of a run that is older than this record, its commit."""
    return str(record.get("sources") or _one_code(record))


def _one_code(record: Record) -> str:
    """The commit and a hash of what differs from it; of an installed package its version and a hash of its sources."""
    if commit := record.get("commit"):
        diff = record.get("diff")
        return commit[:DIGITS] + (f" with changes {diff[:DIGITS]}" if diff else "")
    version, sources = record.get("version"), record.get("sources")
    if not version and not sources:
        return UNKNOWN
    return f"version {version or UNKNOWN}" + (f", sources {sources[:DIGITS]}" if sources else "")


def _torch(record: Record) -> str:
    return str((record.get("versions") or {}).get("torch") or UNKNOWN)


def _data(record: Record) -> str:
    fingerprint = record.get("data_fingerprint")
    return str(fingerprint)[:DIGITS] if fingerprint else UNKNOWN


Text = Callable[[Record], str]
RESPECTS: dict[str, tuple[Text, Text]] = {  # what tells runs apart, and what they are called by
    "code": (functools.partial(_over_attempts, _modules), functools.partial(_over_attempts, _one_code)),
    "torch": (_torch, _torch),
    "data": (_data, _data),
}


def _listed(names: list[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")
