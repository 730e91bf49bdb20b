"""Draws all results that are kept as one table for each machine: bench/results/README.md.

    python -m bench.table [--commits 4]

Rows are benchmarks, columns the newest commits that were measured. A row over its must is marked, and one that got
worse since the commit before by more than the spread of both.
"""

import argparse
import datetime
import json
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.common import RESULTS
from bench.machine import CHANGED, ROOT
from bench.targets import GPU, TARGETS, target_of
from moe_study.files import write_text_atomic

OVER, WORSE, MISSING = "✗", "▲", "–"
LEAST_CHANGE = 0.01  # of the older median; less is not a change even where nothing spreads (bytes)
HEAD = f"""# Benchmark results

Drawn by `python -m bench.table` from the JSON files in the folders beside it; `make bench` measures and draws.
Figures are medians over rounds, the lower the better. {OVER}: over what it must be. {WORSE}: worse than at the last
commit before that has the row, by more than the distance between the quartiles of either.
"""


@dataclass(frozen=True)
class Measured:
    """One file: what was measured at a commit on a machine."""

    commit: str
    time: float  # of the commit, or where it is unknown of the measurement; seconds since 1970
    environment: dict[str, Any]
    rows: dict[str, dict[str, Any]]

    def measured(self, name: str) -> dict[str, Any] | None:
        """The row of that name, unless it is missing or was skipped."""
        row = self.rows.get(name)
        return None if row is None or "skipped" in row else row


def load(path: Path) -> Measured:
    content = json.loads(path.read_text(encoding="utf-8"))
    written = datetime.datetime.fromisoformat(content["date"]).timestamp()
    time = written if content["commit"].endswith(CHANGED) else commit_time(content["commit"]) or written
    return Measured(content["commit"], time, content["environment"], content["rows"])


def commit_time(commit: str) -> float | None:
    """When the commit was made; None where the repository does not have it."""
    command = ("git", "-C", str(ROOT), "show", "-s", "--format=%ct", commit)
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError:
        return None
    return float(done.stdout) if done.returncode == 0 and done.stdout.strip() else None


def got_worse(new: dict[str, Any], old: dict[str, Any]) -> bool:
    """Whether the median rose by more than the distance of the quartiles, on both sides."""
    spreads = [row["high"] - row["low"] for row in (new, old)]
    return new["median"] - old["median"] > max(*spreads, LEAST_CHANGE * old["median"])


def cell(name: str, results: list[Measured], column: int) -> str:
    """A row at one of the commits (newest first), with its marks."""
    row = results[column].measured(name)
    if row is None:
        return MISSING
    target = target_of(name)
    text = f"{row['median']:.2f}" + (f" {row['unit']}" if "unit" in row else "")
    if target is not None and row["median"] > target.must:
        text += f" {OVER}"
    older = next((found for each in results[column + 1 :] if (found := each.measured(name)) is not None), None)
    if older is not None and got_worse(row, older):
        text += f" {WORSE}"
    return text


def quartiles(name: str, newest: Measured) -> str:
    row = newest.measured(name)
    return MISSING if row is None else f"{row['low']:.2f} to {row['high']:.2f}"


def rows_of(results: list[Measured], machine: str) -> list[str]:
    """The machine's targets in their order, measured or not, then everything else that was measured."""
    wanted = [name for name in TARGETS if name.startswith(GPU) != machine.startswith("cpu-")]
    found = [name for each in results for name in each.rows]
    return list(dict.fromkeys([*wanted, *found]))


def line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def table(machine: str, results: list[Measured], commits: int) -> str:
    """One machine's section; `results` newest first, of which the first `commits` become columns."""
    columns = range(min(commits, len(results)))
    newest = results[0]
    head = ["row", "must", "aim", newest.commit, "quartiles", *(each.commit for each in results[1:commits])]
    lines = [line(head), line(["---", *["---:"] * (len(head) - 1)])]
    for name in rows_of(results[:commits], machine):
        target = target_of(name)
        bounds = [f"{target.must:.2f}", f"{target.aim:.2f}"] if target else ["", ""]
        first, *others = (cell(name, results, column) for column in columns)
        lines.append(line([name, *bounds, first, quartiles(name, newest), *others]))
    about = "; ".join(str(value) for value in newest.environment.values())
    skipped = [f"- {name}: {row['skipped']}" for name, row in newest.rows.items() if "skipped" in row]
    section = [f"## {machine}", f"{about}; at {newest.commit}.", "\n".join(lines)]
    if skipped:
        section.append("\n".join(["Skipped:", "", *skipped]))
    return "\n\n".join(section)


def draw(folder: Path, commits: int) -> str:
    """The whole page, from all results below `folder`."""
    sections = [HEAD.strip()]
    for machine in sorted(path for path in folder.iterdir() if path.is_dir()):
        results = [load(path) for path in machine.glob("*.json")]
        if results:
            newest_first = sorted(results, key=lambda each: each.time, reverse=True)
            sections.append(table(machine.name, newest_first, commits))
    return "\n\n".join(sections) + "\n"


def write(commits: int = 4, folder: Path = RESULTS) -> None:
    """Draw the page beside the results, and say where."""
    path = folder / "README.md"
    write_text_atomic(path, draw(folder, commits))
    print(f"wrote {path}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--commits", type=int, default=4, help="columns, the newest commits (default 4)")
    write(parser.parse_args().commits)


if __name__ == "__main__":
    main()
