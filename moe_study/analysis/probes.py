"""What was found out about the runs of a study on each probe (runs/findings.py), as long frames.

Nothing is computed here but what is of several runs: information over seeds.

A probe of one name can be cut to several sizes, and is tokenized by each run's tokenizer, so it has many fingerprints.
Rows of one table are of one fingerprint: of each finding, that of most runs (then of most tokens) stands under the
probe's name, others under names of their own. Those that are superseded are left out: the same runs, and maybe more,
have the finding on more tokens.
"""

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from moe_study.analysis.format import count
from moe_study.analysis.frame import each
from moe_study.analysis.specialisation.finding_columns import FINDING_COLUMNS
from moe_study.analysis.specialisation.layer_trace import WEIGHTINGS
from moe_study.analysis.specialisation.points import Point, measured_run, points_of, to_frame
from moe_study.runs.findings import Finding, all_findings, finding_names
from moe_study.runs.folder import RunFolder

OWN = {"label": "of", "seed": "draws_seed", "of": "whose"}  # columns of findings that would clash with those of runs
PICKS, GATE = WEIGHTINGS
DIGITS = 6  # of a fingerprint, where a study has several probes of one name


@dataclass(frozen=True)
class RunFinding:
    """One finding, and the run that it is about."""

    label: str  # of its point
    point: str
    key: str
    seed: int
    leaks: bool  # its routing reads later tokens
    finding: Finding


@dataclass(frozen=True)
class ProbeFindings:
    """All that was found on one probe."""

    name: str  # of the probe; with the beginning of a fingerprint where most runs have the same findings on another
    found: Mapping[str, Sequence[RunFinding]]  # by the finding's name, ordered by label and seed

    def table(self, name: str) -> pd.DataFrame:
        """The finding `name` of all runs: label, point, key and seed of the run, then its own columns (OWN renamed).

        Empty where no run has it.
        """
        parts = [_with_names(one) for one in self.found.get(name, ())]
        with_rows = [part for part in parts if len(part)] or parts[:1]
        return pd.concat(with_rows, ignore_index=True) if with_rows else pd.DataFrame(columns=["label", "seed", "of"])

    def over(self, name: str) -> str:
        """On which probe the finding `name` was made, and over how much of it."""
        parts = [f"probe {self.name}"]
        for unit in ("tokens", "documents"):
            if known := sorted(n for one in self.found.get(name, ()) if (n := _amount(one.finding, unit))):
                parts.append(f"{' to '.join(dict.fromkeys(map(count, (known[0], known[-1]))))} {unit}")
        return ", ".join(parts)

    @functools.cached_property
    def points(self) -> list[Point]:
        """Information of expert and label by design point, over seeds (specialisation/points.py)."""
        found = self.found.get("information", ())
        return points_of([measured_run(one.label, one.seed, one.leaks, one.finding.table) for one in found])

    @property
    def permutations(self) -> int:
        """Draws of each null of the information; 0 where there is none."""
        tables = [one.finding.table for one in self.found.get("information", ()) if len(one.finding.table)]
        return min((int(table["permutations"].min()) for table in tables), default=0)

    @functools.cached_property
    def information(self) -> pd.DataFrame:
        """The same as a frame (specialisation.points.to_frame).

        Labels of tokens stand given the token id only: their null leaves it in place, so alone they ask the same.
        """
        rows = to_frame(self.points)
        return rows[~(rows["label"].isin(self.token_labels) & rows["given"].eq(""))].reset_index(drop=True)

    @property
    def token_labels(self) -> frozenset[str]:
        """Labels that tokens have, not documents: their nulls exchange them among the occurrences of one token id."""
        return frozenset[str]().union(*(point.token_labels for point in self.points))

    @functools.cached_property
    def shares(self) -> pd.DataFrame:
        """Shares of each run as its information weighs experts: alike, and by gate where every token has them all."""
        table = self.table("shares")
        wanted = [GATE if key in self._by_gate else PICKS for key in table.get("key", ())]
        return table[table["weighted_by"] == wanted] if len(table) else table

    def shares_of(self, one: RunFinding) -> pd.DataFrame:
        """The rows of one finding `shares`, as it was written, that `shares` has of that run."""
        table = one.finding.table
        return table[table["weighted_by"] == (GATE if one.key in self._by_gate else PICKS)]

    @functools.cached_property
    def _by_gate(self) -> frozenset[str]:
        """Keys of the runs whose information weighs experts by the gate."""
        found = self.found.get("information", ())
        return frozenset(one.key for one in found if one.finding.table["weighted_by"].eq(GATE).any())

    @functools.cached_property
    def co_activation(self) -> pd.DataFrame:
        return self.table("co_activation")

    @functools.cached_property
    def knockout(self) -> pd.DataFrame:
        return self.table("knockout")


def probe_findings(runs: pd.DataFrame, problems: list[str] | None = None) -> tuple[ProbeFindings, ...]:
    """Of the finished runs of a frame (analysis/frame.py), by name of the probe; none where nothing was found yet.

    A damaged finding is left out, and `problems` gets its sentence.
    """
    by_finding: dict[tuple[str, str], dict[str, list[RunFinding]]] = {}  # (probe, finding): fingerprint: runs
    for run in each(runs.sort_values(["label", "seed"])):
        folder = RunFolder(run.folder)
        for name in finding_names(folder.findings_folder):
            for finding in all_findings(folder.findings_folder, name, FINDING_COLUMNS.get(name), problems):
                if finding.identity.run == folder.key:
                    about = RunFinding(run.label, run.point, run.key, int(run.seed), bool(run.leaks), finding)
                    of_name = by_finding.setdefault((finding.identity.probe, name), {})
                    of_name.setdefault(finding.identity.probe_fingerprint, []).append(about)
    found: dict[str, dict[str, list[RunFinding]]] = {}
    for (probe, name), by_fingerprint in by_finding.items():
        cuts = [cut for cut in by_fingerprint.values() if not _superseded(cut, by_fingerprint.values())]
        first, *others = sorted(cuts, key=lambda cut: (len(cut), _tokens(cut), _fingerprint(cut)), reverse=True)
        found.setdefault(probe, {})[name] = first
        for cut in others:
            found.setdefault(f"{probe}-{_fingerprint(cut)[:DIGITS]}", {})[name] = cut
    return tuple(ProbeFindings(name, found[name]) for name in sorted(found))


def _superseded(cut: Sequence[RunFinding], cuts: Iterable[Sequence[RunFinding]]) -> bool:
    """Whether another cut of the probe has the same finding about all these runs, on more tokens."""
    keys = {one.key for one in cut}
    return any(_tokens(other) > _tokens(cut) and keys <= {one.key for one in other} for other in cuts)


def _tokens(cut: Sequence[RunFinding]) -> int:
    return max(_amount(one.finding, "tokens") for one in cut)


def _fingerprint(cut: Sequence[RunFinding]) -> str:
    return cut[0].finding.identity.probe_fingerprint


def _amount(finding: Finding, unit: str) -> int:
    """Tokens or documents that a finding rests on, by its facts or its row of all domains; 0 where neither says it."""
    if unit in finding.facts:
        return int(finding.facts[unit])
    table = finding.table
    if not {unit, "label"} <= set(table):
        return 0
    of_all = table[table["label"] == ""][unit]
    return int(of_all.max()) if len(of_all) else 0


def _with_names(one: RunFinding) -> pd.DataFrame:
    table = one.finding.table.rename(columns=OWN)
    for place, name in enumerate(("label", "point", "key", "seed")):
        table.insert(place, name, getattr(one, name))
    return table
