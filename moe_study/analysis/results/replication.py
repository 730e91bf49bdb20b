"""results/NAME/replication/: the same comparisons from runs of other seeds, trained from scratch, beside the first.

    python train.py -m +sweep=open/gate scale=cpu run.seed=5,6,7,8,9 log.runs_dir=runs_again
    moe-study results runs_again --sweep open/gate@cpu --replicate

Both sets of runs are tested by themselves, each as its own family. Where both decide, verdicts agree or contradict one
another; where one decides alone, the other has not said anything yet. Where nobody claims anything, a difference that
is decided and lies within the margin agrees with "the same within the margin".
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import pandas as pd

from moe_study.analysis.frame import done
from moe_study.analysis.results.archive import REPLICATES, Archive, read_archive, rows_of, write_archive
from moe_study.analysis.results.manifest import manifest_of
from moe_study.analysis.results.verdicts import Finding, findings, is_within
from moe_study.analysis.study import read_study
from moe_study.analysis.tables_out import Cells, markdown
from moe_study.errors import DataError, StudyError
from moe_study.files import write_text_atomic
from moe_study.runs.members import read_members
from moe_study.sweeps.claims import Claims
from moe_study.sweeps.scales import split

FOLDER = "replication"  # below results/NAME
TEXT = "replication.md"
MORE = 5  # seeds that an advice names
OTHER_RUNS = "runs_again"  # a folder that it names


class Agreement(StrEnum):
    """What two sets of seeds say of one number."""

    AGREE = "agree"
    BOTH_OPEN = "undecided in both"
    ONE_DECIDES = "decided in one alone"
    CONTRADICT = "contradict"
    LACKING = "not run in both"


@dataclass(frozen=True)
class Twice:
    """One number that a sweep file asks for, from the first runs and from those of other seeds."""

    first: Finding
    again: Finding

    @property
    def agreement(self) -> Agreement:
        one, other = self.first.tested, self.again.tested
        if one is None or other is None or not self.first.seeds or not self.again.seeds:
            return Agreement.LACKING
        if one.decided != other.decided:
            return Agreement.ONE_DECIDES
        if not one.decided:
            return Agreement.BOTH_OPEN
        little = self.first.claim.expect is None and is_within(one) and is_within(other)
        return Agreement.AGREE if self.first.verdict == self.again.verdict or little else Agreement.CONTRADICT


@dataclass(frozen=True)
class Replication:
    """A sweep's runs of other seeds, and everything asked of them beside the first answer."""

    archive: Archive
    pairs: tuple[Twice, ...]


def keep_replication(runs_dir: Path, sweep: str, out: Path, claims: Claims) -> list[Path]:
    """Keep the runs of NAME@SCALE in `runs_dir` beside those in out/NAME@SCALE; the files.

    StudyError where that sweep was not kept yet, no run is done, or runs have a seed of the first ones.
    """
    folder = out / sweep
    if not folder.exists():
        raise StudyError(f"{folder} has no first result to compare with; run moe-study results --sweep {sweep} first")
    first, study = read_archive(folder), read_study([runs_dir], sweep)
    if not study.parts:
        raise StudyError(f"no run of {sweep} in {runs_dir} is done yet, so there is nothing to compare with the first")
    _need_other_seeds(first, study.frame, runs_dir)
    members, rows = read_members(runs_dir, sweep), rows_of(study.frame)
    manifest = manifest_of(sweep, members, rows, claims) | {REPLICATES: sweep}
    written = write_archive(folder / FOLDER, rows, members, manifest)
    text = replication_text(first, read_archive(folder / FOLDER), claims)
    write_text_atomic(folder / FOLDER / TEXT, text)
    return [*written, folder / FOLDER / TEXT]


def _need_other_seeds(first: Archive, again: pd.DataFrame, runs_dir: Path) -> None:
    used = seeds_of(first.frame)
    if shared := [seed for seed in seeds_of(again) if seed in used]:
        others = range(max(used) + 1, max(used) + 1 + MORE)
        raise StudyError(
            f"runs of {_named(shared)} in {runs_dir} are of the first result of {first.name}, which they cannot "
            f"confirm; train others into a folder of their own: {_command(first, others)}"
        )


def _command(first: Archive, seeds: Sequence[int]) -> str:
    name, scale = split(first.name)
    words = ["python train.py -m", f"+sweep={name}", *([f"scale={scale}"] if scale else [])]
    return " ".join([*words, f"run.seed={','.join(map(str, seeds))}", f"log.runs_dir={OTHER_RUNS}"])


def _named(seeds: Sequence[int]) -> str:
    return f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"


def seeds_of(frame: pd.DataFrame) -> list[int]:
    """Of the finished runs."""
    return sorted({int(seed) for seed in done(frame)["seed"]})


def read_replication(first: Archive, found: Sequence[Finding], claims: Claims) -> Replication | None:
    """What is kept beside the archive of a sweep, whose findings are known; None where nothing is."""
    if not (first.folder / FOLDER).exists():
        return None
    archive = read_archive(first.folder / FOLDER)
    if archive.name != first.name:
        raise DataError(f"{archive.folder} holds runs of {archive.name}; move it below what was kept of that sweep")
    again = findings(archive.study(), claims)
    return Replication(archive, tuple(_twice(found, again)))


def _twice(first: Sequence[Finding], again: Sequence[Finding]) -> list[Twice]:
    """Findings of the same request side by side; one that the others lack stands beside nothing."""
    others = {(one.claim, one.written): one for one in again}
    return [Twice(one, others.get((one.claim, one.written), Finding(one.claim))) for one in first]


# In words -----------------------------------------------------------------------------------------------------------


def replication_text(first: Archive, again: Archive, claims: Claims) -> str:
    """Every number twice, in a table, under how many agree."""
    found = Replication(again, tuple(_twice(findings(first.study(), claims), findings(again.study(), claims))))
    header = ["question", "test", "first verdict", "first difference", "again verdict", "again difference", "the two"]
    rows = [
        [
            pair.first.claim.why,
            pair.first.pair,
            pair.first.verdict,
            pair.first.effect,
            pair.again.verdict,
            pair.again.effect,
            pair.agreement.value,
        ]
        for pair in found.pairs
    ]
    blocks = [
        f"# {first.name}, run again from scratch with other seeds",
        f"First {_named(seeds_of(first.frame))}, then {_named(seeds_of(again.frame))}; each set of runs is tested by "
        'itself. Where nobody claims anything, a decided difference within the margin agrees with "the same within '
        'the margin".',
        f"{summary(found.pairs)}.",
        markdown(Cells(header, rows, text_columns=(0, 1, 2, 4, 6))).rstrip(),
        "Trained and kept by",
        f"    {again.manifest['command']} log.runs_dir={OTHER_RUNS}\n"
        f"    moe-study results {OTHER_RUNS} --sweep {first.name} --replicate",
        *_made_otherwise(first, again),
    ]
    return "\n\n".join(blocks) + "\n"


def _made_otherwise(first: Archive, again: Archive) -> list[str]:
    """What else than the seeds differs between the two sets."""
    names = {"data": "data", "torch": "PyTorch", "hardware": "machine"}
    differing = [word for name, word in names.items() if first.manifest.get(name) != again.manifest.get(name)]
    return [f"Not only the seeds differ: so do {' and '.join(differing)} (see both manifests)."] if differing else []


def summary(pairs: Sequence[Twice], where: bool = True) -> str:
    """How many verdicts agree, and where not (or how many not), in one sentence without its end."""
    known = [pair for pair in pairs if pair.agreement is not Agreement.LACKING]
    by = {one: [pair for pair in known if pair.agreement is one] for one in Agreement}
    agree = len(by[Agreement.AGREE]) + len(by[Agreement.BOTH_OPEN])
    text = f"{agree} of {len(known)} verdicts agree"
    if both := len(by[Agreement.BOTH_OPEN]):
        text += f" ({both} of them undecided in both)"
    differing = ((word, by[one]) for one, word in _DIFFERING.items() if by[one])
    if not where:
        return ", ".join([text, *(f"{len(own)} {word}" for word, own in differing)])
    parts = [f"{word}: {'; '.join(map(_where, own))}" for word, own in differing]
    return f"{text}; where not, {', '.join(parts)}" if parts else text


_DIFFERING = {Agreement.CONTRADICT: "contradicted", Agreement.ONE_DECIDES: "decided in one alone"}


def _where(pair: Twice) -> str:
    return f"{pair.first.pair} ({pair.first.verdict}, then {pair.again.verdict})"
