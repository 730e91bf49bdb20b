"""results/README.md: each claim with its verdict, each question of readers with its answer, each sweep that ran."""

import difflib
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

from moe_study.analysis.results.answered import Answered, answered
from moe_study.analysis.results.archive import Archive, archives
from moe_study.analysis.results.headlines import HEADLINES, Headlines, read_headlines
from moe_study.analysis.results.in_short import InShort, in_short, with_block
from moe_study.analysis.results.measures import kept_texts
from moe_study.analysis.results.papers import Paper, by_paper, number_of
from moe_study.analysis.results.questions import QUESTIONS, question_block, read_readers_questions
from moe_study.analysis.results.replication import FOLDER, TEXT, seeds_of, summary
from moe_study.analysis.results.verdicts import Finding, share_decided
from moe_study.analysis.tables_out import Cells, markdown
from moe_study.design.plain import from_plain
from moe_study.errors import DataError
from moe_study.sweeps.claims import Claims
from moe_study.sweeps.scales import split
from moe_study.sweeps.sweep_file import claims_of, sweep_names

README = "README.md"
HEAD = """\
# Results

Written by `moe-study results` from `runs.parquet` and `manifest.json` of the folders beside this file; a test computes
every table and verdict again from them. Differences are in nats per token, the first point minus the second, so that
less is better; intervals are those of the test, Holm-adjusted over the comparisons of a sweep, which its file states.
Sweeps share runs: where both sides were trained already when a sweep was first launched, the verdict is marked "asked
late" (asked_late in comparisons.csv). A claim of "the same" holds within the file's margin. † reads later tokens. Hours
are by the clock, of the runs on either side, which several rows can share."""


def overview_texts(out: Path, root: Path) -> dict[Path, str]:
    """All that is written over what is kept in `out`, by file: its README.md, the pictures, the texts of measures, and,
    where `out` is the project's own results/, the block of the project's README.md.

    `root`: the project, whose sweep files and questions count where `out` has none of its own.
    """
    places = (out, root / "results")
    questions, headlines = (
        next((place / name for place in places if (place / name).exists()), None) for name in (QUESTIONS, HEADLINES)
    )
    planned = {name: claims_of(name, root) for name in sweep_names(root) if not name.startswith("recipe/")}
    kept = [answered(archive, _claims_of(archive, root)) for archive in archives(out)]
    known = {*planned, *(split(one.archive.name)[0] for one in kept)}
    told = read_headlines(headlines) if headlines else Headlines()
    asked = read_readers_questions(questions) if questions else []
    for file, named in ((headlines, told.sweeps), (questions, [name for one in asked for name in one.read])):
        _need_known(named, known, file)
    short = in_short(kept, told) if headlines and kept else None
    texts = {out / README: overview(kept, questions, planned, short)}
    texts |= {path: text for one in kept for path, text in kept_texts(one.archive.folder, one.study)}
    if short is not None:
        texts |= {out / name: picture for name, picture in short.pictures.items()}
        own = out.resolve() == (root / "results").resolve()
        if own and (text := with_block(root / README, short.block("results/"))) is not None:
            texts[root / README] = text
    return texts


def _claims_of(archive: Archive, root: Path) -> Claims:
    """What its sweep file says, or of a file that lies elsewhere what was kept of it."""
    kept = archive.manifest.get("claims")
    if kept is not None and split(archive.name)[0] not in sweep_names(root):
        claims: Claims = from_plain(Claims, kept)
        return claims
    return claims_of(archive.name, root)


def _need_known(sweeps: Sequence[str], known: Collection[str], file: Path | None) -> None:
    """DataError for a sweep that there is not: it would be called one that was not run yet, or be passed over."""
    for name in sweeps:
        if name not in known:
            close = difflib.get_close_matches(name, list(known), n=1)
            advice = f"did you mean {close[0]}?" if close else f"there are {', '.join(sorted(known))}"
            raise DataError(f"{file} names {name}, which is no sweep; {advice}")


def overview(
    sweeps: Sequence[Answered],
    questions: Path | None,
    planned: Mapping[str, Claims],
    short: InShort | None = None,
) -> str:
    """The whole file.

    `questions`: the file of readers' questions. `planned`: all committed sweeps by name, so that what was not run yet
    is named, too. `short`: what is said first.
    """
    blocks = [HEAD]
    if short is not None:
        blocks += ["## In short", short.block()]
    if papers := by_paper(sweeps):
        blocks.append("## What the papers claim")
        for paper in papers:
            blocks += [f"### {paper.title}", paper.sentence, markdown(_claims(paper)), *_at_equal_loss(paper, sweeps)]
    if questions is not None:
        asked = read_readers_questions(questions)
        blocks += ["## What readers of the papers ask", *(question_block(one, sweeps, planned) for one in asked)]
    found = [(one, finding) for one in sweeps for finding in one.findings if finding.claim.expect is None]
    if found:
        decided = sum(finding.decided for _, finding in found)
        blocks += ["## What the papers do not say", f"{decided} of {len(found)} decided.", markdown(_found(found))]
    if again := [one for one in sweeps if one.replication is not None]:
        blocks += ["## Run again from scratch, with other seeds", _replications(again)]
    blocks += ["## Sweeps", markdown(_sweeps(sweeps))]
    waiting = [name for name in planned if name not in {split(one.archive.name)[0] for one in sweeps}]
    if waiting:
        blocks.append(f"Not run yet: {', '.join(waiting)}.")
    return "\n\n".join(block.rstrip() for block in blocks) + "\n"


def _claims(paper: Paper) -> Cells:
    rows = [
        [_place(one.claims.source, paper), f"{finding.claim.why} ({finding.claim.says})", *_measured(one, finding)]
        for one, finding in paper.claimed
    ]
    return Cells(["source", "claim", *_MEASURED], rows, text_columns=(0, 1, 2, 3, 5))


def _at_equal_loss(paper: Paper, sweeps: Sequence[Answered]) -> Iterator[str]:
    """What the paper's claims of costs come to, as one list; nothing where it has none."""
    lines = [
        f"- [{one.archive.name}]({one.archive.name}/answers.md): {reach.sentence}"
        for one in sweeps
        if number_of(one.claims.source) == paper.number
        for reach in one.reached
        if reach.is_claimed
    ]
    if lines:
        yield "\n".join(["At equal loss, with intervals that stand alone (the tests are those above):", "", *lines])


def _place(source: str, paper: Paper) -> str:
    """Where in its paper a claim stands."""
    rest = source.replace(paper.number, "", 1).strip(" ,") if paper.number else source
    return rest[:1].upper() + rest[1:]


def _found(found: Sequence[tuple[Answered, Finding]]) -> Cells:
    rows = [[finding.claim.why, *_measured(one, finding)] for one, finding in found]
    return Cells(["question", *_MEASURED], rows, text_columns=(0, 1, 2, 4))


_MEASURED = ("sweep", "test", "difference", "verdict", "seeds", "hours")


def _measured(one: Answered, finding: Finding) -> list[str]:
    name = one.archive.name
    return [
        f"[{name}]({name}/answers.md)",
        finding.pair,
        finding.effect,
        finding.told_verdict,
        str(finding.seeds or ""),
        f"{finding.hours:.2f}",
    ]


def _replications(sweeps: Sequence[Answered]) -> str:
    """How many verdicts agree in all, and sweep by sweep where not."""
    pairs = [pair for one in sweeps if one.replication for pair in one.replication.pairs]
    lines = [f"All together: {summary(pairs, where=False)}."]
    for one in sweeps:
        assert one.replication is not None
        name, other = one.archive.name, ", ".join(map(str, seeds_of(one.replication.archive.frame)))
        lines.append(f"- [{name}]({name}/{FOLDER}/{TEXT}), seeds {other}: {summary(one.replication.pairs)}.")
    return "\n".join([lines[0], "", *lines[1:]])


def _sweeps(sweeps: Sequence[Answered]) -> Cells:
    rows = [
        [
            f"[{one.archive.name}]({one.archive.name}/answers.md)",
            f"{one.archive.manifest['done']} of {one.archive.manifest['runs']}",
            share_decided(one.findings),
            f"{one.archive.manifest['hours_by_the_clock']:.2f}",
            str(one.archive.manifest["command"]),
        ]
        for one in sweeps
    ]
    return Cells(["sweep", "runs done", "comparisons decided", "hours", "command"], rows, text_columns=(0, 4))
