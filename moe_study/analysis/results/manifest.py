"""What results/NAME/manifest.json says beside the members of a sweep: how its runs came about."""

from typing import Any

import pandas as pd

from moe_study.analysis.frame import done
from moe_study.design.plain import to_plain
from moe_study.runs.members import Members
from moe_study.runs.provenance import code_version
from moe_study.sweeps.claims import Claims
from moe_study.sweeps.scales import split


def manifest_of(sweep: str, members: Members, rows: pd.DataFrame, claims: Claims) -> dict[str, Any]:
    """Sweep, command, and with what its runs were made: code, data, machines, hours."""
    finished = done(rows)
    name, scale = split(sweep)
    added = [override for launch in members.current for override in launch.overrides]
    words = ["python", "train.py", "-m", f"+sweep={name}", *([f"scale={scale}"] if scale else []), *added]
    fingerprints = finished[["data.name", "made.data_fingerprint"]].drop_duplicates()
    return {
        "sweep": sweep,
        "source": claims.source,
        "claims": to_plain(claims),
        "command": " ".join(dict.fromkeys(words)),
        "written_by": code_version()["commit"],
        "runs": len(rows),
        "done": len(finished),
        "commits": _distinct(finished["made.commit"]),
        "data": {str(data): str(found) for data, found in fingerprints.itertuples(index=False)},
        "hardware": _distinct(finished["made.cpu"].astype(str) + ", " + finished["made.device"].astype(str)),
        "torch": _distinct(finished["made.torch"]),
        "hours_by_the_clock": round(float(finished["train_seconds"].sum()) / 3600, 3),
    }


def _distinct(values: "pd.Series[Any]") -> list[str]:
    return sorted({str(value) for value in values.dropna()})
