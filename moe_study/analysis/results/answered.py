"""A sweep that was run and kept, with what came of it: what overviews are written from."""

from dataclasses import dataclass

from moe_study.analysis.results.archive import Archive
from moe_study.analysis.results.reached import Reached, reached
from moe_study.analysis.results.replication import Replication, read_replication
from moe_study.analysis.results.verdicts import Finding, findings
from moe_study.analysis.study import Study
from moe_study.sweeps.claims import Claims


@dataclass(frozen=True)
class Answered:
    """A sweep that was run, and what came of it."""

    archive: Archive
    study: Study
    claims: Claims
    findings: tuple[Finding, ...]
    replication: Replication | None = None  # where it was run again, with other seeds
    reached: tuple[Reached, ...] = ()  # costs at equal loss


def answered(archive: Archive, claims: Claims) -> Answered:
    """The archive with its study, computed anew, and its findings."""
    study = archive.study()
    found = tuple(findings(study, claims))
    again = read_replication(archive, found, claims)
    return Answered(archive, study, claims, found, again, tuple(reached(study, claims)))
