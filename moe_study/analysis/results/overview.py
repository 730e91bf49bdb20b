"""results/README.md: each claim with its verdict, each question of readers with its answer, each sweep that ran."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from moe_study.analysis.results.archive import Archive
from moe_study.analysis.results.tokens import hardness
from moe_study.analysis.results.verdicts import FAILS, HOLDS, LACKING, Finding, findings, share_decided
from moe_study.analysis.study import Study
from moe_study.analysis.tables_out import Cells, markdown
from moe_study.errors import DataError
from moe_study.sweeps.claims import Claims
from moe_study.sweeps.scales import split
from moe_study.sweeps.values import read_yaml

QUESTIONS = "questions.yaml"
HEAD = """\
# Results

Written by `moe-study results` from `runs.parquet` and `manifest.json` of the folders beside this file; a test computes
every table and verdict again from them. Differences are in nats per token, the first point minus the second, so that
less is better; intervals are those of the test, Holm-adjusted over the comparisons of a sweep, which its file states
before the runs. A claim of "the same" holds within the file's margin. † reads later tokens. Hours are by the clock, of
the runs on either side, which several rows can share."""


@dataclass(frozen=True)
class Answered:
    """A sweep that was run, and what came of it."""

    archive: Archive
    study: Study
    claims: Claims
    findings: tuple[Finding, ...]


def answered(archive: Archive, claims: Claims) -> Answered:
    """The archive with its study, computed anew, and its findings."""
    study = archive.study()
    return Answered(archive, study, claims, tuple(findings(study, claims)))


def overview(sweeps: Sequence[Answered], questions: Path | None, planned: Mapping[str, Claims]) -> str:
    """The whole file.

    `questions`: the file of readers' questions. `planned`: all committed sweeps by name, so that what was not run yet
    is named, too.
    """
    blocks = [HEAD]
    claimed = [(one, finding) for one in sweeps for finding in one.findings if finding.claim.expect is not None]
    if claimed:
        ordered = sorted(claimed, key=lambda pair: (pair[0].claims.source, pair[0].archive.name))
        blocks += ["## What the papers claim", _verdicts(ordered), markdown(_claims(ordered))]
    if questions is not None:
        blocks += ["## What readers of the papers ask", *_questions(sweeps, _read_questions(questions), planned)]
    found = [(one, finding) for one in sweeps for finding in one.findings if finding.claim.expect is None]
    if found:
        blocks += ["## What the papers do not say", markdown(_found(found))]
    blocks += ["## Sweeps", markdown(_sweeps(sweeps))]
    waiting = [name for name in planned if name not in {split(one.archive.name)[0] for one in sweeps}]
    if waiting:
        blocks.append(f"Not run yet: {', '.join(waiting)}.")
    return "\n\n".join(block.rstrip() for block in blocks) + "\n"


def _verdicts(claimed: Sequence[tuple[Answered, Finding]]) -> str:
    counts = {word: sum(finding.verdict == word for _, finding in claimed) for word in (HOLDS, FAILS)}
    rest = len(claimed) - sum(counts.values())
    return f"{counts[HOLDS]} of {len(claimed)} hold, {counts[FAILS]} fail, {rest} are undecided or lack runs."


def _claims(claimed: Sequence[tuple[Answered, Finding]]) -> Cells:
    rows = [
        [one.claims.source, f"{finding.claim.why} ({finding.claim.says})", *_measured(one, finding)]
        for one, finding in claimed
    ]
    return Cells(["source", "claim", *_MEASURED], rows, text_columns=(0, 1, 2, 3, 5))


def _found(found: Sequence[tuple[Answered, Finding]]) -> Cells:
    rows = [[finding.claim.why, *_measured(one, finding)] for one, finding in found]
    return Cells(["question", *_MEASURED], rows, text_columns=(0, 1, 2, 4))


_MEASURED = ("sweep", "test", "difference", "verdict", "seeds", "hours")


def _measured(one: Answered, finding: Finding) -> list[str]:
    c = finding.comparison
    name = one.archive.name
    return [
        f"[{name}]({name}/answers.md)",
        finding.pair,
        finding.effect,
        finding.verdict,
        "" if c is None else str(c.difference.n),
        f"{finding.hours:.2f}",
    ]


def _sweeps(sweeps: Sequence[Answered]) -> Cells:
    rows = [
        [
            f"[{one.archive.name}]({one.archive.name}/answers.md)",
            f"{one.archive.manifest['done']} of {one.archive.manifest['runs']}",
            share_decided(one.findings),
            f"{one.archive.manifest['hours_by_the_clock']:.2f}",
            f"`{one.archive.manifest['command']}`",
        ]
        for one in sweeps
    ]
    return Cells(["sweep", "runs done", "comparisons decided", "hours", "command"], rows, text_columns=(0, 4))


def _questions(
    sweeps: Sequence[Answered], questions: Mapping[int, Mapping[str, Any]], planned: Mapping[str, Claims]
) -> Iterator[str]:
    for number, question in questions.items():
        own = [one for one in sweeps if number in one.claims.questions]
        items = [f"{_short(finding)} ({one.archive.name})" for one in own for finding in one.findings]
        items += [item for one in own for item in (*_token_by_token(one.archive), *_with_parts_off(one.archive))]
        ran = {split(one.archive.name)[0] for one in own}
        waiting = [name for name, claims in planned.items() if number in claims.questions and name not in ran]
        items += [f"not run yet: `python train.py -m +sweep={name} scale=cpu`" for name in waiting]
        items += [measure] if (measure := question.get("measure")) else []
        head = f"{number}. "
        yield "\n".join([f"{head}{question['asks']}", *(f"{' ' * len(head)}- {item}" for item in items)])


def _with_parts_off(archive: Archive) -> Iterator[str]:
    """What networks lose with parts off, if that was measured."""
    if (archive.folder / "sparsify.parquet").exists():
        yield f"[with parts off, at equal executed FLOPs]({archive.name}/sparsify.md)"


def _token_by_token(archive: Archive) -> Iterator[str]:
    """What was seen token by token, if the runs have read a probe."""
    for path in sorted(archive.folder.glob("tokens-*.parquet")):
        yield f"[token by token, on {path.stem.removeprefix('tokens-')}]({archive.name}/{path.stem}.md)"
        yield from hardness(pd.read_parquet(path))


def _short(finding: Finding) -> str:
    if finding.verdict == LACKING:
        return f"{finding.claim.why} Not run."
    return f"{finding.claim.why} {finding.verdict[:1].upper()}{finding.verdict[1:]}: {finding.pair}: {finding.effect}"


def _read_questions(path: Path) -> dict[int, Mapping[str, Any]]:
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise DataError(f"{path} must map numbers to questions")
    for number, question in content.items():
        if not str(number).isdigit() or not isinstance(question, dict) or not question.get("asks"):
            raise DataError(f"{path}: {number} must be a number with asks: (the question), and measure: where one does")
    return {int(number): question for number, question in content.items()}
